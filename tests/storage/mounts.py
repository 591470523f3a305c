"""Folders on a file system that misbehaves when told; needs root, /dev/fuse and packages that are installed here."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import debian
from tests.debian import CannotRun, NotOffered
from tests.storage.faulty import CHANGES

ROOT = Path(__file__).resolve().parents[2]
_CONNECTIONS = Path("/sys/fs/fuse/connections")


def install() -> None:
    """Install what a file system of one's own needs.

    Raises:
        CannotRun: That is not possible here.
    """
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        raise NotOffered("a file system of one's own needs root and /dev/fuse")
    debian.install({"fuse3": "fusermount3"})


class FaultyMount:
    """A folder seen through a file system that misbehaves; a context manager.

    Two of them over one folder are two nodes of a cluster.

    Args:
        behind: The folder that holds the files; made if it is not there.
        folder: Where they are seen.
        closing: Whether closing a file can report an error. While such a mount hangs, nobody who writes on it can be
            killed.
    """

    def __init__(self, behind: Path, folder: Path, *, closing: bool = False) -> None:
        self.behind = behind
        self.folder = folder
        self._closing = closing
        self._process: subprocess.Popen[str] | None = None
        self._connection = 0

    def __enter__(self) -> FaultyMount:
        self.behind.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "tests.storage.faulty", str(self.behind), str(self.folder)]
        self._process = subprocess.Popen(
            [*words, *(["closing"] if self._closing else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        give_up = time.monotonic() + 60
        while not os.path.ismount(self.folder):
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.__exit__()
                raise CannotRun("the FUSE file system does not start here")
            time.sleep(0.02)
        self._connection = os.minor(os.stat(self.folder).st_dev)
        if not os.path.ismount(_CONNECTIONS):
            subprocess.run(["mount", "-t", "fusectl", "none", str(_CONNECTIONS)], check=True, timeout=30)
        return self

    def __exit__(self, *exc_info: object) -> None:
        process = self._process
        assert process is not None
        with _ignored():
            self.goes_on()
            self.heals()
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, timeout=30)
        process.kill()
        process.wait(30)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with _ignored():
                    stream.close()

    # ------------------------------------------------------------------------------------- troubles

    def heals(self) -> None:
        """Let nothing go wrong any more."""
        self.rules()

    def rules(self, *rules: dict[str, Any]) -> None:
        """Let calls go wrong, as `tests.storage.faulty` says."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(rules) + "\n")
        self._process.stdin.flush()
        self._process.stdout.readline()

    def turns_read_only(self) -> None:
        """Take no change any more, of open files neither, as a disk does that found an error."""
        self.rules({"ops": [*CHANGES, "fsync"], "error": errno.EROFS})

    def fails(self, code: int) -> None:
        """Fail with every call."""
        self.rules({"error": code})

    def hangs(self) -> None:
        """Answer no call; whoever makes one hangs in the kernel, where only SIGKILL reaches it.

        Not even that would reach whoever waits for a call that had been taken in already; so there is none.
        """
        assert self._process is not None
        give_up = time.monotonic() + 60
        while True:
            os.kill(self._process.pid, signal.SIGSTOP)
            _until_stopped(self._process.pid)
            if (_CONNECTIONS / str(self._connection) / "waiting").read_text().split() == ["0"]:
                return
            assert time.monotonic() < give_up, "the file system is never idle"
            self.goes_on()
            time.sleep(0.002)

    def goes_on(self) -> None:
        """Answer the calls that hang, and all others."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)


def _until_stopped(pid: int) -> None:
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    while any((task / "stat").read_text().rpartition(")")[2].split()[0] != "T" for task in tasks):
        time.sleep(0.001)


@contextmanager
def _ignored() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError):
        return
