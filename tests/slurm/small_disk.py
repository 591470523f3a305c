"""A small file system of its own that turns full or read-only when told; needs root."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from pathlib import Path


class SmallDisk:
    """A tmpfs; a context manager.

    Args:
        folder: Where it is mounted; made if it is not there.
        size: As mount takes it.
    """

    def __init__(self, folder: Path, size: str = "24m") -> None:
        self.folder = folder
        self._size = size
        self._ballast = folder / "ballast"

    def __enter__(self) -> SmallDisk:
        self.folder.mkdir(parents=True, exist_ok=True)
        _call("mount", "-t", "tmpfs", "-o", f"size={self._size}", "none", str(self.folder))
        return self

    def __exit__(self, *exc_info: object) -> None:
        for _ in range(2):  # the mount that makes it read-only, too
            subprocess.run(["umount", "-l", str(self.folder)], capture_output=True)

    def fill(self) -> None:
        """Leave no block free."""
        handle = os.open(self._ballast, os.O_CREAT | os.O_WRONLY)
        size = 1 << 20
        try:
            while size:
                try:
                    os.write(handle, bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2
        finally:
            os.close(handle)

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink()

    def forbid_writing(self) -> None:
        """Turn read-only for every name; files that are open already are not affected."""
        _call("mount", "--bind", str(self.folder), str(self.folder))
        _call("mount", "-o", "remount,ro,bind", str(self.folder))

    def allow_writing(self) -> None:
        """Turn writable again."""
        _call("umount", "-l", str(self.folder))


def _call(*command: str) -> None:
    give_up = time.monotonic() + 20
    while True:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            return
        if time.monotonic() > give_up:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
        time.sleep(0.2)
