"""Which place of an even grid each sample of a run belongs to: one rule, for planning and for reading.

A sample belongs to the place nearest to it. A run whose own rate differs so little from the grid's that it stays within
half a sample over all its length is placed as a whole, by its first sample. In any other run each sample goes by its
own time: a slow clock then leaves places empty, and of two samples that a fast clock gives one place the first keeps
it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from s1batch.grid import place_of

_NS = 1_000_000_000
TIE_NS = 2
"""Sample times that lie halfway between two places go to the later one, even when they were rounded to a nanosecond on
the way: all windows must decide alike, or a sample would fall between two of them."""


def is_even(rate_hz: float, samples: int, grid_hz: float) -> bool:
    """Return whether a run stays within half a sample of a grid over all its length."""
    return rate_hz == grid_hz or abs(rate_hz / grid_hz - 1) * samples < 0.5


def first_place(start_ns: int, origin_ns: int, grid_hz: float) -> int:
    """Return the place of the first sample of a run on the grid whose place 0 is at `origin_ns`."""
    return place_of(start_ns, origin_ns, grid_hz, tie_ns=TIE_NS)


def parts(
    start_ns: int, rate_hz: float, samples: int, origin_ns: int, grid_hz: float, low: int = 0, high: int | None = None
) -> Iterator[tuple[int, int, int]]:
    """Yield stretches of a run that lie on consecutive places: first sample, sample behind, place of the first.

    Samples that are left out between two of them found their place taken by the sample before.

    Args:
        start_ns: Time of the run's first sample.
        rate_hz: Its rate.
        samples: How many it has.
        origin_ns: Time of place 0.
        grid_hz: Rate of the grid.
        low: First sample wanted.
        high: Sample behind the last one wanted; all when left out.
    """
    high = samples if high is None else high
    if low >= high:
        return
    if is_even(rate_hz, samples, grid_hz):
        yield low, high, first_place(start_ns, origin_ns, grid_hz) + low
        return
    own_n, own_d = rate_hz.as_integer_ratio()
    grid_n, grid_d = grid_hz.as_integer_ratio()
    # place(k) = floor((start - origin + tie + k / own) * grid + 1/2), in whole numbers.
    scale = _NS * own_n * grid_d
    base = 2 * (start_ns - origin_ns + TIE_NS) * own_n * grid_n + scale
    step = 2 * own_d * _NS * grid_n
    direction = 1 if grid_hz > rate_hz else -1

    def ahead(sample: int) -> int:
        """How far a sample's place has run ahead of its number."""
        return (base + sample * step) // (2 * scale) - sample

    if low > 0 and ahead(low) < ahead(low - 1):
        low += 1
    while low < high:
        lead = ahead(low)
        stop = bisect_right(range(low, high), direction * lead, key=lambda sample: direction * ahead(sample)) + low
        yield low, stop, low + lead
        low = stop + 1 if direction < 0 else stop
