"""What happens to windows that are longer than the engine takes.

    split            cut into windows that the engine takes
    decimate         read whole, sent at a lower rate: the largest fraction 1/k of the rate that makes it fit
    coarse_to_fine   a scan of the whole window at a low rate is asked first; the windows at the full rate that cover
                     it are asked where the scan calls for it
    refuse           refused by the engine's rules

`SeriesGrid` is that for one sampling rate, in index arithmetic only, so that it serves every reader of series.

Which fraction a window is sent at follows from its length alone. So a reader finds it again from the chunk that it is
told to read, and the identity of a chunk stays what it was: where the data are.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from s1batch.config import Config
from s1batch.errors import UsageError
from s1batch.grid import ChunkGrid, Window
from s1batch.windows import Extent, ExtentValue, WindowSpec

LARGEST_FACTOR = 10_000
"""A resampling ratio is a fraction with a denominator of at most this."""

LongPolicy = Literal["split", "decimate", "coarse_to_fine", "refuse"]


class CoarseToFineSpec(Config):
    """How `long_series: coarse_to_fine` scans, and where it looks closely.

    Scans are `window.length` long and follow one another without overlap; `window.overlap`, `window.blinding` and
    `window.tail` (as far as `shift` or `short`) say how the windows at the full rate lie.
    """

    scan_rate_hz: float = Field(
        1.0, gt=0, description="scans are sent at the highest fraction 1/k of the rate that is not above this, and fits"
    )
    length: Extent = Field(
        ExtentValue(0.0, "max"), description="windows at the full rate: seconds, samples, or max (the engine's longest)"
    )
    margin_s: float = Field(
        10.0,
        ge=0,
        description="windows this near to a place that a scan found are asked; its resolution is added",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LongSeries:
    """The policy of a job.

    Attributes:
        policy: Its name.
        coarse_to_fine: How that policy works.
    """

    policy: LongPolicy = "split"
    coarse_to_fine: CoarseToFineSpec = field(default_factory=CoarseToFineSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentWindow:
    """A window, and how it is sent.

    Attributes:
        window: Its place on the grid at the full rate.
        factor: It is sent at 1/factor of that rate.
        is_scan: Whether its answer decides about the windows behind it.
        is_conditional: Whether the answer of the last scan before it decides if it is asked.
    """

    window: Window
    factor: int = 1
    is_scan: bool = False
    is_conditional: bool = False


class SeriesGrid:
    """Cuts runs of samples of one rate into windows, and says how each is sent.

    Args:
        window: The `window` block; `longest_samples` is what the engine takes, None for no limit.
        long: What to do with windows that are longer.
        rate_hz: The full rate, which the grid counts at.

    Raises:
        UsageError: The block asks for something impossible at this rate.
    """

    def __init__(self, window: WindowSpec, long: LongSeries, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._longest = window.longest_samples
        self._scan_rate_hz = long.coarse_to_fine.scan_rate_hz
        self._fine: ChunkGrid | None = None
        uncut = window.model_copy(update={"longest_samples": None})
        if long.policy == "decimate":
            self.whole = ChunkGrid.from_spec(uncut, rate_hz)
        elif long.policy == "coarse_to_fine":
            self._fine = ChunkGrid.from_spec(_fine_window(window, long.coarse_to_fine), rate_hz)
            length = max(1, window.length.samples(rate_hz))
            if length > self._fine.length:
                self.whole = ChunkGrid(length=length, step=length, tail="short")
            else:
                self.whole = ChunkGrid.from_spec(window, rate_hz)
        else:
            self._longest = None
            self.whole = ChunkGrid.from_spec(window, rate_hz)

    def factor(self, steps: int) -> int:
        """Return the k for which a window of so many samples is sent at 1/k of the rate; 1 for one that fits.

        Raises:
            UsageError: k is more than 10,000.
        """
        factor = 1 if self._longest is None else max(1, -(-steps // self._longest))
        if self._fine is not None:
            if steps <= self._fine.length:
                return 1
            slow = math.ceil(self._rate_hz / self._scan_rate_hz * (1 - 1e-9))
            factor = min(max(slow, factor), steps)
        if factor > LARGEST_FACTOR:
            raise UsageError(
                f"a window of {steps:,} samples at {self._rate_hz:g} Hz would be sent at 1/{factor:,} of its rate, "
                f"at most 1/{LARGEST_FACTOR:,} is: take a shorter window.length or a higher scan_rate_hz"
            )
        return factor

    def windows(self, intervals: Iterable[tuple[int, int]]) -> Iterator[SentWindow]:
        """Yield the windows over covered intervals; a scan, then the conditional windows that cover its samples.

        Args:
            intervals: Covered half-open index ranges, sorted and disjoint.
        """
        if self._fine is None or self.whole.length <= self._fine.length:
            for window in self.whole.windows(intervals):
                yield SentWindow(window=window, factor=self.factor(window.stop - window.start))
            return
        covered = _Intervals(intervals)
        for first, last in self.whole.runs(covered.all):
            yield from self._scanned(self._fine, covered, first, last)

    def _scanned(self, fine: ChunkGrid, covered: _Intervals, first: int, last: int) -> Iterator[SentWindow]:
        if last - first <= fine.length:
            yield from (SentWindow(window=window) for window in fine.windows(covered.within(first, last)))
            return
        # Padding stands for samples behind the end of the data; between two scans there are some.
        within = ChunkGrid(
            length=fine.length,
            step=fine.step,
            tail="shift" if fine.tail == "pad" else fine.tail,
            blinding=fine.blinding,
        )
        overlap = fine.length - fine.step
        for start in range(first, last, self.whole.length):
            stop = min(start + self.whole.length, last)
            is_long = stop - start > fine.length
            if is_long:
                # It answers for no sample alone, so its core is empty, at its end: what the windows at the full rate
                # say counts wherever one is answered.
                scan = Window(start=start, stop=stop, core_start=stop, core_stop=stop)
                yield SentWindow(window=scan, factor=self.factor(stop - start), is_scan=True)
            # Windows of neighbouring scans overlap like those of one, but each ends behind its own scan's start and
            # not behind its end, so no two are the same. A rest that needs no scan is one window, moved back.
            begin = max(first, start - overlap if is_long else stop - fine.length)
            for window in within.windows(covered.within(begin, stop)):
                if window.stop > start:
                    yield SentWindow(window=window, is_conditional=is_long)


def _fine_window(window: WindowSpec, spec: CoarseToFineSpec) -> WindowSpec:
    length = spec.length
    if length.unit == "max":
        if window.longest_samples is None:
            raise UsageError("coarse_to_fine.length: max: the engine has no longest series; give a length such as 60s")
        length = ExtentValue(float(window.longest_samples), "samples")
    return window.model_copy(update={"length": length})


class _Intervals:
    """Sorted, disjoint intervals that are asked for piece by piece."""

    def __init__(self, intervals: Iterable[tuple[int, int]]) -> None:
        self.all = [interval for interval in intervals if interval[0] < interval[1]]
        self._starts = [start for start, _ in self.all]
        self._stops = [stop for _, stop in self.all]

    def within(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return what of them lies in a range."""
        touching = self.all[bisect_right(self._stops, first) : bisect_left(self._starts, last)]
        return [(max(start, first), min(stop, last)) for start, stop in touching]
