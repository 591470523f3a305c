"""Copying large files to another disk and proving the copies, several at a time.

A file counts as copied when its bytes were flushed to the disk, read back from there, and gave the digest of what was
read from the source. It is then noted, so that an interrupted copy goes on with the next file; of a file that was not
finished nothing is trusted.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from blake3 import blake3

from s1batch.errors import EngineUnavailable, Interrupted

T = TypeVar("T")

BUFFER_BYTES = 8 << 20
THREADS = 8
"""Files that are read at once: one stream does not fill a parallel file system."""

TELL_EVERY_S = 30.0

ATTEMPTS = 2
"""How often a file is copied before the disk is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStamp:
    """What a file looks like without reading it.

    Attributes:
        size: Bytes.
        modified_ns: Time of its last change, ns since 1970.
    """

    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedFile:
    """A file that was copied.

    Attributes:
        stamp: The source's, before it was read.
        digest: BLAKE3 of its bytes.
    """

    stamp: FileStamp
    digest: str


class Notes:
    """The list of copied files in a file of its own, one line each; a torn line at the end is left out.

    Args:
        path: That file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def read(self) -> dict[str, CopiedFile]:
        """Return what was copied, by relative path; nothing when there is no list."""
        found = {}
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, UnicodeDecodeError):
            return {}
        for line in lines:
            try:
                plain = json.loads(line)
                stamp = FileStamp(**plain["stamp"])
                found[str(plain["file"])] = CopiedFile(stamp=stamp, digest=str(plain["digest"]))
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def add(self, name: str, copied: CopiedFile) -> None:
        """Append one file, on the disk when this returns."""
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps({"file": name, **asdict(copied)}))
            file.flush()
            os.fsync(file.fileno())


class Copier:
    """Copies files, and says how far it is.

    Args:
        source: Folder that is copied from.
        target: Folder that is copied to.
        notes: Where finished files are noted.
        stopped: Whether to stop.
        say: Called with each line for the user.
    """

    def __init__(
        self, source: Path, target: Path, notes: Notes, stopped: Callable[[], bool], say: Callable[[str], None]
    ) -> None:
        self._source = source
        self._target = target
        self._notes = notes
        self._stopped = stopped
        self._say = say
        self._done_bytes = 0
        self._lock = threading.Lock()
        self._failed = threading.Event()

    def copy(self, files: Mapping[str, FileStamp]) -> dict[str, CopiedFile]:
        """Copy files, the largest ones first, and return their digests.

        Raises:
            EngineUnavailable: The disk gives back other bytes than were written to it.
            Interrupted: Asked to stop.
            OSError: A file cannot be read or written.
        """
        names = sorted(files, key=lambda name: -files[name].size)
        return self._each(names, lambda name: self._copied(name, files[name]), "copied", sum_of(files.values()))

    def check(self, files: Mapping[str, CopiedFile]) -> set[str]:
        """Return which of the files in the target have the bytes that were noted.

        Raises:
            Interrupted: Asked to stop.
        """
        total = sum_of(each.stamp for each in files.values())
        names = sorted(files, key=lambda name: -files[name].stamp.size)
        right = self._each(names, lambda name: self._is_right(name, files[name]), "checked", total)
        return {name for name, same in right.items() if same}

    def _each(self, names: list[str], work: Callable[[str], T], did: str, total: int) -> dict[str, T]:
        began = told = time.monotonic()
        self._done_bytes = 0
        self._failed.clear()
        with ThreadPoolExecutor(THREADS, thread_name_prefix="s1batch-copy") as pool:
            tasks = {name: pool.submit(work, name) for name in names}
            try:
                pending = set(tasks.values())
                while pending:
                    finished, pending = wait(pending, timeout=0.5)
                    for task in finished:
                        task.result()
                    if time.monotonic() - told > TELL_EVERY_S:
                        told = time.monotonic()
                        self._say(f"{did} {self._done_bytes / 1e9:.1f} of {total / 1e9:.1f} GB {self._rate(began)}")
            except BaseException:
                self._failed.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        if total:
            self._say(f"{did} {total / 1e9:.3g} GB in {time.monotonic() - began:.1f} s {self._rate(began)}")
        return {name: task.result() for name, task in tasks.items()}

    def _rate(self, began: float) -> str:
        seconds = max(time.monotonic() - began, 1e-3)
        return f"({self._done_bytes / 1e6 / seconds:.0f} MB/s)"

    def _copied(self, name: str, stamp: FileStamp) -> CopiedFile:
        source, target = self._source / name, self._target / name
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(ATTEMPTS):
            digest = blake3()
            with source.open("rb", buffering=0) as read, target.open("wb", buffering=0) as written:
                for piece in self._pieces(read.fileno()):
                    digest.update(piece)
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[written.write(rest) :]
                os.fsync(written.fileno())
            if stamp_of(source) != stamp:
                raise EngineUnavailable("engine_unavailable", f"{source}: was changed while it was copied; start again")
            copied = CopiedFile(stamp=stamp, digest=digest.hexdigest())
            if self._is_right(name, copied, counted=False):
                self._notes.add(name, copied)
                return copied
        raise EngineUnavailable(
            "engine_unavailable", f"{target}: the disk gives back other bytes than were written to it; check the disk"
        )

    def _is_right(self, name: str, copied: CopiedFile, *, counted: bool = True) -> bool:
        path = self._target / name
        digest = blake3()
        try:
            with path.open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size != copied.stamp.size:
                    return False
                # From the disk, not from what the system remembers of it.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                for piece in self._pieces(file.fileno(), counted=counted):
                    digest.update(piece)
        except OSError:
            return False
        return digest.hexdigest() == copied.digest

    def _pieces(self, handle: int, *, counted: bool = True) -> Iterable[bytes]:
        while piece := os.read(handle, BUFFER_BYTES):
            if self._failed.is_set() or self._stopped():
                raise Interrupted("stopped while the checkpoint was copied; what is there is kept")
            yield piece
            if counted:
                with self._lock:
                    self._done_bytes += len(piece)


def stamp_of(path: Path) -> FileStamp:
    """Return what a file looks like now.

    Raises:
        OSError: There is none.
    """
    found = path.stat()
    return FileStamp(size=found.st_size, modified_ns=found.st_mtime_ns)


def sum_of(stamps: Iterable[FileStamp]) -> int:
    """Return how many bytes files have together."""
    return sum(each.size for each in stamps)
