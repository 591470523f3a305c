"""Journals: every answer is on file the moment it arrives, before its part is finished.

A record is a mark, the length of the payload, a CRC-32 over length and payload, and the payload (JSON, so UTF-8). It
is handed to the system in one write, so a killed process loses nothing that was appended; a power cut loses what the
background flush had not reached yet, at most half a second.

The mark begins with a byte that no UTF-8 text holds. A reader that meets damage therefore looks for the next mark and
goes on there, and no answer of a model can contain a forged record.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from s1batch.results.atomic import fsync_folder, results_error, results_errors, write_atomic

_MARK = b"\xf5S1J"
_HEAD = struct.Struct("<4sII")
_LENGTH = struct.Struct("<I")

FLUSH_EVERY_S = 0.3
"""Pause between two flushes; with the flush itself, data are on disk within the promised 0.5 s."""

_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""A write that ends so was not taken; what was written before is as it was."""


def frame(payload: bytes) -> bytes:
    """Return one record of a journal."""
    length = _LENGTH.pack(len(payload))
    return _HEAD.pack(_MARK, len(payload), zlib.crc32(payload, zlib.crc32(length))) + payload


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalContent:
    """What a journal holds.

    Attributes:
        payloads: The intact records, in the order they were appended.
        torn: Bytes at the end that are no whole record: what a killed writer left.
        damaged: Bytes before an intact record that are none: damage by something else than a killed writer.
    """

    payloads: Sequence[bytes]
    torn: int = 0
    damaged: int = 0


def parse_journal(data: bytes) -> JournalContent:
    """Return all intact records of a journal's bytes."""
    payloads: list[bytes] = []
    position = damaged = bad = 0
    while position < len(data):
        payload = _record_at(data, position)
        if payload is not None:
            payloads.append(payload)
            damaged, bad = damaged + bad, 0
            position += _HEAD.size + len(payload)
            continue
        following = data.find(_MARK, position + 1)
        stop = len(data) if following < 0 else following
        bad += stop - position
        position = stop
    return JournalContent(payloads=payloads, torn=bad, damaged=damaged)


def read_journal(path: Path) -> JournalContent:
    """Return all intact records of a journal; none when the file is gone, as its part has then been finished.

    Raises:
        ResultsError: The file cannot be read.
    """
    with results_errors(path):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = b""
    return parse_journal(data)


def write_journal(path: Path, payloads: Sequence[bytes]) -> None:
    """Write a complete journal at once, flushed to the disk.

    Raises:
        ResultsError: It cannot be written.
    """
    write_atomic(path, b"".join(frame(payload) for payload in payloads))


def _record_at(data: bytes, position: int) -> bytes | None:
    start = position + _HEAD.size
    if start > len(data):
        return None
    mark, length, checksum = _HEAD.unpack_from(data, position)
    if mark != _MARK or start + length > len(data):
        return None
    payload = data[start : start + length]
    intact = zlib.crc32(payload, zlib.crc32(_LENGTH.pack(length))) == checksum
    return payload if intact else None


class JournalFlusher:
    """Flushes the open journals of one store to the disk, from one thread, many records at once.

    Args:
        every_s: Pause between two flushes.
        call: Entered around each, so that one that hangs is noticed.
    """

    def __init__(
        self, every_s: float = FLUSH_EVERY_S, call: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._every_s = every_s
        self._call = call
        self._wake = threading.Condition()
        self._dirty: set[Journal] = set()
        self._closed = False
        self._thread: threading.Thread | None = None

    def mark(self, journal: Journal) -> None:
        """Ask for a journal to be flushed soon."""
        with self._wake:
            if journal in self._dirty:
                return
            if self._closed:
                raise ValueError("the store of this journal is closed")
            self._dirty.add(journal)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="s1batch-journal-flush", daemon=True)
                self._thread.start()
            self._wake.notify()

    def forget(self, journal: Journal) -> None:
        """Drop a journal that is closed."""
        with self._wake:
            self._dirty.discard(journal)

    def close(self) -> None:
        """Flush what is left, once, and end the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._dirty and not self._closed:
                    self._wake.wait()
                if not self._closed:
                    # Gather what arrives meanwhile: one flush then serves many records.
                    deadline = time.monotonic() + self._every_s
                    while not self._closed and (left := deadline - time.monotonic()) > 0:
                        self._wake.wait(left)
                batch = list(self._dirty)
                self._dirty.clear()
                if not batch and self._closed:
                    return
            failed = [journal for journal in batch if not self._flush(journal)]
            with self._wake:
                if not self._closed:
                    self._dirty.update(failed)

    def _flush(self, journal: Journal) -> bool:
        with self._call():
            return journal.flush()


class Journal:
    """The journal of one writer for one part, open for appending; may be used from several threads.

    Args:
        path: A file that does not exist yet.
        flusher: What flushes it in the background.
        mend: Called in the background, again and again, once flushing has failed; returns whether all records are safe
            elsewhere.

    Raises:
        ResultsError: It cannot be created.
    """

    def __init__(self, path: Path, flusher: JournalFlusher, mend: Callable[[Journal], bool] | None = None) -> None:
        self.path = path
        self._flusher = flusher
        self._mend = mend
        self._lock = threading.Lock()
        self._failure: OSError | None = None
        self._size = 0
        self._named = False
        with results_errors(path):
            self._handle: int | None = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o666)

    def append(self, payload: bytes) -> None:
        """Hand one record to the system; when this returns, killing the process loses nothing.

        Raises:
            ResultsError: The disk is full or broken, now or in the background since the last call. Then the record is
                not in the journal.
        """
        record = frame(payload)
        with self._lock:
            handle = self._open_handle()
            self._raise_failure()
            try:
                written = os.write(handle, record)
                while written < len(record):
                    # A full disk takes a piece first and refuses the rest with an error.
                    written += os.write(handle, memoryview(record)[written:])
            except OSError as error:
                self._cut_back(handle)
                if error.errno not in _REFUSED:
                    self._failure = self._failure or error
                raise results_error(error, self.path) from error
            self._size += len(record)
        self._flusher.mark(self)

    @property
    def is_broken(self) -> bool:
        """Whether nothing can be appended any more, and records before may be lost: a disk forgets what it could not
        flush.
        """
        return self._failure is not None

    def flush(self) -> bool:
        """Flush to the disk, and return whether all records are safe.

        An error is kept and raised by the next `append` or `close`.
        """
        if self._failure is not None and self._handle is not None:
            return self._mend is None or self._mend(self)
        with self._lock:
            if self._handle is None:
                return True
            # The lock is not held during the slow part: appends go on. The duplicate cannot be closed meanwhile.
            handle = os.dup(self._handle)
            named, self._named = self._named, True
        try:
            try:
                os.fsync(handle)
                if not named:
                    fsync_folder(self.path.parent)
            finally:
                os.close(handle)  # which reports what could not be written later, too
        except OSError as error:
            with self._lock:
                self._failure = self._failure or error
        return self._failure is None

    def discard(self) -> None:
        """Close without flushing: the records are elsewhere already, or will be."""
        self._flusher.forget(self)
        with self._lock, suppress(OSError):
            handle, self._handle = self._handle, None
            if handle is not None:
                os.close(handle)

    def close(self) -> None:
        """Flush and close; a second call does nothing.

        Raises:
            ResultsError: Flushing failed, now or before.
        """
        self.flush()
        self._flusher.forget(self)
        with self._lock:
            handle, self._handle = self._handle, None
            if handle is None:
                return
            try:
                os.close(handle)
            except OSError as error:
                self._failure = self._failure or error
            self._raise_failure()

    def _open_handle(self) -> int:
        if self._handle is None:
            raise ValueError(f"{self.path} is closed")
        return self._handle

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise results_error(self._failure, self.path) from self._failure

    def _cut_back(self, handle: int) -> None:
        try:
            os.ftruncate(handle, self._size)
        except OSError as error:
            # The torn record stays; readers skip it, but nothing may follow that a later cut would hit.
            self._failure = error
