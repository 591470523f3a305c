"""Index arithmetic of windows over covered stretches of a sampled axis, and the time of a sample.

    covered   ======    =============                       ====
    runs      |----------------------|                      |--|      (a gap of a window or more parts two runs)
    windows   [......][......]
                      [......][......]                      [..]

Pure: no data are touched, and the work does not depend on how long a gap is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from s1batch.errors import UsageError
from s1batch.windows import ExtentValue, WindowSpec

Tail = Literal["shift", "pad", "short"]

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A half-open range of samples, counted from the origin of the intervals that it was cut from.

    Attributes:
        start: First sample.
        stop: First sample behind it, padding included.
        core_start: First sample that this window alone answers for.
        core_stop: First sample behind the core; padding is never in it.
        pad: How many samples at the end lie behind the data.
    """

    start: int
    stop: int
    core_start: int
    core_stop: int
    pad: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkGrid:
    """Cuts runs of samples into windows.

    Attributes:
        length: Samples of a window, at least 1.
        step: Samples from one window's start to the next one's, 1 to `length`.
        tail: What becomes of the last window of a run: moved back to end with it, padded, or left short. A run that is
            shorter than a window is padded with `pad`, and stays as it is otherwise.
        blinding: Samples at inner edges that are left to the neighbouring window, at most half the overlap.
    """

    length: int
    step: int
    tail: Tail = "shift"
    blinding: int = 0

    def __post_init__(self) -> None:
        if self.length < 1:
            raise UsageError(f"a window of {self.length} samples holds nothing; give at least one sample")
        if not 1 <= self.step <= self.length:
            raise UsageError(
                f"windows of {self.length} samples every {self.step} samples: the step must be 1 to {self.length}, "
                "so that no sample falls between windows"
            )
        if not 0 <= 2 * self.blinding <= self.length - self.step:
            raise UsageError(
                f"window.blinding of {self.blinding} samples with an overlap of {self.length - self.step}: it may be "
                "at most half the overlap, or samples would lie in no window's core"
            )

    @classmethod
    def from_spec(cls, window: WindowSpec, rate_hz: float) -> ChunkGrid:
        """Build the grid for one sampling rate.

        Lengths are rounded to samples, and a window holds at least one. Where only that rounding breaks a limit that
        the job file keeps (blinding of 25 % with an overlap of 50 %), the shorter one gives way by a sample.

        Args:
            window: What the job file says, with `max` already replaced by a length.
            rate_hz: Rate of the samples that windows count, above 0.

        Raises:
            UsageError: The overlap is not shorter than the window, or the blinding exceeds half the overlap.
        """
        if window.length.unit == "max":
            raise UsageError("window.length: max stands for the engine's longest series; give a length without engine")
        longest = window.longest_samples or math.inf
        length = int(min(max(1, window.length.samples(rate_hz)), longest))
        exact_length = min(_exact_samples(window.length, rate_hz, 0.0), longest)
        exact_overlap = _exact_samples(window.overlap, rate_hz, exact_length)
        exact_blinding = _exact_samples(window.blinding, rate_hz, exact_length)
        if exact_overlap >= exact_length:
            raise UsageError(
                f"window.overlap ({window.overlap}) must be shorter than window.length ({window.length}); "
                f"at {rate_hz:g} Hz they are {exact_overlap:g} and {exact_length:g} samples"
            )
        if 2 * exact_blinding > exact_overlap * (1 + 1e-9):
            raise UsageError(
                f"window.blinding ({window.blinding}) may be at most half of window.overlap ({window.overlap}), or "
                f"samples would lie in no window's core; at {rate_hz:g} Hz they are {exact_blinding:g} and "
                f"{exact_overlap:g} samples"
            )
        overlap = min(window.overlap.samples(rate_hz, length), length - 1)
        blinding = min(window.blinding.samples(rate_hz, length), overlap // 2)
        return cls(length=length, step=length - overlap, tail=window.tail, blinding=blinding)

    def bridges(self, gap: int) -> bool:
        """Return whether a gap of so many samples lies inside windows, rather than parting two runs."""
        return gap < self.length

    def runs(self, intervals: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Join intervals over the gaps that windows bridge.

        Args:
            intervals: Covered half-open index ranges, sorted and disjoint; empty ones are passed over.
        """
        open_run: tuple[int, int] | None = None
        for start, stop in intervals:
            if stop <= start:
                continue
            if open_run is None:
                open_run = (start, stop)
            elif self.bridges(start - open_run[1]):
                open_run = (open_run[0], max(open_run[1], stop))
            else:
                yield open_run
                open_run = (start, stop)
        if open_run is not None:
            yield open_run

    def windows(self, intervals: Iterable[tuple[int, int]]) -> Iterator[Window]:
        """Yield the windows over covered intervals, by start; each holds at least one covered sample.

        Args:
            intervals: Covered half-open index ranges, sorted and disjoint.
        """
        for start, stop in self.runs(intervals):
            yield from self._cut(start, stop)

    def _cut(self, first: int, last: int) -> Iterator[Window]:
        length, step, blinding = self.length, self.step, self.blinding
        if last - first <= length:
            pad = length - (last - first) if self.tail == "pad" else 0
            yield Window(start=first, stop=last + pad, core_start=first, core_stop=last, pad=pad)
            return
        last_full = first + (last - first - length) // step * step
        for start in range(first, last_full + 1, step):
            stop = start + length
            yield Window(
                start=start,
                stop=stop,
                core_start=start if start == first else start + blinding,
                core_stop=last if stop == last else stop - blinding,
            )
        if last_full + length == last:
            return
        start = last - length if self.tail == "shift" else last_full + step
        pad = start + length - last if self.tail == "pad" else 0
        yield Window(start=start, stop=last + pad, core_start=start + blinding, core_stop=last, pad=pad)


def time_of(index: int, start_ns: int, rate_hz: float) -> int:
    """Return the time of a sample: `start_ns + round(index * 1e9 / rate_hz)`, exact for any index.

    The rate counts as the fraction that the float is, so nothing drifts over decades; ties go to the even nanosecond.
    """
    numerator, denominator = rate_hz.as_integer_ratio()
    return start_ns + _round_ratio(index * _NS * denominator, numerator)


def index_of(time_ns: int, start_ns: int, rate_hz: float) -> int:
    """Return the index of the sample that is nearest to a time (ties go to the even index); exact."""
    numerator, denominator = rate_hz.as_integer_ratio()
    return _round_ratio((time_ns - start_ns) * numerator, _NS * denominator)


def place_of(time_ns: int, start_ns: int, rate_hz: float, *, tie_ns: int) -> int:
    """Return the index of the sample nearest to a time, of two equally near ones the later; exact.

    Args:
        time_ns: The time.
        start_ns: Time of index 0.
        rate_hz: Samples per second.
        tie_ns: How much before the middle between two samples already counts as the later one.
    """
    numerator, denominator = rate_hz.as_integer_ratio()
    half = _NS * denominator
    return (2 * (time_ns + tie_ns - start_ns) * numerator + half) // (2 * half)


def index_before(time_ns: int, start_ns: int, rate_hz: float) -> int:
    """Return the index of the last grid point at or before a time; exact."""
    numerator, denominator = rate_hz.as_integer_ratio()
    return (time_ns - start_ns) * numerator // (_NS * denominator)


def first_index_from(time_ns: int, start_ns: int, rate_hz: float) -> int:
    """Return the smallest index whose `time_of` is not before a time; exact."""
    index = index_before(time_ns, start_ns, rate_hz)
    return index if time_of(index, start_ns, rate_hz) >= time_ns else index + 1


def _round_ratio(numerator: int, denominator: int) -> int:
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient


def _exact_samples(extent: ExtentValue, rate_hz: float, whole: float) -> float:
    if extent.unit == "s":
        return extent.value * rate_hz
    if extent.unit == "%":
        return extent.value / 100 * whole
    return extent.value
