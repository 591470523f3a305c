"""The times that leases are judged by: those of the file system, which all hosts share."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import Protocol


class LeaseClock(Protocol):
    """The times that leases are judged by."""

    def file_time_ns(self, folder: Path) -> int:
        """Return the time that the file system of `folder` stamps on a file now."""

    def touch(self, path: Path) -> None:
        """Stamp the present time of the file system on a file."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class FileSystemClock:
    """The real clock."""

    def file_time_ns(self, folder: Path) -> int:
        """Touch a probe file and return its time."""
        probe = folder / f".probe_{os.getpid()}_{secrets.token_hex(4)}"
        try:
            handle = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            try:
                os.utime(handle)
                return os.fstat(handle).st_mtime_ns
            finally:
                os.close(handle)
        finally:
            probe.unlink(missing_ok=True)

    def touch(self, path: Path) -> None:
        """Let the file system set the modification time."""
        os.utime(path)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
