"""Signals to a program whose main thread hangs in the kernel, where Python's handlers never run.

A call to a file system that does not answer is interrupted by SIGKILL alone. Another signal waits for the main thread,
or is taken by some other one, in which Python only notes it for the main thread. So one more thread looks for both.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

PROMPT_S = 0.5
"""A main thread that has not handled a signal by then hangs."""


class StuckSignals:
    """Has signals handled by a thread of its own when the main one does not.

    Args:
        numbers: Which signals.
        handle: Called in that thread with the number.
    """

    def __init__(self, numbers: Collection[int], handle: Callable[[int], None]) -> None:
        self._numbers = frozenset(numbers)
        self._handle = handle
        self._handled = 0  # how often the main thread did
        self._taken = False

    def is_news(self) -> bool:
        """Say that the main thread handles a signal, and return whether it was not handled for it already."""
        taken, self._taken = self._taken, False
        self._handled += not taken
        return not taken

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch for the length of a block; called in the main thread."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        thread = threading.Thread(target=self._watch, args=(reading,), name="s1batch-stuck-signals", daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.close(writing)
            thread.join()
            os.close(reading)

    def _watch(self, reading: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)
        waited: set[int] = set()
        handled = 0
        while True:
            if select.select([reading], [], [], PROMPT_S)[0]:
                noted = os.read(reading, 256)
                if not noted:
                    return
                time.sleep(PROMPT_S)
                if self._handled > handled:
                    handled = self._handled
                else:
                    self._taken = True
                    self._take(noted[0])
            # What no thread has taken: the kernel keeps it for the main one.
            waiting = {int(number) for number in signal.sigpending()} & self._numbers
            for number in waiting & waited:
                if signal.sigtimedwait([number], 0) is not None:
                    self._take(number)
            waited = waiting

    def _take(self, number: int) -> None:
        if number in self._numbers:
            self._handle(number)
