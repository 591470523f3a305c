"""The time series that rows of a table hold, or name the files of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s1batch.errors import SourceError
from s1batch.readers.tables.cells import CellFiles, cell
from s1batch.records import Series, SeriesShape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LARGEST_FILE_BYTES = 256 * 2**20
"""Ten million samples as text; more than any engine takes whole."""

_ENDINGS = ".npy, .csv, .txt, .parquet"


@dataclass(frozen=True)
class SeriesColumns:
    """Columns of series.

    A cell holds numbers (T), lists of numbers (T, C), or the path of a file below `root`: a NumPy array (never one that
    holds Python objects), a CSV or text file with a line per step, or a Parquet file with a column per channel.

    Attributes:
        names: The columns, in the order in which their series are sent.
        root: Folder below which all paths must lie: a table does not choose what is read elsewhere.
        rate_hz: Samples per second, or the column that tells.
        units: Physical unit of the values.
    """

    names: tuple[str, ...]
    root: Path
    rate_hz: float | str
    units: str = ""

    def read(self, fields: Mapping[str, Any]) -> tuple[list[str], tuple[Series, ...]]:
        """Return the files of a row's series, relative to the root, and the series.

        Raises:
            SourceError: There is no such column, no series in it, or one that no engine takes; the text names it.
        """
        rate_hz = self._rate(fields)
        folder = CellFiles(self.root, "source.series_root", "series", LARGEST_FILE_BYTES)
        files: list[str] = []
        found: list[Series] = []
        for name in self.names:
            value = cell(fields, name, "a series")
            if value is None or value == "":
                raise SourceError("source_missing", f"the row has no series in {name}")
            channels: tuple[str, ...] = ()
            if isinstance(value, str):
                file, path = folder.find(value)
                files.append(file)
                array, channels = _from_file(folder, path, value)
            else:
                array = _from_cell(value, name)
            found.append(_series(array, channels, rate_hz, name, self.units))
        return files, tuple(found)

    def shapes(self, lengths: Mapping[str, tuple[int, int]]) -> tuple[SeriesShape | None, ...]:
        """Return the shapes of a row's series as far as they are known before reading.

        Args:
            lengths: Steps and channels of the columns whose type fixes them.
        """
        rate_hz = self.rate_hz
        if isinstance(rate_hz, str):
            return (None,) * len(self.names)
        return tuple(
            SeriesShape(steps=lengths[name][0], channels=lengths[name][1], rate_hz=rate_hz) if name in lengths else None
            for name in self.names
        )

    def _rate(self, fields: Mapping[str, Any]) -> float:
        if not isinstance(self.rate_hz, str):
            return self.rate_hz
        value = cell(fields, self.rate_hz, "the sampling rate")
        try:
            rate_hz = float(value)
        except (TypeError, ValueError, OverflowError):
            rate_hz = math.nan
        if not 0 < rate_hz < math.inf:
            raise SourceError("rate_missing", f"the column {self.rate_hz!r} holds {value!r}, which is no rate in Hz")
        return rate_hz


def _from_cell(value: Any, name: str) -> NDArray[Any]:
    import numpy as np

    if not isinstance(value, Sequence) or isinstance(value, (bytes, bytearray)):
        kind = type(value).__name__
        raise SourceError("source_missing", f"the column {name!r} holds no series but a {kind}")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise SourceError("wrong_shape", f"the lists in {name} are not equally long") from error
    if array.dtype == object:
        if any(item is None or (isinstance(item, Sequence) and None in item) for item in value):
            raise SourceError("not_finite", f"the series in {name} holds nulls")
        raise SourceError(
            "wrong_shape", f"{name} holds something else than numbers, or lists that are not equally long"
        )
    return array


def _from_file(folder: CellFiles, path: Path, name: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the values and, where the file names them, the channels."""
    try:
        match path.suffix.lower():
            case ".npy":
                return _from_npy(path, name), ()
            case ".csv" | ".txt":
                return _from_text(path, name)
            case ".parquet":
                return _from_parquet(path, name)
    except OSError as error:
        raise folder.unreadable(name, error) from error
    raise SourceError("unknown_format", f"the series {name} ends in none of {_ENDINGS}")


def _from_npy(path: Path, name: str) -> NDArray[Any]:
    import numpy as np

    with path.open("rb") as file:
        try:
            array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, EOFError, SyntaxError, TypeError, MemoryError) as error:
            raise SourceError("decode_error", f"the series {name} is no whole NumPy array: {error}") from error
        if file.read(1):
            raise SourceError("decode_error", f"the series {name} goes on behind its array")
    return array


def _from_text(path: Path, name: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    import numpy as np

    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SourceError("decode_error", f"the series {name} is no UTF-8") from error
    lines = [line for line in lines if line.strip() and line[0] != "#"]
    # None splits at white space of any length.
    between = next((sign for sign in ",;\t" if lines and sign in lines[0]), None)
    rows = [[value.strip() for value in line.split(between)] for line in lines]
    channels: tuple[str, ...] = ()
    if rows and not _is_number(rows[0][0]):
        channels = tuple(rows.pop(0))
    if len({len(row) for row in rows}) > 1:
        raise SourceError("wrong_shape", f"the lines of the series {name} have different numbers of values")
    try:
        return np.array(rows, dtype=np.float64).reshape(len(rows), -1 if rows else 0), channels
    except ValueError as error:
        raise SourceError("decode_error", f"the series {name} holds something else than numbers: {error}") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _from_parquet(path: Path, name: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        try:
            parquet = pq.ParquetFile(file)
            if parquet.metadata.num_rows * parquet.metadata.num_columns * 8 > LARGEST_FILE_BYTES:
                raise SourceError("not_readable", f"the series {name} is larger than {LARGEST_FILE_BYTES >> 20} MB")
            table = parquet.read(use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise SourceError("decode_error", f"the series {name} is no readable Parquet: {error}") from error
    columns = []
    for field, column in zip(table.schema, table.columns, strict=True):
        if not (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
            raise SourceError("wrong_shape", f"the column {field.name!r} of the series {name} holds {field.type}")
        if column.null_count:
            raise SourceError("not_finite", f"the column {field.name!r} of the series {name} holds nulls")
        columns.append(column.to_numpy())
    return np.column_stack(columns) if columns else np.empty((0, 0)), tuple(table.column_names)


def _series(array: NDArray[Any], channels: tuple[str, ...], rate_hz: float, name: str, units: str) -> Series:
    """Return an array as a series.

    Raises:
        SourceError: It is none.
    """
    import numpy as np

    if array.dtype.kind not in "fiub":
        raise SourceError("wrong_shape", f"{name} holds {array.dtype}, which are no real numbers")
    if array.ndim not in (1, 2):
        raise SourceError("wrong_shape", f"{name} has {array.ndim} dimensions; a series has (T) or (T, C)")
    if not array.size:
        raise SourceError("series_too_short", f"the series in {name} is empty")
    with np.errstate(over="ignore"):
        values_TC: NDArray[np.float32] = np.ascontiguousarray(array.reshape(len(array), -1), dtype=np.float32)
    if not np.isfinite(values_TC).all():
        count = int((~np.isfinite(values_TC)).sum())
        raise SourceError("not_finite", f"{count:,} of {values_TC.size:,} values in {name} are not finite in float32")
    steps, width = values_TC.shape
    if steps < width:
        raise SourceError("wrong_shape", f"{name} has {steps} steps of {width} channels: the shape is (time, channel)")
    if len(channels) != width:
        channels = (name,) if width == 1 else tuple(f"{name}[{number}]" for number in range(width))
    return Series(values_TC=values_TC, rate_hz=rate_hz, channels=channels, units=units)
