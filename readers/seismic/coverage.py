"""Which places of a channel's grid are taken: of samples that belong to one place the first keeps it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from s1batch.grid import time_of


class Piece(NamedTuple):
    """A contiguous stretch of one channel in one file.

    Attributes:
        start_ns: Time of its first sample.
        samples: How many.
        rate_hz: Its own rate.
        file: Number of the file.
        channel: The channel.
        order: Its number among the stretches of the channel: of two in one file the earlier one has precedence.
    """

    start_ns: int
    samples: int
    rate_hz: float
    file: int
    channel: str
    order: int

    @property
    def last_ns(self) -> int:
        """Time of the last sample."""
        return time_of(self.samples - 1, self.start_ns, self.rate_hz)

    @property
    def stop_ns(self) -> int:
        """Time one period behind the last sample."""
        return time_of(self.samples, self.start_ns, self.rate_hz)

    @property
    def precedence(self) -> tuple[int, str, int]:
        """Sorts pieces as a reader meets them: the first one that has a sample for a place keeps it."""
        return self.file, self.channel, self.order


class Coverage:
    """The places that are taken, as disjoint ranges."""

    __slots__ = ("_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def claim(self, start: int, stop: int) -> Iterator[tuple[int, int, bool]]:
        """Take a range of places, and yield its parts as (first, behind, whether they were free).

        Args:
            start: First place.
            stop: Place behind the last one.
        """
        low = bisect_right(self._stops, start)
        high = bisect_left(self._starts, stop)
        taken = list(zip(self._starts[low:high], self._stops[low:high], strict=True))
        self._take(start, stop)
        position = start
        for taken_from, taken_to in taken:
            first, behind = max(taken_from, position), min(taken_to, stop)
            if first > position:
                yield position, first, True
            yield first, behind, False
            position = behind
        if position < stop:
            yield position, stop, True

    def _take(self, start: int, stop: int) -> None:
        low = bisect_left(self._stops, start)
        high = bisect_right(self._starts, stop)
        if low < high:
            start = min(start, self._starts[low])
            stop = max(stop, self._stops[high - 1])
        self._starts[low:high] = [start]
        self._stops[low:high] = [stop]
