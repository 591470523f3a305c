"""Where the rows of finished parts are: in files of their own, or with neighbouring parts in a large one.

Names say it all: `part-000012.parquet` holds one part, `part-000100-000199.HEX.parquet` the parts from 100 to 199, none
left out. So what is finished is known from one listing. A name of many parts never comes to mean other content, and
such files come and go only when a compaction puts another folder in the place of `rows` at once; see `switching`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from s1batch.results.atomic import results_errors
from s1batch.results.large_file import LargeFile
from s1batch.results.layout import Layout
from s1batch.results.rows_file import read_table

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class RowsFile:
    """One file of rows: the parts from `first` to `last`."""

    first: int
    last: int
    path: Path

    @property
    def parts(self) -> range:
        """Its parts."""
        return range(self.first, self.last + 1)


def rows_folder(layout: Layout) -> Path:
    """Return where the files of rows are right now.

    Between the two renames that replace an exchange, `rows` is not there and `rows.old` holds everything.
    """
    return layout.rows if layout.rows.is_dir() or not layout.old_rows.is_dir() else layout.old_rows


def list_rows(layout: Layout, folder: Path) -> list[RowsFile]:
    """Return the files of rows in a folder, in the order of the plan; none where the folder is missing.

    Raises:
        ResultsError: The folder cannot be read.
    """
    found = []
    with results_errors(folder):
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return []
    for name in names:
        parts = layout.rows_range(name)
        if parts is not None:
            found.append(RowsFile(*parts, folder / name))
    return sorted(found, key=lambda file: (file.first, file.last))


class PartFiles:
    """The files of rows of a results directory, as they were when they were listed.

    Raises:
        ResultsError: The folder cannot be read.
    """

    def __init__(self, layout: Layout, files: list[RowsFile] | None = None) -> None:
        self.layout = layout
        self.files = list_rows(layout, rows_folder(layout)) if files is None else files
        self._opened: dict[Path, LargeFile] = {}
        self._cached: tuple[tuple[Path, int, list[str] | None], pa.Table] | None = None
        self._lock = threading.Lock()

    @classmethod
    def single(cls, layout: Layout, part: int) -> PartFiles:
        """Return the file of one part alone, without looking for others."""
        return cls(layout, [RowsFile(part, part, layout.part_rows(part))])

    @cached_property
    def finished(self) -> frozenset[int]:
        """The parts that have their rows in a file."""
        return frozenset(part for file in self.files for part in file.parts)

    @property
    def large(self) -> list[RowsFile]:
        """The files of many parts."""
        return [file for file in self.files if self.is_large(file)]

    def is_large(self, file: RowsFile) -> bool:
        """Whether a file is one of many parts, or was made like them."""
        return self.layout.rows_part(file.path.name) is None

    def lies_in_large(self, part: int) -> bool:
        """Whether a part lies in a file of many."""
        file = self._by_part.get(part)
        return file is not None and self.is_large(file)

    def path_of(self, part: int) -> Path:
        """Return the file that holds a part, or would hold it."""
        file = self._by_part.get(part)
        return self.layout.part_rows(part) if file is None else file.path

    def doubled(self) -> list[int]:
        """Return the parts that lie in two files: never by a compaction, but perhaps where somebody copied files."""
        seen: set[int] = set()
        again: set[int] = set()
        for file in self.files:
            again.update(seen.intersection(file.parts))
            seen.update(file.parts)
        return sorted(again)

    def open(self, file: RowsFile) -> LargeFile:
        """Return a file of many parts, opened.

        Raises:
            ResultsError: It is damaged or gone.
        """
        with self._lock:
            found = self._opened.get(file.path)
            if found is None:
                found = self._opened[file.path] = LargeFile(file.path)
            return found

    def written_ns(self) -> Iterator[tuple[int, int]]:
        """Yield each finished part with the time at which its rows were written, ns since 1970."""
        for file in self.files:
            if self.is_large(file):
                index = self.open(file).index
                yield from zip(file.parts, index.written_ns.tolist(), strict=True)
            else:
                try:
                    yield file.first, file.path.stat().st_mtime_ns
                except FileNotFoundError:
                    yield file.first, 0

    # ------------------------------------------------------------------------------------------------- rows

    def read(self, part: int, columns: list[str] | None = None) -> pa.Table:
        """Read the rows of a finished part, or some columns of them, and check their checksums.

        Raises:
            ResultsError: The file is damaged or gone, or the part is not finished.
        """
        file = self._by_part.get(part)
        if file is None:
            return read_table(self.layout.part_rows(part), columns)
        if not self.is_large(file):
            return read_table(file.path, columns)
        opened = self.open(file)
        group = opened.group_number(part)
        return opened.part_of(self._group(opened, group, columns), group, part)

    def tables(self, columns: list[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """Yield the parts in the order of the plan with their rows, or some columns of them; see `read`."""
        for file in self.files:
            for part in file.parts:
                yield part, self.read(part, columns)

    def scan(self, parts: Collection[int] | None = None) -> pl.LazyFrame:
        """Return the rows of finished parts, in the order of the plan.

        Args:
            parts: Which ones; None means all.
        """
        import polars as pl

        frames: list[pl.LazyFrame] = []
        whole: list[Path] = []
        for file in self.files:
            wanted = file.parts if parts is None else [part for part in file.parts if part in parts]
            if len(wanted) == len(file.parts):
                whole.append(file.path)
            elif wanted:
                if whole:
                    frames.append(pl.scan_parquet(whole, glob=False))
                    whole = []
                lines = pl.scan_parquet(file.path, glob=False)
                near = pl.col("part").is_between(wanted[0], wanted[-1])
                frames.append(lines.filter(near & pl.col("part").is_in(list(wanted))))
        if whole or not frames:
            # The file without rows gives the columns when no part is finished.
            frames.append(pl.scan_parquet(whole or [self.layout.schema], glob=False))
        return frames[0] if len(frames) == 1 else pl.concat(frames)

    @cached_property
    def _by_part(self) -> dict[int, RowsFile]:
        return {part: file for file in self.files for part in file.parts}

    def _group(self, opened: LargeFile, group: int, columns: list[str] | None) -> pa.Table:
        # Neighbouring parts share a row group, and are mostly asked for one after the other.
        wanted = (opened.path, group, columns)
        with self._lock:
            if self._cached is None or self._cached[0] != wanted:
                self._cached = None  # not both at once
                self._cached = (wanted, opened.group(group, columns))
            return self._cached[1]
