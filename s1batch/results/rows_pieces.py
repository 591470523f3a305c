"""Files of rows in pieces that are read at once, so that a check of all rows takes little memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from s1batch.errors import ResultsError
from s1batch.results.large_file import LargeFile
from s1batch.results.part_files import PartFiles, RowsFile
from s1batch.results.rows_file import read_table


@dataclass(frozen=True, slots=True)
class RowsPiece:
    """What is read at once: a file of one part, a row group of a large one, or a large one that cannot be opened."""

    file: RowsFile
    opened: LargeFile | None = None
    group: int | None = None
    damage: str | None = None

    def tables(self) -> Iterator[tuple[int, pa.Table, bytes | None]]:
        """Yield each part with its rows and the digest that they should have, where that is known."""
        if self.damage is not None:
            raise ResultsError(self.damage)
        if self.opened is None or self.group is None:
            yield self.file.first, read_table(self.file.path), None
            return
        table = self.opened.group(self.group)
        for part in self.opened.parts_of(self.group):
            digest = self.opened.index.digests[part - self.opened.index.first]
            yield part, self.opened.part_of(table, self.group, part), digest


def rows_pieces(files: PartFiles) -> Iterator[RowsPiece]:
    """Yield all files of rows, in the order of the plan, piece by piece."""
    for file in files.files:
        if not files.is_large(file):
            yield RowsPiece(file)
            continue
        try:
            opened = files.open(file)
        except ResultsError as error:
            yield RowsPiece(file, damage=str(error))
            continue
        if (opened.index.first, opened.index.last) != (file.first, file.last):
            yield RowsPiece(file, damage=f"{file.path} holds other parts than its name says; restore it from a copy")
            continue
        for group in range(opened.groups):
            yield RowsPiece(file, opened, group)
