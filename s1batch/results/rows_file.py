"""Files of rows: written at once, with a checksum on every page, and read back checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from s1batch.errors import ResultsError
from s1batch.records import Row
from s1batch.results.atomic import atomic_path
from s1batch.results.layout import Layout
from s1batch.results.schema import RowSchema

SMALL_TABLE_BYTES = 2**18
"""Tables below this are compressed by Snappy: setting up zstd for each column costs more than all the rest."""


def write_rows(path: Path, schema: RowSchema, rows: Sequence[Row]) -> None:
    """Write fitted rows as one Parquet file, as a whole or not at all.

    Raises:
        ResultsError: The file cannot be written.
    """
    write_table(path, schema.to_table(rows))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as one Parquet file, as a whole or not at all.

    Raises:
        ResultsError: The file cannot be written.
    """
    compression = "snappy" if table.nbytes < SMALL_TABLE_BYTES else "zstd"
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression=compression, write_page_checksum=True)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file, or some columns of it, and check its checksums.

    Raises:
        ResultsError: It is damaged, or cannot be read.
    """
    with reading(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        # Most files are small, and where there are many, the caller reads several at once.
        return file.read(columns, use_threads=False)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the file when it is gone or damaged.

    Raises:
        ResultsError: It is.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise ResultsError(
            f"{path} is gone; if the results were compacted just now, run the command again, else restore it from a "
            "copy, or run the job again: its chunks are then asked once more"
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise ResultsError(
            f"{path} cannot be read ({error}); restore it from a copy, or remove it and run again: "
            "its chunks are then asked once more"
        ) from error


def read_rows(path: Path, schema: RowSchema) -> list[Row]:
    """Read the rows of a file that `write_rows` wrote.

    Raises:
        ResultsError: It is damaged, cannot be read, or has other columns.
    """
    table = read_table(path)
    check_columns(path, schema, table)
    return schema.rows_from_table(table)


def check_columns(path: Path, schema: RowSchema, table: pa.Table) -> None:
    """Make sure that rows have the columns of these results.

    Raises:
        ResultsError: They have others.
    """
    differences = schema.differences(table.schema)
    if differences:
        raise ResultsError(f"{path} has other columns than these results: {'; '.join(differences)}")


@contextmanager
def naming_damage(root: Path) -> Iterator[None]:
    """Name the file when polars meets a damaged one among the rows or merged answers of a results directory.

    Raises:
        ResultsError: A file is damaged.
    """
    import polars as pl

    try:
        yield
    except FileNotFoundError as error:
        raise ResultsError(
            f"{root}: files of rows went while they were read ({error}); if the results were compacted just now, "
            "run the command again"
        ) from error
    except pl.exceptions.ComputeError:
        layout = Layout(root)
        for path in (*sorted(layout.rows.glob("*.parquet")), *sorted(layout.merged.glob("*.parquet"))):
            _check(path)
        raise


def _check(path: Path) -> None:
    with reading(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        for number in range(file.num_row_groups):
            file.read_row_group(number, use_threads=False)
