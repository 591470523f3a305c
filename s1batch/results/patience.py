"""Waiting for the disk of a results folder that is full, read-only, out of reach or silent, and comes back.

Whoever cannot write waits for a bounded time and tries again. While anybody waits, one thread writes a small file
beside the journals, again and again; only when that succeeds are the others let on, so that a thousand answers that
wait cost no more than one. An event loop writes its rows itself, which takes microseconds; what fails is tried again in
a thread. Answers stay in memory meanwhile, and nothing new is asked (`is_away`), which bounds what is lost if the disk
stays away.

A disk that does not answer at all (NFS, mounted hard, whose server is gone) reports nothing: calls hang. Short ones are
watched (`call`), in other threads than an event loop's, which hangs too while a row is written: what servers answer
meanwhile waits in the sockets. A thread that hangs in the kernel cannot be called back, so a process that belongs to
the run alone is ended when the patience is over; any other one can only wait on.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from s1batch.errors import StorageAway
from s1batch.results.atomic import temporary_path
from s1batch.results.calls import SILENT_S, CallsUnderWay
from s1batch.results.process import ProcessIdentity
from s1batch.results.storage_thread import StorageThread
from s1batch.wording import count

T = TypeVar("T")

LOOK_EVERY_S = 0.5
"""Pause between two looks at a disk that is away."""

_PROBE_BYTES = 64 << 10
"""What must fit on a disk that was full, so that not every small write goes wrong again."""

_QUIET_S = 10.0
"""A disk that goes away again sooner than this is no news."""

_POLL_S = 0.1


def _silent(line: str) -> None:
    """Say nothing."""


class Patience:
    """How long the writers of one process wait for one results folder.

    Args:
        folder: Where the small file is written.
        patience_s: How long each waits at most.
        say: Receives a line when the disk goes away, and one when it is back.
        stopped: Says that nobody shall wait any more.
        look_every_s: Pause between two looks.
        silent_s: A short call that takes longer says that the disk does not answer.
        end_process: Ends the process, with a line that says why, when a disk has not answered for `patience_s`, or for
            `grace_s` since the run was stopped; None: it may not be ended, and waits on.
        grace_s: See there.

    Attributes:
        lost: Rows and turns that could not be stored in the end.
    """

    def __init__(
        self,
        folder: Path,
        patience_s: float = 0.0,
        say: Callable[[str], None] = _silent,
        *,
        stopped: Callable[[], bool] = lambda: False,
        look_every_s: float = LOOK_EVERY_S,
        silent_s: float = SILENT_S,
        end_process: Callable[[str], None] | None = None,
        grace_s: float = 0.0,
    ) -> None:
        self._folder = folder
        self._patience_s = patience_s
        self._say = say
        self._stopped = stopped
        self._look_every_s = look_every_s
        self._lock = threading.Lock()
        self._since: float | None = None
        self._back_at = -_QUIET_S
        self._latest = float("inf")
        self._closed = threading.Event()
        self._silent_s = silent_s
        self._end_process = end_process
        self._grace_s = grace_s
        self._silent_since: float | None = None
        self._stopped_at: float | None = None
        self._calls = CallsUnderWay(self._listen, silent_s / 10)
        self._thread = StorageThread(self.call)
        self.lost = 0

    @property
    def is_away(self) -> bool:
        """Whether somebody could not write, or hangs, and the disk is not back."""
        return self._since is not None or self._silent_since is not None

    def call(self) -> AbstractContextManager[None]:
        """Watch a short call of the disk for the length of a block."""
        return self._calls.call()

    def by(self, deadline: float) -> None:
        """Let nobody wait beyond a moment of the monotonic clock."""
        self._latest = min(self._latest, deadline)

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
        self._calls.close()
        self._thread.close()

    def through(self, do: Callable[[], T]) -> T:
        """Do something that writes; as long as the disk is away, wait and do it again. Blocks the thread.

        Raises:
            StorageAway: It stayed away.
        """
        give_up: float | None = None
        while True:
            try:
                return do()
            except StorageAway as error:
                give_up = self._failed(error, give_up)
                while not self._is_over(error, give_up):
                    time.sleep(_POLL_S)

    async def through_async(self, do: Callable[[], T]) -> T:
        """Do the same for an event loop, in a thread, for a write that is small; what is given up on counts as lost.

        Raises:
            StorageAway: The disk stayed away.
        """
        give_up: float | None = None
        stored = False

        def doing() -> T:
            nonlocal stored
            result = do()
            stored = True
            return result

        try:
            while True:
                try:
                    return await self._thread.do(doing)
                except StorageAway as error:
                    give_up = self._failed(error, give_up)
                    while not self._is_over(error, give_up):  # noqa: ASYNC110  (a thread looks, and knows no loop)
                        await asyncio.sleep(_POLL_S)
        except BaseException:
            self.lost += not stored
            raise

    def _failed(self, error: StorageAway, give_up: float | None) -> float:
        """Note that something could not be written; return until when that is tried."""
        now = time.monotonic()
        if self._patience_s <= 0 or now >= self._latest:
            raise error
        with self._lock:
            begins = self._since is None
            if begins:
                self._since = now
        if begins:
            if now - self._back_at > _QUIET_S:
                self._say(f"waiting up to {self._patience_s:g} s, asking nothing new: {error}")
            threading.Thread(target=self._look, args=(now,), name="s1batch-storage-look", daemon=True).start()
        return now + self._patience_s if give_up is None else give_up

    def _is_over(self, error: StorageAway, give_up: float) -> bool:
        """Whether to try again now.

        Raises:
            StorageAway: To try no more.
        """
        if self._since is None:
            return True
        if self._stopped():
            self.by(time.monotonic())
        if time.monotonic() < min(give_up, self._latest):
            return False
        self.by(time.monotonic())  # what others hold is not stored either
        raise StorageAway(f"{error} (run.storage_patience_s: {self._patience_s:g} s)") from error

    # ------------------------------------------------------------------------------------ what hangs

    def _listen(self, oldest_s: float) -> None:
        """Look whether the disk answers; called again and again."""
        now = time.monotonic()
        if oldest_s < self._silent_s:
            if (since := self._silent_since) is not None:
                self._silent_since = None
                self._say(f"the results folder answers again after {now - since:.0f} s; going on")
            return
        if self._silent_since is None:
            self._silent_since = now - oldest_s
            waiting = count(self._thread.waiting, "answer")
            self._say(
                f"waiting up to {self._patience_s:g} s, asking nothing new: {self._folder.parent} does not answer for "
                f"{oldest_s:.0f} s now; {waiting} in memory"
            )
        if self._stopped() and self._stopped_at is None:
            self._stopped_at = now
        ends = self._silent_since + max(self._patience_s, self._silent_s)
        if self._stopped_at is not None:
            ends = min(ends, self._stopped_at + self._grace_s)
        if now >= min(ends, max(self._latest, self._silent_since + self._silent_s)):
            self._give_up(f"{self._folder.parent} has not answered for {now - self._silent_since:.0f} s")

    def _give_up(self, what: str) -> None:
        self.by(time.monotonic())
        text = (
            f"{what}; see to its file system, then run again to go on (run.storage_patience_s: {self._patience_s:g} s)"
        )
        self._thread.give_up(lambda: StorageAway(text))
        if self._end_process is not None:
            self._end_process(text)

    # ------------------------------------------------------------------------------------ what fails

    def _look(self, began: float) -> None:
        while not self._closed.wait(self._look_every_s):
            try:
                _probe(self._folder)
            except OSError:
                continue
            now = time.monotonic()
            if now - self._back_at > _QUIET_S:
                self._say(f"the results folder can be written again after {now - began:.0f} s; going on")
            self._back_at = now
            with self._lock:
                self._since = None
            return


def _probe(folder: Path) -> None:
    """Write a file that a killed process leaves as one of its temporary files.

    Raises:
        OSError: As the system reports it.
    """
    path = temporary_path(folder / "probe", ProcessIdentity.current())
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        data = os.urandom(_PROBE_BYTES)
        while data:
            data = data[os.write(handle, data) :]
        os.fsync(handle)
    finally:
        os.close(handle)
        os.unlink(path)
