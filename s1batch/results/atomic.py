"""Files that are there as a whole or not at all.

A file is written under a temporary name in its own folder, flushed to the disk, and renamed; then the folder is
flushed. Whoever reads sees the old file or the new one, after a power cut too. Temporary names carry host and process,
so that those of dead writers can be told from those in use.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s1batch.errors import ResultsError, StorageAway
from s1batch.results.process import ProcessIdentity

_TEMPORARY = re.compile(r"\..+\.(?P<machine>[0-9A-Za-z-]+_\d+)_(?P<pid>\d+)_[0-9a-f]{8}\.tmp")
_OLD_S = 24 * 3600.0

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space and run again to go on",
    errno.EDQUOT: "the disk quota is used up: free some space and run again to go on",
    errno.EFBIG: "the file is larger than this file system or `ulimit -f` allows: raise the limit and run again",
    errno.EROFS: "the file system is read-only: choose another output folder with -o, or mount it for writing",
    errno.EACCES: "permission denied: make the folder writable for you, or choose another with -o",
    errno.EPERM: "not permitted: make the folder writable for you, or choose another with -o",
    errno.EIO: "the disk reported an error: check it, then run again to go on",
    errno.ESTALE: "the network file system lost the file: check the mount, then run again to go on",
    errno.EMFILE: "too many open files: raise `ulimit -n` and run again to go on",
}

_PASSING = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.ESTALE,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
        errno.EREMOTEIO,
    }
)
"""What disks report while they are full, are mounted read-only, or do not answer (NFS, Lustre, GPFS)."""


def results_error(error: OSError, path: Path) -> ResultsError:
    """Return the error for a person: what failed, on which file, and what to do."""
    advice = _ADVICE.get(error.errno or 0, "run again to go on when the cause is gone")
    # Arrow does not say why a file cannot be closed: what was written could not be stored.
    kind = StorageAway if error.errno is None or error.errno in _PASSING else ResultsError
    return kind(f"{path}: {error.strerror or error}; {advice}")


@contextmanager
def results_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about `path` into a `ResultsError` that says what to do."""
    try:
        yield
    except OSError as error:
        raise results_error(error, path) from error


def fsync_folder(folder: Path) -> None:
    """Flush a folder's names to the disk; file systems that cannot do this are left alone."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def refresh_listing(folder: Path) -> None:
    """Make sure that what other hosts did to a folder is seen.

    Network file systems may list a folder from memory for up to a minute (NFS: `acdirmax`). Who changes it learns that
    it is not what it was, so a file is made and removed.

    Raises:
        ResultsError: The folder cannot be written.
    """
    path = temporary_path(folder / "listing", ProcessIdentity.current())
    with results_errors(folder):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        path.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Create a folder with its parents.

    Raises:
        ResultsError: It cannot be created.
    """
    with results_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def atomic_path(target: Path, identity: ProcessIdentity | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `target`; when the block ends well, it becomes `target` at once.

    The temporary file exists already, empty and created exclusively. When the block raises, it is removed and `target`
    is as before.

    Raises:
        ResultsError: The folder cannot be written.
    """
    temporary = temporary_path(target, identity or ProcessIdentity.current())
    with results_errors(target):
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            yield temporary
            publish(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def temporary_path(target: Path, identity: ProcessIdentity) -> Path:
    """Return a new temporary name for a file that will become `target`."""
    return target.parent / f".{target.name}.{identity.machine_slug}_{identity.pid}_{secrets.token_hex(4)}.tmp"


def publish(temporary: Path, target: Path) -> None:
    """Flush a complete temporary file to the disk and give it its name.

    Raises:
        OSError: As the system reports it.
    """
    handle = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    rename(temporary, target)
    fsync_folder(target.parent)


def rename(source: Path, target: Path) -> None:
    """Give a file another name, at once and in the place of what has it.

    A network file system asks again when an answer was lost, and may then find no such file, because it was renamed by
    the first request (NFS). So that error counts only where the target is another file.

    Raises:
        OSError: As the system reports it.
    """
    wanted = os.stat(source)
    try:
        os.replace(source, target)
    except FileNotFoundError as error:
        try:
            found = os.stat(target)
        except FileNotFoundError:
            raise error from None
        if (found.st_dev, found.st_ino) != (wanted.st_dev, wanted.st_ino):
            raise


def write_atomic(target: Path, data: bytes) -> None:
    """Write a whole file at once.

    Raises:
        ResultsError: It cannot be written; then the old file is as before.
    """
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def clean_temporaries(folder: Path) -> int:
    """Remove temporary files whose writers are dead, and return how many.

    Dead means: a process of this machine that is gone. Files of other machines go after a day without a change, which
    is longer than any file takes to write.
    """
    here = ProcessIdentity.current()
    removed = 0
    with results_errors(folder), os.scandir(folder) as found:
        for item in found:
            match = _TEMPORARY.fullmatch(item.name)
            if match is None:
                continue
            pid = int(match["pid"])
            ours = match["machine"] == here.machine_slug
            try:
                old = time.time() - item.stat(follow_symlinks=False).st_mtime > _OLD_S
                if old or (ours and not here.sees(pid)):
                    os.unlink(item.path)
                    removed += 1
            except FileNotFoundError:
                continue
    return removed
