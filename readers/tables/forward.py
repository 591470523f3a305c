"""Rows that cannot be sought, read forward: a worker's parts follow one another, and none decodes what another did.

A row of a columnar file lies in a group (a row group of Parquet, a record batch of Arrow) that is decoded from its
beginning. Parts are short (64 rows and more) and groups long (a million rows and more), so a decoder that has come as
far as a part's last row is kept, and the next part that begins behind it goes on from there.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, Any, ClassVar, Self

from s1batch.errors import SourceError
from s1batch.readers.tables.formats import RowPlace, check_names
from s1batch.readers.tables.nanoseconds import as_microseconds, with_times

KEPT_DECODERS = 4
"""Decoders that are kept; parts that are read at once need one each."""

Columns = tuple[str, ...] | None
Identity = tuple[int, int, int, int]


class Decoder(ABC):
    """An open file and how far it is decoded; a context manager, and closed at the latest when nobody has it any more.

    Args:
        path: The file.
        columns: The columns to read; None reads all.

    Attributes:
        rows: Rows of the file.
        position: The row from which it can go on: the first of the present batch.
        identity: Which file it is, and of which state.

    Raises:
        SourceError: The file is no readable one of its format, or has not these columns.
        OSError: It cannot be opened.
    """

    kind: ClassVar[str]
    """What the file should be, for messages."""

    rows: int

    def __init__(self, path: Path, columns: Columns) -> None:
        import pyarrow as pa

        self._columns = columns
        self._batch: Any = None
        self._file: Any = None
        self.position = 0
        # Arrow opens no path that is not UTF-8, so Python does. It is not mapped: a file that shrinks would kill us.
        self._raw: IO[bytes] = path.open("rb")
        try:
            self.identity = identity(os.fstat(self._raw.fileno()))
            self._open()
            check_names(self.schema.names, columns)
        except BaseException as error:
            self._raw.close()
            if isinstance(error, pa.ArrowException | OSError):
                raise SourceError("not_readable", f"no readable {self.kind}: {error}") from error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_raw"):
            self._raw.close()

    def close(self) -> None:
        """Close the file."""
        self._batch = self._file = None
        self._raw.close()

    @property
    @abstractmethod
    def schema(self) -> Any:
        """The columns with their Arrow types."""

    @abstractmethod
    def _open(self) -> None:
        """Look at the file, which is open as `_raw`, and set `rows`; errors of Arrow and of the system may pass."""

    @abstractmethod
    def batch_with(self, index: int) -> tuple[Any, int, SourceError | None]:
        """Decode on until the batch that holds a row, which must not lie before `position`.

        Returns:
            The batch and the index of its first row; or the error of the row's group, which begins anew next time.
        """

    @abstractmethod
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


@dataclass(frozen=True, slots=True)
class ForwardFormat:
    """A columnar format, read forward.

    Attributes:
        columns: The columns to read; None reads all.
        kept: Decoders of earlier reads, of all files.
    """

    columns: Columns = None
    kept: KeptDecoders = field(default_factory=KeptDecoders)

    decoder: ClassVar[type[Decoder]]

    def lengths(self, path: Path) -> dict[str, tuple[int, int]]:
        """Return steps and channels of the columns that hold series of one length, by the type.

        Raises:
            SourceError: The file is not readable.
            OSError: It cannot be opened.
        """
        with self.decoder(path, self.columns) as decoder:
            return _fixed_lengths(decoder.schema)

    def read(self, path: Path, places: Sequence[RowPlace]) -> Iterator[Mapping[str, Any] | SourceError]:
        """Yield each row as Python values; a group that does not decode costs its own rows."""
        if not places:
            return
        with self.kept.decoder(path, self.columns, places[0].index, self.decoder) as decoder:
            yield from read_forward(decoder, places)


def identity(stat: os.stat_result) -> Identity:
    """Return what tells a file from another one, and from itself after a change."""
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _fixed_lengths(schema: Any) -> dict[str, tuple[int, int]]:
    """Return steps and channels of the columns of an Arrow schema whose type fixes the length of a series."""
    import pyarrow as pa

    found: dict[str, tuple[int, int]] = {}
    for column in schema:
        if pa.types.is_fixed_size_list(column.type):
            inner = column.type.value_type
            if pa.types.is_fixed_size_list(inner):
                found[column.name] = (column.type.list_size, inner.list_size)
            elif not pa.types.is_nested(inner):
                found[column.name] = (column.type.list_size, 1)
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
