"""Signals to a program whose main thread hangs in the kernel, where Python's handlers never run.

A call to a file system that does not answer is interrupted by SIGKILL alone. Another signal waits, and the kernel
leaves it to the main thread. So a second thread, in which signals are blocked, looks whether one waits for longer than
a moment, and takes it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

_LOOK_EVERY_S = 0.5


@contextmanager
def taken_when_stuck(numbers: Collection[int], handle: Callable[[int], None]) -> Iterator[None]:
    """Have signals handled by another thread, for the length of a block, when the main one does not take them.

    Args:
        numbers: Which signals.
        handle: Called in that thread with the number.
    """
    ended = threading.Event()

    def watch() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        before: set[int] = set()
        while not ended.wait(_LOOK_EVERY_S):
            waiting = {int(number) for number in signal.sigpending()}.intersection(numbers)
            for number in waiting & before:
                if signal.sigtimedwait([number], 0) is not None:
                    handle(number)
            before = waiting

    thread = threading.Thread(target=watch, name="s1batch-stuck-signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
