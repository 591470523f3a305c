"""Where the rows of a file are, and what they hold, for each format.

A format finds rows without holding the file (`scan`) and reads chosen ones in ascending order (`read`). For text
formats a row is found again by its bytes; a Parquet row by its index.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import orjson

from s1batch.errors import SourceError

LONGEST_ROW = 64 * 2**20
"""Bytes of one row of text; a longer one is not read into memory."""

Format = Literal["parquet", "csv", "jsonl", "arrow"]

FORMATS: Mapping[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}

LONGEST_FIELD = 2**20
"""Characters of one field of a CSV; more than a prompt may hold."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlace:
    """Where one row is.

    Attributes:
        index: Its number in the file, from 0.
        start: First byte; None for Parquet and Arrow.
        stop: First byte behind it; None for Parquet and Arrow.
        nbytes: Bytes read for it (an estimate for Parquet and Arrow).
        behind: First byte that neither it nor a row before it lies in, where that is known.
    """

    index: int
    start: int | None = None
    stop: int | None = None
    nbytes: int = 0
    behind: int | None = None


class RowFormat(Protocol):
    """One format of tables."""

    def scan(self, path: Path) -> Iterator[RowPlace]:
        """Yield the place of every row.

        Raises:
            SourceError: The file as a whole is not readable.
            OSError: It cannot be opened.
        """

    def read(self, path: Path, places: Sequence[RowPlace]) -> Iterator[Mapping[str, Any] | SourceError]:
        """Yield the fields of each place, which ascend, or the error of that row.

        Raises:
            SourceError: The file as a whole is not readable.
            OSError: It cannot be opened.
        """


@dataclass(frozen=True, slots=True)
class JsonLines:
    """One JSON object per line; blank lines are no rows.

    Attributes:
        columns: The keys to keep; a line without one of them has null. None keeps what each line has.
    """

    columns: tuple[str, ...] | None = None

    def scan(self, path: Path) -> Iterator[RowPlace]:
        """Yield every line that is not blank."""
        with path.open("rb") as file:
            index = 0
            for start, line, stop in _lines(file):
                if line.strip():
                    yield RowPlace(index=index, start=start, stop=stop, nbytes=stop - start)
                    index += 1

    def read(self, path: Path, places: Sequence[RowPlace]) -> Iterator[Mapping[str, Any] | SourceError]:
        """Yield the object of each line."""
        with path.open("rb") as file:
            for place in places:
                try:
                    yield self._fields(_bytes_of(file, place))
                except SourceError as error:
                    yield error

    def _fields(self, line: bytes) -> Mapping[str, Any]:
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise SourceError("decode_error", f"the line is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise SourceError("decode_error", f"the line is a JSON {type(value).__name__}, not an object")
        return value if self.columns is None else {name: value.get(name) for name in self.columns}


@dataclass(frozen=True, slots=True)
class Csv:
    """Comma-separated values in UTF-8 with a header; every field is the text that stands in the file.

    Attributes:
        columns: The fields to keep; None keeps all.
        delimiter: What stands between fields.
    """

    columns: tuple[str, ...] | None = None
    delimiter: str = ","

    def scan(self, path: Path) -> Iterator[RowPlace]:
        """Yield every record; a record with line breaks in quotes is one row."""
        with path.open("rb") as file:
            _, position = self._header(file)
            file.seek(position)
            start, index = position, 0
            lines = _TrackedLines(file, position)
            reader = self._parser(lines)
            while True:
                try:
                    is_row = bool(next(reader))
                except StopIteration:
                    return
                except csv.Error:
                    # A stray quote swallows lines; only the first is the broken row, the others get their own chance.
                    is_row = True
                    lines.go_behind_line(start)
                if is_row:
                    yield RowPlace(index=index, start=start, stop=lines.position, nbytes=lines.position - start)
                    index += 1
                start = lines.position

    def read(self, path: Path, places: Sequence[RowPlace]) -> Iterator[Mapping[str, Any] | SourceError]:
        """Yield each record by the names of the header."""
        with path.open("rb") as file:
            names, _ = self._header(file)
            for place in places:
                try:
                    yield self._fields(names, _bytes_of(file, place))
                except SourceError as error:
                    yield error

    def _fields(self, names: list[str], record: bytes) -> Mapping[str, Any]:
        try:
            values = next(self._parser(io.StringIO(record.decode("utf-8"), newline="\n")))
        except UnicodeDecodeError as error:
            raise SourceError("decode_error", f"the row is no UTF-8: {error}") from error
        except (csv.Error, StopIteration) as error:
            raise SourceError("decode_error", f"the row is no CSV: {error}") from error
        if len(values) != len(names):
            raise SourceError("decode_error", f"the row has {len(values)} fields; the header has {len(names)}")
        return _select(dict(zip(names, values, strict=True)), self.columns)

    def _header(self, file: IO[bytes]) -> tuple[list[str], int]:
        """Return the names and the position behind them."""
        lines = _TrackedLines(file, 0)
        try:
            names = next(self._parser(lines), [])
        except csv.Error as error:
            raise SourceError("decode_error", f"the header is no CSV: {error}") from error
        if any("\udc80" <= character <= "\udcff" or character == "\0" for name in names for character in name):
            raise SourceError("decode_error", "the header is no UTF-8; convert the file")
        if not names:
            raise SourceError("decode_error", "the file does not begin with a line of column names")
        check_names(names, self.columns)
        return names, lines.position

    def _parser(self, lines: Iterable[str]) -> Iterator[list[str]]:
        csv.field_size_limit(LONGEST_FIELD)
        return csv.reader(lines, delimiter=self.delimiter, strict=True)


def check_names(names: Sequence[str], columns: tuple[str, ...] | None) -> None:
    """Make sure that a table's columns have different names and that the wanted ones are there.

    Raises:
        SourceError: One stands twice, or is missing.
    """
    if len(set(names)) != len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise SourceError("not_readable", f"the column {twice!r} stands twice; rename one")
    missing = [name for name in columns or () if name not in names]
    if missing:
        shown = ", ".join(names[:40]) or "none"
        raise SourceError("not_readable", f"source.columns: no column {', '.join(missing)}; the columns are {shown}")


def _select(fields: Mapping[str, Any], columns: tuple[str, ...] | None) -> Mapping[str, Any]:
    return fields if columns is None else {name: fields[name] for name in columns}


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes, int]]:
    """Yield (start, line, stop); of a line that is too long only the beginning is given."""
    position = 0
    while line := file.readline(LONGEST_ROW):
        start, position = position, position + len(line)
        if start == 0 and line.startswith(_BOM):
            start, line = len(_BOM), line[len(_BOM) :]
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(LONGEST_ROW)
            position += len(rest)
        yield start, line, position


def _bytes_of(file: IO[bytes], place: RowPlace) -> bytes:
    start, stop = place.start or 0, place.stop or 0
    if stop - start > LONGEST_ROW:
        raise SourceError("not_readable", f"the row has {stop - start} bytes; at most {LONGEST_ROW} are read")
    file.seek(max(start - 1, 0))
    before = file.read(1) if start else b"\n"
    found = file.read(stop - start)
    at_end = found.endswith(b"\n") or not file.read(1)
    if len(found) != stop - start or before not in (b"\n", _BOM[-1:]) or not at_end:
        raise SourceError("source_changed", f"bytes {start} to {stop} are no row any more; plan again")
    return found


class _TrackedLines:
    """The lines of a file as text, with the position behind the last one taken.

    Bytes that are no UTF-8 pass as surrogates, so that one such row does not hide the others.
    """

    def __init__(self, file: IO[bytes], position: int) -> None:
        self._file = file
        self.position = position

    def __iter__(self) -> _TrackedLines:
        return self

    def go_behind_line(self, start: int) -> None:
        """Go on behind the line that begins at a position."""
        self._file.seek(start)
        self.position = start
        next(self)

    def __next__(self) -> str:
        line = self._file.readline(LONGEST_ROW)
        if not line:
            raise StopIteration
        first = self.position == 0
        self.position += len(line)
        return (line.removeprefix(_BOM) if first else line).decode("utf-8", "surrogateescape")
