"""Rows as CSV, JSON lines or one Parquet file, in bounded memory.

In CSV, lists and structs are JSON text, and text that a spreadsheet would run as a formula (it begins with `=`, `+`,
`-`, `@`, a tab or a carriage return) gets an apostrophe in front: what a model or a file name says must not be executed
by whoever opens the table. `raw` leaves it as it is. Numbers are never changed. Times are UTC in ISO 8601 with
nanoseconds in CSV and JSON.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from s1batch.results.atomic import atomic_path, make_folder

Format = Literal["csv", "jsonl", "parquet"]

_BATCH_ROWS = 10_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def export_rows(rows: pl.LazyFrame, target: Path, kind: Format, *, raw: bool = False) -> int:
    """Write rows to one file, as a whole or not at all.

    Args:
        rows: The rows, such as `ResultsStore.scan()`.
        target: The file.
        kind: Its format.
        raw: In CSV, leave text that looks like a formula as it is.

    Returns:
        How many rows.

    Raises:
        ResultsError: The file cannot be written.
    """
    make_folder(target.parent)
    write = {"csv": _write_csv, "jsonl": _write_jsonl, "parquet": _write_parquet}[kind]
    with atomic_path(target) as temporary:
        return write(rows, temporary, raw)


def _batches(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    return rows.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True)


def _write_parquet(rows: pl.LazyFrame, path: Path, raw: bool) -> int:
    schema: pa.Schema = rows.collect_schema().to_frame().to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        for frame in _batches(rows):
            writer.write_table(frame.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema))
            count += len(frame)
    return count


def _write_jsonl(rows: pl.LazyFrame, path: Path, raw: bool) -> int:
    count = 0
    with path.open("wb") as file:
        for frame in _batches(rows):
            for line in _texted(frame).iter_rows(named=True):
                file.write(orjson.dumps(line, default=_plain, option=orjson.OPT_APPEND_NEWLINE))
            count += len(frame)
    return count


def _write_csv(rows: pl.LazyFrame, path: Path, raw: bool) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows.collect_schema().names())
        for frame in _batches(rows):
            cells = [_cell(dtype, raw) for dtype in frame.schema.dtypes()]
            for line in _texted(frame).iter_rows():
                writer.writerow([cell(value) for cell, value in zip(cells, line, strict=True)])
            count += len(frame)
    return count


def _cell(dtype: pl.DataType, raw: bool) -> Callable[[Any], Any]:
    if isinstance(dtype, pl.String) and not raw:
        return lambda value: f"'{value}" if value is not None and value.startswith(_FORMULA) else value
    if dtype.is_nested():
        return lambda value: None if value is None else orjson.dumps(value, default=_plain).decode("utf-8")
    if isinstance(dtype, pl.Boolean):
        return lambda value: None if value is None else str(value).lower()
    if isinstance(dtype, pl.Binary):
        return lambda value: None if value is None else value.hex()
    return lambda value: value


def _texted(frame: pl.DataFrame) -> pl.DataFrame:
    """Turn timestamps into text, so that no nanosecond is lost to Python's microseconds."""
    return frame.with_columns(
        _as_text(pl.col(name), dtype).alias(name) for name, dtype in frame.schema.items() if _has_time(dtype)
    )


def _has_time(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List):
        return _has_time(_inner(dtype))
    if isinstance(dtype, pl.Struct):
        return any(_has_time(_field_type(field)) for field in dtype.fields)
    return isinstance(dtype, pl.Datetime)


def _as_text(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        return value.dt.strftime("%Y-%m-%dT%H:%M:%S%.9fZ")
    if isinstance(dtype, pl.List):
        return value.list.eval(_as_text(pl.element(), _inner(dtype)))
    if isinstance(dtype, pl.Struct):
        changed = [
            _as_text(value.struct.field(field.name), _field_type(field)).alias(field.name)
            for field in dtype.fields
            if _has_time(_field_type(field))
        ]
        return value.struct.with_fields(changed)
    return value


def _inner(dtype: pl.List) -> pl.DataType:
    inner = dtype.inner
    return inner if isinstance(inner, pl.DataType) else inner()


def _field_type(field: pl.Field) -> pl.DataType:
    return field.dtype if isinstance(field.dtype, pl.DataType) else field.dtype()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"JSON does not hold a {type(value).__name__}")
