"""Which samples of a channel are there already: of overlapping stretches the first keeps its samples."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from s1batch.grid import first_index_from, time_of

_ROUNDING_NS = 2


class Piece(NamedTuple):
    """A stretch of one channel in one file that goes into chunks.

    Attributes:
        start_ns: Time of its first sample.
        samples: How many.
        rate_hz: Its own rate.
        file: Number of the file.
        channel: The channel.
    """

    start_ns: int
    samples: int
    rate_hz: float
    file: int
    channel: str

    @property
    def last_ns(self) -> int:
        """Time of the last sample."""
        return time_of(self.samples - 1, self.start_ns, self.rate_hz)

    @property
    def stop_ns(self) -> int:
        """Time one period behind the last sample."""
        return time_of(self.samples, self.start_ns, self.rate_hz)


class Coverage:
    """The times at which a channel has samples; each sample covers half a period before and behind it."""

    __slots__ = ("_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def claim(self, start_ns: int, samples: int, rate_hz: float) -> Iterator[tuple[int, int, bool]]:
        """Cover a stretch, and yield its parts as (first sample, sample behind, whether they are new).

        Args:
            start_ns: Time of its first sample.
            samples: How many, at least 1.
            rate_hz: Their rate.
        """
        half_ns = round(5e8 / rate_hz)
        begin = start_ns - half_ns
        end = time_of(samples - 1, start_ns, rate_hz) + half_ns
        low = bisect_right(self._stops, begin)
        high = bisect_left(self._starts, end)
        taken = list(zip(self._starts[low:high], self._stops[low:high], strict=True))
        self._cover(begin, end)
        position = 0
        for covered_from, covered_to in taken:
            first = min(max(first_index_from(covered_from, start_ns, rate_hz), position), samples)
            stop = min(max(first_index_from(covered_to, start_ns, rate_hz), first), samples)
            if first > position:
                yield position, first, True
            if stop > first:
                yield first, stop, False
            position = max(position, stop)
        if position < samples:
            yield position, samples, True

    def _cover(self, begin: int, end: int) -> None:
        low = bisect_left(self._stops, begin - _ROUNDING_NS)
        high = bisect_right(self._starts, end + _ROUNDING_NS)
        if low < high:
            begin = min(begin, self._starts[low])
            end = max(end, self._stops[high - 1])
        self._starts[low:high] = [begin]
        self._stops[low:high] = [end]
