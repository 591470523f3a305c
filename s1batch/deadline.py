"""By when a run must be over. The limit of an allocation may be moved while the run is under way."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LOOK_S = (30.0, 300.0)
"""Shortest and longest pause between two looks: a quarter of the time that is left, so that a thousand tasks do not ask
Slurm more than a few times a second, and a limit that was moved is noticed before it matters."""


LAST_LOOK_S = 10.0
"""How long before the end the last look is."""


class Deadline:
    """By when a run must be over; pickles, and does not move any more then.

    Args:
        at: When, seconds since 1970.
        look: Finds out when it is now; None: not known.
    """

    def __init__(self, at: float, look: Callable[[], float | None] | None = None) -> None:
        self.at = at
        self._look = look

    def __getstate__(self) -> dict[str, Any]:
        return {"at": self.at, "_look": None}

    @property
    def is_over(self) -> bool:
        """Whether that time has come."""
        return time.time() >= self.at

    @property
    def left_s(self) -> float:
        """Seconds that are left, not below 0."""
        return max(self.at - time.time(), 0.0)

    def refresh(self) -> bool:
        """Look once, and return whether it has moved by more than a second."""
        found = self._look() if self._look is not None else None
        if found is None or abs(found - self.at) <= 1:
            return False
        self.at = found
        return True

    @contextmanager
    def watched(self, say: Callable[[str], None]) -> Iterator[None]:
        """Look now and then, in a thread, for the length of a block.

        Args:
            say: Receives a line when it has moved.
        """
        if self._look is None:
            yield
            return
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(self._pause_s()):
                if self.refresh() and not ended.is_set():
                    say(f"the limit of the allocation was moved: this run is over in {self.left_s / 60:,.1f} min")

        threading.Thread(target=watch, name="s1batch-deadline", daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def _pause_s(self) -> float:
        shortest, longest = LOOK_S
        # Not all tasks of an array at the same moment, and once more before it is too late.
        usual = min(max(self.left_s / 4, shortest), longest) * random.uniform(0.9, 1.1)
        return min(usual, max(self.left_s - LAST_LOOK_S, LAST_LOOK_S / 4))
