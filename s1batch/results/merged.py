"""Answers merged over overlapping chunks, beside the rows that they were made of."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from s1batch.errors import ResultsError
from s1batch.jobs.base import Job
from s1batch.results.atomic import atomic_path, make_folder
from s1batch.results.layout import Layout
from s1batch.results.part_files import PartFiles
from s1batch.results.store import ResultsStore

if TYPE_CHECKING:
    import polars as pl

PIECE_ROWS = 1024
"""Rows are merged in pieces of whole parts with at least so many rows."""


def merge_rows(store: ResultsStore, job: Job) -> int | None:
    """Write the merged answers of the finished parts; of their rows, only what the job looks at is read.

    Returns:
        How many merged answers there are; None when the job has nothing to merge.

    Raises:
        ResultsError: A file of rows is damaged, or the merged answers cannot be written.
    """
    names = [name for name in store.schema.arrow.names if name in job.merge_columns]
    if not names:
        return None
    return _write(store.layout, job.merge_pieces(_Pieces(store, names)))


def write_merged(path: str | os.PathLike[str], frame: pl.DataFrame) -> Path:
    """Write merged answers, replacing earlier ones as a whole.

    Args:
        path: The results directory.
        frame: At least the columns `group_id` and `source_chunk_keys` (lists of chunk keys).

    Returns:
        The file.

    Raises:
        ValueError: A column is missing, which is a mistake in the job.
        ResultsError: The file cannot be written.
    """
    layout = Layout(Path(path))
    _write(layout, [frame])
    return layout.merged_rows()


class _Pieces:
    """Some columns of the rows of all finished parts, in the order of the plan, a bounded number of rows at a time."""

    def __init__(self, store: ResultsStore, columns: list[str]) -> None:
        self._store = store
        self._columns = columns

    def __iter__(self) -> Iterator[pl.DataFrame]:
        import polars as pl

        tables = [self._store.schema.arrow.empty_table().select(self._columns)]
        files = self._store.files()
        for part in sorted(files.finished):
            tables.append(self._read(files, part))
            if sum(table.num_rows for table in tables) >= PIECE_ROWS:
                yield pl.DataFrame(pa.concat_tables(tables))
                del tables[1:]
        yield pl.DataFrame(pa.concat_tables(tables))

    def _read(self, files: PartFiles, part: int) -> pa.Table:
        table = files.read(part, self._columns)
        missing = sorted(set(self._columns).difference(table.column_names))
        if missing:
            raise ResultsError(f"{files.path_of(part)} has no column {', '.join(missing)}; restore it from a copy")
        return table.select(self._columns)


def _write(layout: Layout, frames: Iterable[pl.DataFrame]) -> int:
    """Write frames with the same columns as one file; return the number of rows."""
    import polars as pl

    make_folder(layout.merged)
    count = 0
    writer: pq.ParquetWriter | None = None
    with atomic_path(layout.merged_rows()) as temporary:
        try:
            for frame in frames:
                for name in ("group_id", "source_chunk_keys"):
                    if name not in frame.columns:
                        raise ValueError(f"merged answers have no column {name}")
                table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
                if writer is None:
                    writer = pq.ParquetWriter(temporary, table.schema, compression="zstd", write_page_checksum=True)
                if table.num_rows:
                    writer.write_table(table)
                count += table.num_rows
        finally:
            if writer is not None:
                writer.close()
    return count
