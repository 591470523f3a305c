"""Rows of Arrow IPC files (Feather) and streams.

The headers of the record batches are read without their bodies (found by the footer of a file, one after the other in
a stream), so that the rows of each batch are known before any is decoded: a torn file is noticed by its end, and a
batch that does not decode costs its own rows. Arrow keeps no checksums, so every batch is validated before a value
of it is touched. Layout:
https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from s1batch.errors import SourceError
from s1batch.readers.tables.formats import RowPlace
from s1batch.readers.tables.forward import Decoder, ForwardFormat

_MAGIC = b"ARROW1"
_CONTINUED = 0xFFFFFFFF
_RECORD_BATCH = 3  # MessageHeader.RecordBatch in Message.fbs
_MOST_METADATA = 64 * 2**20


class _ArrowDecoder(Decoder):
    """Decodes record batch by record batch.

    Attributes:
        batches: First row, number of rows, first byte and bytes of every record batch that holds rows.
        torn: What is wrong with the end of a stream; empty where nothing is.
    """

    kind = "Arrow file"

    def _open(self) -> None:
        import pyarrow as pa

        self._is_file = self._raw.read(8)[:6] == _MAGIC
        self._numbers: list[int] = []
        self._others: list[tuple[int, int]] = []  # first byte and bytes of the schema and of dictionaries
        self.batches: list[tuple[int, int, int, int]] = []
        self.torn = "" if self._is_file else self._walk()
        if self._is_file:
            self._read_footer()
        self._raw.seek(0)
        self._file = pa.ipc.open_file(self._raw) if self._is_file else None
        self._schema = self._file.schema if self._is_file else self._stream(0, 0).schema
        self.rows = sum(rows for _, rows, _, _ in self.batches)
        self._firsts = [first for first, _, _, _ in self.batches]

    @property
    def schema(self) -> Any:
        """The columns with their Arrow types."""
        return self._schema

    def batch_with(self, index: int) -> tuple[Any, int, SourceError | None]:
        """Decode the batch that holds a row, which must not lie before `position`."""
        import pyarrow as pa

        place = bisect_right(self._firsts, index) - 1
        first = self.batches[place][0]
        if self._batch is not None and self.position == first:
            return self._batch, first, None
        self._batch, self.position = None, first
        try:
            batch = self._load(place)
            batch.validate(full=True)
            if batch.num_rows != self.batches[place][1]:
                raise pa.ArrowInvalid(f"it holds {batch.num_rows} rows instead of {self.batches[place][1]}")
        except (pa.ArrowException, OSError, StopIteration) as error:
            self.position = first + self.batches[place][1]
            said = "it ends early" if isinstance(error, StopIteration) else error
            return None, first, SourceError("decode_error", f"record batch {self._numbers[place]}: {said}")
        self._batch = batch
        return batch, first, None

    def end_of_group(self, index: int) -> int:
        """Return the first row behind the batch that holds a row."""
        first, rows, _, _ = self.batches[bisect_right(self._firsts, index) - 1]
        return first + rows

    def _load(self, place: int) -> Any:
        """Return a record batch, with the chosen columns."""
        if self._is_file:
            batch = self._file.get_batch(self._numbers[place])
        else:
            _, _, start, nbytes = self.batches[place]
            batch = self._stream(start, nbytes).read_next_batch()
        return batch if self._columns is None else batch.select(list(self._columns))

    def _stream(self, start: int, nbytes: int) -> Any:
        """Return a stream that holds one record batch, and before it the schema and the dictionaries that it needs."""
        import pyarrow as pa

        pieces = [piece for number, piece in enumerate(self._others) if number == 0 or piece[0] < start]
        content = []
        for first, count in [*pieces, (start, nbytes)]:
            self._raw.seek(first)
            content.append(self._raw.read(count))
        return pa.ipc.open_stream(BytesIO(b"".join(content)))

    def _read_footer(self) -> None:
        """Find the record batches of a file.

        Raises:
            SourceError: The end of the file is missing, or names batches that it does not hold.
        """
        size = self.identity[2]
        self._raw.seek(max(size - 10, 0))
        end = self._raw.read(10)
        length = struct.unpack_from("<i", end)[0] if len(end) == 10 and end[4:] == _MAGIC else 0
        if not 0 < length <= min(size - 10, _MOST_METADATA):
            raise SourceError("not_readable", "no whole Arrow file: its end is missing")
        self._raw.seek(size - 10 - length)
        try:
            blocks = _blocks(self._raw.read(length))
            first = 0
            for number, (start, header, body) in enumerate(blocks):
                if not (start >= 0 and 0 < header <= _MOST_METADATA and body >= 0 and start + header + body <= size):
                    raise SourceError("not_readable", f"no whole Arrow file: record batch {number} lies outside of it")
                self._raw.seek(start)
                metadata = self._raw.read(header)
                # Before version 0.15 of the format there was no mark of continuation.
                prefix = 8 if struct.unpack_from("<I", metadata)[0] == _CONTINUED else 4
                _, rows, _ = _message(metadata[prefix:])
                if rows > 0:
                    self.batches.append((first, rows, start, header + body))
                    self._numbers.append(number)
                    first += rows
        except struct.error as error:
            raise SourceError("not_readable", f"no whole Arrow file: its footer is damaged ({error})") from error

    def _walk(self) -> str:
        """Find the record batches of a stream; return what is wrong with its end, in words."""
        size, first, number, position = self.identity[2], 0, 0, 0
        while True:
            start = position
            self._raw.seek(position)
            prefix = self._raw.read(8)
            if len(prefix) < 8:
                return "it ends without the mark of its end"
            mark, length = struct.unpack("<Ii", prefix)
            if mark != _CONTINUED:
                return f"there is no message at byte {position}"
            if length == 0:
                return ""
            metadata = self._raw.read(length) if 0 < length <= _MOST_METADATA else b""
            if len(metadata) < max(length, 1):
                return f"its message at byte {position} is cut off"
            try:
                kind, rows, body = _message(metadata)
            except struct.error:
                return f"its message at byte {position} is damaged"
            position += 8 + length + body
            if body < 0 or rows < 0 or position > size:
                return f"its message at byte {start} is cut off"
            if kind != _RECORD_BATCH:
                self._others.append((start, position - start))
                continue
            if rows:
                self.batches.append((first, rows, start, position - start))
                self._numbers.append(number)
            first, number = first + rows, number + 1


@dataclass(frozen=True, slots=True)
class Arrow(ForwardFormat):
    """Arrow IPC, read batch by batch."""

    decoder = _ArrowDecoder

    def scan(self, path: Path) -> Iterator[RowPlace]:
        """Yield every row, from the headers of the batches; a torn stream ends in an error behind its whole batches."""
        with _ArrowDecoder(path, self.columns) as decoder:
            for first, rows, start, nbytes in decoder.batches:
                # A damaged header may promise any number of rows; with a bit for each, the number is not told lightly.
                if rows > 8 * nbytes and (error := decoder.batch_with(first)[2]) is not None:
                    raise error
                for index in range(first, first + rows):
                    yield RowPlace(index=index, nbytes=nbytes // rows, behind=start + nbytes)
            if decoder.torn:
                raise SourceError("decode_error", decoder.torn)


def _blocks(footer: bytes) -> list[tuple[int, int, int]]:
    """Return the first byte, the bytes of the header and those of the body of each record batch.

    It is field 3 of the flatbuffer table `Footer`, a vector of the struct `Block`.
    """
    where = _field(footer, struct.unpack_from("<I", footer)[0], 3)
    if not where:
        return []
    where += struct.unpack_from("<I", footer, where)[0]
    count = struct.unpack_from("<I", footer, where)[0]
    if count * 24 > len(footer):
        raise struct.error(f"{count} batches in {len(footer)} bytes")
    return [struct.unpack_from("<qi4xq", footer, where + 4 + 24 * number) for number in range(count)]


def _message(data: bytes) -> tuple[int, int, int]:
    """Return the kind of a message, its rows where it is a record batch, and the bytes of its body.

    These are fields 1, 2 and 3 of the flatbuffer table `Message`, and field 0 of `RecordBatch`.
    """
    table = struct.unpack_from("<I", data)[0]
    kind = struct.unpack_from("<B", data, where)[0] if (where := _field(data, table, 1)) else 0
    body = struct.unpack_from("<q", data, where)[0] if (where := _field(data, table, 3)) else 0
    rows = 0
    if kind == _RECORD_BATCH:
        where = _field(data, table, 2)
        header = where + struct.unpack_from("<I", data, where)[0]
        if inner := _field(data, header, 0):
            rows = struct.unpack_from("<q", data, inner)[0]
    return kind, rows, body


def _field(data: bytes, table: int, number: int) -> int:
    """Return where a field of a flatbuffer table is, 0 where it has its default."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0 or 4 + 2 * number >= struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset = struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0]
    return table + offset if offset else 0
