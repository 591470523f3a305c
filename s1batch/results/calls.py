"""Calls of a results folder that are under way, so that a folder which does not answer is noticed.

A network file system that is mounted hard lets calls hang in the kernel for as long as its server is gone, and nothing
can be done in the thread that hangs. So whoever makes calls that ought to be short, notes them here, and one thread
looks from time to time how long the oldest has been under way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SILENT_S = 10.0
"""A call that takes longer says that the folder does not answer."""


class CallsUnderWay:
    """The short calls of one process to one results folder.

    Args:
        look: Called again and again, in a thread of its own, with how long the oldest call is under way; 0: none.
        every_s: Pause between two looks.
    """

    def __init__(self, look: Callable[[float], None], every_s: float) -> None:
        self._look = look
        self._every_s = every_s
        self._lock = threading.Lock()
        self._begun: dict[int, float] = {}
        self._count = 0
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Note a call for the length of a block."""
        with self._lock:
            self._count += 1
            number = self._count
            self._begun[number] = time.monotonic()
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._watch, name="s1batch-storage-watch", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._begun[number]

    def oldest_s(self) -> float:
        """Return for how long the oldest call has been under way; 0 when there is none."""
        with self._lock:
            # In the order in which they began.
            begun = next(iter(self._begun.values()), None)
        return 0.0 if begun is None else time.monotonic() - begun

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._every_s):
            self._look(self.oldest_s())
