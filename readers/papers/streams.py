"""The content of plain, gzip and Zstandard files as one stream of bytes, read forward in bounded memory.

Arrow's stream raises where compressed data end early, also between the members of a file; other libraries take such
an end for the end of the file. The bytes of the failing read are lost with it, so they are read again in smaller and
smaller pieces: everything that can be decompressed is used.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from s1batch.errors import SourceError
from s1batch.readers.papers.paper import LONGEST_RECORD, Loss

BLOCK_BYTES = 2**20

KEPT_STREAMS = 4
"""Open streams that are kept; parts that are read at once need one each."""

_SMALLER = (BLOCK_BYTES, 4096, 64, 1)
_CODECS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}


def codec_of(path: str | os.PathLike[str]) -> str | None:
    """Return how a file is compressed, going by its name; None for plain files."""
    return _CODECS.get(Path(path).suffix.lower())


class ContentStream:
    """The content of a file from some position on; is closed by `close`, or when nobody has it any more.

    Attributes:
        position: The next byte that `take` returns.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._codec = codec_of(path)
        self._raw: IO[bytes] = path.open("rb", buffering=0)
        stat = os.fstat(self._raw.fileno())
        self.identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        self.size, self.mtime_ns = stat.st_size, stat.st_mtime_ns
        self.position = 0
        self.damage: str | None = None
        self._block = b""
        self._offset = 0
        self._step = 0
        self._content = self._open()

    def __del__(self) -> None:
        if hasattr(self, "_raw"):
            self.close()

    def close(self) -> None:
        """Close the file."""
        if self._codec is not None and self._content is not None:
            self._content.close()
        self._block, self._content = b"", None
        self._raw.close()

    def take(self, count: int) -> bytes:
        """Return the next bytes, at most `count`; fewer at the end, or at the damage that `damage` then tells of."""
        end = self._offset + count
        if end <= len(self._block):
            found = self._block[self._offset : end]
            self._offset = end
            self.position += count
            return found
        pieces: list[bytes] = []
        while count > 0 and (self._offset < len(self._block) or self._fill()):
            piece = self._block[self._offset : self._offset + count]
            self._offset += len(piece)
            self.position += len(piece)
            count -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def go_to(self, position: int) -> None:
        """Go on at a later position; plain files jump there."""
        inside = position - self.position + self._offset
        if inside <= len(self._block):
            self._offset, self.position = inside, position
            return
        if self._codec is None:
            self._raw.seek(position)
            self._block, self._offset, self.position = b"", 0, position
            return
        while self.position < position and self.take(min(position - self.position, BLOCK_BYTES)):
            pass

    def lines(self) -> Iterator[tuple[int, bytes | None, int]]:
        """Yield (start, line, stop) from here on; None stands for a line that is too long to be held.

        Raises:
            Loss: The content ends early; a last line without its end is lost, too.
        """
        start = self.position
        pieces: list[bytes] = []
        while self._offset < len(self._block) or self._fill():
            block, first = self._block, self._offset
            base = self.position - first
            self._offset, self.position = len(block), base + len(block)
            while (end := block.find(b"\n", first)) >= 0:
                stop = base + end + 1
                line = block[first : end + 1]
                if pieces:
                    line = b"".join([*pieces, line])
                    pieces.clear()
                yield start, (line if stop - start <= LONGEST_RECORD else None), stop
                start, first = stop, end + 1
            if base + len(block) - start <= LONGEST_RECORD:
                pieces.append(block[first:])
            else:
                pieces.clear()
        if self.damage is not None:
            raise Loss("decode_error", self.damage, self.position - start)
        if self.position > start:
            whole = b"".join(pieces) if self.position - start <= LONGEST_RECORD else None
            yield start, whole, self.position

    def _open(self) -> Any:
        if self._codec is None:
            return self._raw
        import pyarrow as pa

        # Arrow closes what it reads from when it is done, so it gets a handle of its own.
        own = os.fdopen(os.dup(self._raw.fileno()), "rb", buffering=0)
        own.seek(0)
        return pa.CompressedInputStream(pa.PythonFile(own, mode="r"), self._codec)

    def _fill(self) -> bool:
        """Read the next block; return whether there is one."""
        if self.damage is not None:
            return False
        while True:
            try:
                self._block, self._offset = self._content.read(_SMALLER[self._step]), 0
            except OSError as error:
                if self._codec is None:
                    raise
                self._block, self._offset = b"", 0
                self._step += 1
                if self._step < len(_SMALLER):
                    self._reopen()
                    continue
                self.damage = f"the compressed data are damaged behind byte {self.position} of the content: {error}"
            return bool(self._block)

    def _reopen(self) -> None:
        """Decompress anew up to the position, which worked before."""
        self._content = self._open()
        left = self.position
        while left > 0:
            left -= len(self._content.read(min(left, BLOCK_BYTES)))


class KeptStreams:
    """The streams that have come furthest; shared by threads, and empty in a copy for another process.

    Compressed data cannot be sought: a worker's next part goes on where an earlier one ended.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: list[tuple[Path, ContentStream]] = []  # the latest last

    def __reduce__(self) -> tuple[type[KeptStreams], tuple[()]]:
        return KeptStreams, ()

    @contextmanager
    def stream(self, path: Path, position: int) -> Iterator[ContentStream]:
        """Lend the stream that is the shortest way before a position, there; nobody else has it meanwhile.

        Raises:
            OSError: The file cannot be opened.
        """
        stream = self._take(path, position) or ContentStream(path)
        try:
            stream.go_to(position)
            yield stream
        except GeneratorExit:
            self._keep(path, stream)
            raise
        except BaseException:
            stream.close()
            raise
        self._keep(path, stream)

    def _take(self, path: Path, position: int) -> ContentStream | None:
        stat = os.stat(path)
        now = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        with self._lock:
            fitting = [
                entry
                for entry in self._streams
                if entry[0] == path and entry[1].position <= position and entry[1].identity == now
            ]
            if not fitting:
                return None
            nearest = max(fitting, key=lambda entry: entry[1].position)
            self._streams.remove(nearest)
            return nearest[1]

    def _keep(self, path: Path, stream: ContentStream) -> None:
        with self._lock:
            self._streams.append((path, stream))
            surplus = self._streams[:-KEPT_STREAMS]
            del self._streams[:-KEPT_STREAMS]
        for _, old in surplus:
            old.close()


def read_whole(path: Path) -> bytes:
    """Return the content of a file that holds one paper.

    Raises:
        SourceError: It is empty, too large, or its compressed data are damaged.
        OSError: It cannot be read.
    """
    stream = ContentStream(path)
    try:
        plain = codec_of(path) is None
        content = b"" if plain and stream.size > LONGEST_RECORD else stream.take(LONGEST_RECORD + 1)
        too_long = len(content) > LONGEST_RECORD or (plain and stream.size > LONGEST_RECORD)
        if stream.damage is not None:
            raise SourceError("decode_error", stream.damage)
    finally:
        stream.close()
    if too_long:
        raise SourceError("not_readable", f"one paper of more than {LONGEST_RECORD} bytes is not read")
    if not content.strip():
        raise SourceError("empty_file", "the file is empty")
    return content
