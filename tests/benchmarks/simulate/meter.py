"""What the slots of all engines did, integrated over time while it passes."""

from __future__ import annotations

FULL = 0.9
"""Share of the slots that must compute for the engines to count as full."""


class Meter:
    """Adds up how many slots computed and how many could have.

    Args:
        requests: How many there are; a bit is kept for each.

    Attributes:
        starts: Requests that began to be computed, each as often as it did.
        started: Different ones.
        last_start_s: When a request began for the first time, the last one of all.
        lost_s: Computing that came to nothing because the engine died or the client went away, in seconds of one slot.
        not_full_s: For how long fewer than `FULL` of the slots of working engines computed.
    """

    def __init__(self, requests: int) -> None:
        self.starts = 0
        self.started = 0
        self.last_start_s = 0.0
        self.lost_s = 0.0
        self.not_full_s = 0.0
        self._seen = bytearray(requests // 8 + 1)
        self._busy = self._live = 0
        self._now = 0.0
        self._busy_s = self._live_s = 0.0
        self._while_waiting = (0.0, 0.0)

    @property
    def utilisation(self) -> float:
        """Share of the slots of working engines that computed, until the last request had begun."""
        busy_s, live_s = self._while_waiting
        return busy_s / live_s if live_s else 0.0

    def change(self, now: float, *, busy: int = 0, live: int = 0) -> None:
        """Note that slots began or ceased to compute, or that engines came or went."""
        self.advance(now)
        self._busy += busy
        self._live += live

    def start(self, now: float, number: int) -> None:
        """Note that a request begins to be computed."""
        self.change(now, busy=1)
        self.starts += 1
        byte, bit = number >> 3, 1 << (number & 7)
        if not self._seen[byte] & bit:
            self._seen[byte] |= bit
            self.started += 1
            self.last_start_s = now
            self._while_waiting = (self._busy_s, self._live_s)

    def advance(self, now: float) -> None:
        """Take in the time since the last change."""
        passed = now - self._now
        if passed > 0.0:
            self._busy_s += self._busy * passed
            self._live_s += self._live * passed
            if self._busy < FULL * self._live:
                self.not_full_s += passed
            self._now = now
