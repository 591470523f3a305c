"""Rows that cannot be sought, read forward: a worker's parts follow one another, and none decodes what another did.

A row of a columnar file lies in a group (a row group of Parquet, a record batch of Arrow) that is decoded from its
beginning. Parts are short (64 rows and more) and groups long (a million rows and more), so a decoder that has come as
far as a part's last row is kept, and the next part that begins behind it goes on from there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from s1batch.errors import SourceError
from s1batch.readers.tables.formats import RowPlace
from s1batch.readers.tables.nanoseconds import as_microseconds, with_times

KEPT_DECODERS = 4
"""Decoders that are kept; parts that are read at once need one each."""

Columns = tuple[str, ...] | None
Identity = tuple[int, int, int, int]


class Decoder(Protocol):
    """An open file and how far it is decoded.

    Attributes:
        rows: Rows of the file.
        position: The row from which it can go on: the first of the present batch.
        identity: Which file it is, and of which state.
    """

    rows: int
    position: int
    identity: Identity

    def close(self) -> None:
        """Close the file."""

    def batch_with(self, index: int) -> tuple[Any, int, SourceError | None]:
        """Decode on until the batch that holds a row, which must not lie before `position`.

        Returns:
            The batch and the index of its first row; or the error of the row's group, which begins anew next time.
        """

    def end_of_group(self, index: int) -> int:
        """Return the first row behind the group that holds a row."""


def read_forward(decoder: Decoder, places: Sequence[RowPlace]) -> Iterator[Mapping[str, Any] | SourceError]:
    """Yield the rows of places, which ascend, as Python values; a group that does not decode costs its own rows."""
    done = 0
    while done < len(places):
        first = places[done].index
        if first >= decoder.rows:
            break
        batch, batch_first, error = decoder.batch_with(first)
        behind = batch_first + len(batch) if error is None else decoder.end_of_group(first)
        upto = done
        while upto < len(places) and places[upto].index < behind:
            upto += 1
        if error is None:
            for run in _runs(batch, [place.index - batch_first for place in places[done:upto]]):
                yield from _python_rows(run)
        else:
            yield from (error for _ in range(done, upto))
        done = upto
    for place in places[done:]:
        yield SourceError("source_changed", f"the file has {decoder.rows} rows; row {place.index} was planned")


class KeptDecoders:
    """The decoders that have come furthest; shared by threads, and empty in a copy for another process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decoders: list[tuple[Path, Columns, Decoder]] = []  # the latest last

    def __reduce__(self) -> tuple[type[KeptDecoders], tuple[()]]:
        return KeptDecoders, ()

    @contextmanager
    def decoder(
        self, path: Path, columns: Columns, index: int, opened: Callable[[Path, Columns], Decoder]
    ) -> Iterator[Decoder]:
        """Lend the decoder that is the shortest way before a row, or a new one; nobody else has it meanwhile.

        Args:
            path: The file.
            columns: The columns to read; None reads all.
            index: The row.
            opened: Makes a decoder.

        Raises:
            SourceError: The file is not readable.
            OSError: It cannot be opened.
        """
        decoder = self._take(path, columns, index) or opened(path, columns)
        try:
            yield decoder
        except GeneratorExit:
            self._keep(path, columns, decoder)
            raise
        except BaseException:
            decoder.close()
            raise
        self._keep(path, columns, decoder)

    def _take(self, path: Path, columns: Columns, index: int) -> Decoder | None:
        now = identity(os.stat(path))
        with self._lock:
            fitting = [
                entry
                for entry in self._decoders
                if entry[:2] == (path, columns) and entry[2].position <= index and entry[2].identity == now
            ]
            if not fitting:
                return None
            nearest = max(fitting, key=lambda entry: entry[2].position)
            self._decoders.remove(nearest)
            return nearest[2]

    def _keep(self, path: Path, columns: Columns, decoder: Decoder) -> None:
        with self._lock:
            self._decoders.append((path, columns, decoder))
            surplus = self._decoders[:-KEPT_DECODERS]
            del self._decoders[:-KEPT_DECODERS]
        for _, _, old in surplus:
            old.close()


def identity(stat: os.stat_result) -> Identity:
    """Return what tells a file from another one, and from itself after a change."""
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def fixed_lengths(schema: Any) -> dict[str, tuple[int, int]]:
    """Return steps and channels of the columns of an Arrow schema whose type fixes the length of a series."""
    import pyarrow as pa

    found: dict[str, tuple[int, int]] = {}
    for field in schema:
        if pa.types.is_fixed_size_list(field.type):
            inner = field.type.value_type
            if pa.types.is_fixed_size_list(inner):
                found[field.name] = (field.type.list_size, inner.list_size)
            elif not pa.types.is_nested(inner):
                found[field.name] = (field.type.list_size, 1)
    return found


def _runs(batch: Any, indices: Sequence[int]) -> Iterator[Any]:
    """Yield rows of a batch, whose indices ascend, as slices of it; `take` does not know every type of Arrow."""
    for _, run in groupby(enumerate(indices), lambda item: item[1] - item[0]):
        here = [index for _, index in run]
        yield batch.slice(here[0], len(here))


def _python_rows(batch: Any) -> Iterator[Mapping[str, Any] | SourceError]:
    """Yield rows as Python values; one that Python cannot hold (a date in the year 20000) costs only itself."""
    try:
        plain, times = as_microseconds(batch)
        rows = with_times(plain.to_pylist(), times)
    except (ValueError, OverflowError) as error:
        if batch.num_rows > 1:
            for index in range(batch.num_rows):
                yield from _python_rows(batch.slice(index, 1))
        else:
            yield SourceError("decode_error", f"a value of the row cannot be read: {error}")
        return
    yield from rows
