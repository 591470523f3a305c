"""Tables of truth for jobs that answer row by row: their lines, and the rows that each line is about.

A line says which rows it is about by any of `KEYS` that both the table and the results have; all of them must agree.
Values are compared as text, times as instants, and files by their names alone where the truth names no folders.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from s1batch.errors import UsageError
from s1batch.jobs.scoring.truth_table import NOTHING, read_table, text_column
from s1batch.jobs.scoring.truth_times import parse_time_ns

KEYS: Mapping[str, tuple[str, ...]] = {
    "chunk_key": ("chunk_key",),
    "source": ("source", "stream"),
    "image": ("image", "image_file", "file", "filename", "file_name", "path"),
    "page": ("page", "frame"),
    "row_index": ("row_index", "row"),
    "question": ("question",),
    "paper": ("paper", "paper_id", "corpus_id"),
    "passage_id": ("passage_id",),
    "start": ("start", "start_time"),
}
"""What says which rows a line is about, and what its column may be called; the first that a table has counts."""

_YES = frozenset({"true", "yes", "1", "t", "y"})
_NO = frozenset({"false", "no", "0", "f", "n"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthLines:
    """A table of truth as text.

    Attributes:
        name: What messages call it.
        lines: Its lines, by column name in lower case; empty text where there is nothing.
        columns: The names, as they stand in the table.
    """

    name: str
    lines: tuple[Mapping[str, str], ...]
    columns: tuple[str, ...]

    @classmethod
    def read(cls, source: str | Path | pl.DataFrame) -> TruthLines:
        """Read a CSV (comma, semicolon, tab), JSON lines or Parquet file.

        Raises:
            UsageError: It cannot be read.
        """
        if isinstance(source, pl.DataFrame):
            table, name = source, "the truth table"
        else:
            path = Path(source)
            if not path.is_file():
                raise UsageError(f"{path}: there is no such file of truth")
            table, name = _read(path), str(path)
        lower = {column.strip().lower(): column for column in reversed(table.columns)}
        plain = pl.DataFrame([text_column(table[column]).alias(key) for key, column in lower.items()])
        return cls(name=name, lines=tuple(plain.iter_rows(named=True)), columns=tuple(table.columns))

    def find(self, *names: str) -> str | None:
        """Return the first of these columns that the table has."""
        have = {column.strip().lower() for column in self.columns}
        return next((name for name in names if name in have), None)

    def need(self, what: str, *names: str) -> str:
        """Return the first of these columns.

        Raises:
            UsageError: The table has none of them.
        """
        found = self.find(*names)
        if found is None:
            raise UsageError(
                f"{self.name}: no column says {what} (understood: {', '.join(names)}). "
                f"Columns found: {', '.join(self.columns) or 'none'}"
            )
        return found

    def value(self, number: int, column: str | None) -> str:
        """Return a value as text; empty where there is none."""
        text = self.lines[number][column].strip() if column is not None else ""
        return "" if text.lower() in NOTHING else text

    def number(self, number: int, column: str | None) -> float | None:
        """Return a number; None where there is none.

        Raises:
            UsageError: It is no number.
        """
        text = self.value(number, column)
        if not text:
            return None
        try:
            found = float(text.replace(",", "") if text.count(",") and text.count(".") <= 1 else text)
        except ValueError:
            found = float("nan")
        if not abs(found) < float("inf"):
            raise UsageError(f"{self.where(number)}: {text!r} is no number")
        return found

    def boolean(self, number: int, column: str | None) -> bool | None:
        """Return true or false; None where there is neither.

        Raises:
            UsageError: It is something else.
        """
        text = self.value(number, column).lower()
        if text and text not in _YES | _NO:
            raise UsageError(f"{self.where(number)}: {text!r} is neither true nor false")
        return text in _YES if text else None

    def time_ns(self, number: int, column: str | None) -> int | None:
        """Return a time in nanoseconds; None where there is none.

        Raises:
            UsageError: It is no time.
        """
        text = self.value(number, column)
        return parse_time_ns(text, self.where(number)) if text else None

    def where(self, number: int) -> str:
        """Return what messages call a line; the first one behind the header is line 2."""
        return f"{self.name}, line {number + 2}"

    def rows_of(self, rows: Mapping[str, Sequence[Any]]) -> list[list[int]]:
        """Return for each line the numbers of the rows that it is about.

        Args:
            rows: By key out of `KEYS`, its value in each row (times in ns); None in a row that has none.

        Raises:
            UsageError: The table has none of these keys.
        """
        columns = {key: column for key in rows if key in KEYS and (column := self.find(*KEYS[key])) is not None}
        if not columns:
            understood = "; ".join(f"{key}: {', '.join(KEYS[key])}" for key in rows if key in KEYS)
            raise UsageError(
                f"{self.name}: no column says which rows a line is about. "
                f"Columns found: {', '.join(self.columns) or 'none'}. Columns understood: {understood}"
            )
        by_name = "image" in columns and not any("/" in self.value(n, columns["image"]) for n in range(len(self.lines)))

        def folded(key: str, value: Any) -> str:
            if value is None:
                return ""
            text = " ".join(str(value).split())
            return PurePosixPath(text).name if key == "image" and by_name else text

        places: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for place, values in enumerate(zip(*(rows[key] for key in columns), strict=True)):
            places[tuple(folded(key, value) for key, value in zip(columns, values, strict=True))].append(place)
        found = []
        for number in range(len(self.lines)):
            key_values = []
            for key, column in columns.items():
                value: Any = self.time_ns(number, column) if key == "start" else self.value(number, column)
                key_values.append(folded(key, value))
            found.append(places.get(tuple(key_values), []))
        return found


def row_keys(rows: pl.DataFrame) -> dict[str, list[Any]]:
    """Return the keys that results have, by row."""
    keys: dict[str, list[Any]] = {}
    for key in ("chunk_key", "source", "page", "row_index", "question", "passage_id"):
        if key in rows.columns:
            keys[key] = rows[key].to_list()
    paper = [name for name in ("paper", "paper_id") if name in rows.columns]
    if paper:
        keys["paper"] = rows.select(pl.coalesce(paper)).to_series().to_list()
    image = [name for name in ("image", "source_file") if name in rows.columns]
    if "image" in rows.columns:
        keys["image"] = rows.select(pl.coalesce(image)).to_series().to_list()
    if "start" in rows.columns and rows["start"].dtype == pl.Datetime:
        keys["start"] = rows["start"].dt.cast_time_unit("ns").cast(pl.Int64).to_list()
    return keys


def _read(path: Path) -> pl.DataFrame:
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        return read_table(path)
    try:
        return pl.read_ndjson(path, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"{path}: no table of truth can be read there: {' '.join(str(error).split())}") from error
