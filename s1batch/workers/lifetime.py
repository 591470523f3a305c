"""When a worker has to leave: before its allocation ends, or after a lifetime that the site sets."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from s1batch.slurm.walltime import working_deadline


def allocation_limit() -> float | None:
    """Return by when work in this process's allocation must be over, seconds since 1970; None: there is no limit."""
    deadline = working_deadline()
    return None if deadline is None else deadline.at


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """How long workers stay; pickles.

    Attributes:
        lifetime_s: Longest time from a worker's first part on; None: as long as its allocation.
        stagger_s: Workers leave up to so much earlier, each at a time of its own, so that not all leave at once.
    """

    lifetime_s: float | None = None
    stagger_s: float = 0.0

    def ends_at(
        self,
        now: float | None = None,
        allocation: Callable[[], float | None] = allocation_limit,
        draw: Callable[[], float] = random.random,
    ) -> float | None:
        """Return by when this worker must have left, seconds since 1970; None: it need not leave.

        Args:
            now: The present time.
            allocation: Says when work in this process's allocation must be over.
            draw: A random number between 0 and 1.
        """
        now = time.time() if now is None else now
        ends = [end for end in (allocation(), None if self.lifetime_s is None else now + self.lifetime_s) if end]
        if not ends:
            return None
        # A stagger that is long beside the time that is left would let workers leave before they did anything.
        return min(ends) - min(self.stagger_s, max(min(ends) - now, 0.0) / 4) * draw()
