"""Windows over times that are not even: on an even grid, which each stretch of rising times is interpolated onto.

A grid is anchored at the first time of a run of times that never go back. Its cell k holds the times from k to k + 1
intervals; a window holds the samples of its cells, so every sample lies in some window. Samples that are more than five
median intervals apart leave a gap between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from s1batch.errors import SourceError
from s1batch.grid import time_of
from s1batch.long_series import SentWindow, SeriesGrid
from s1batch.readers.sensors.axis import NO_TIME

REACH = 5.0
"""Neighbours that are more median intervals apart than this have a gap between them."""

_EARLY = 1e-3
"""A time that is less than this share of an interval before a cell lies in it: times are rounded."""

MOST_RUNS = 1000
"""An axis that goes back more often than this is in no order that a window could have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnevenWindow:
    """A window on an even grid, and the samples that it is made of.

    Attributes:
        sent: Its place on the grid of its run.
        first: First sample.
        last: First sample behind.
        start_ns: Its start, counted from the first time of the axis.
        stop_ns: Its end, padding included.
    """

    sent: SentWindow
    first: int
    last: int
    start_ns: int
    stop_ns: int


def rate_of(offsets_ns: NDArray[np.int64], why: str) -> float:
    """Return the rate of the median interval, to six digits.

    Raises:
        SourceError: No time is later than the one before it.
    """
    steps = np.diff(offsets_ns[offsets_ns != NO_TIME])
    rising = steps[steps > 0]
    if not len(rising):
        raise SourceError("irregular_axis", f"{why}; no time is later than the one before")
    return float(f"{1e9 / float(np.median(rising)):.6g}")


def uneven_windows(
    offsets_ns: NDArray[np.int64], first: int, stop: int, rate_hz: float, grid: SeriesGrid, why: str
) -> Iterator[UnevenWindow | tuple[int, int, str]]:
    """Yield the windows over samples first to stop, and (first, last, why) for samples that have no place.

    Args:
        offsets_ns: All times of the axis, counted from its first one.
        first: First sample.
        stop: First sample behind.
        rate_hz: Rate of the grid.
        grid: How to cut it.
        why: What is wrong with the axis, for messages.
    """
    known = offsets_ns[first:stop] != NO_TIME
    goes_on = np.where(known[1:], np.diff(offsets_ns[first:stop]) >= 0, True) & (known[1:] == known[:-1])
    edges = [0, *(np.flatnonzero(~goes_on) + 1).tolist(), stop - first]
    if len(edges) > MOST_RUNS:
        yield first, stop, f"{why}; its times go back or are missing {len(edges) - 2:,} times"
        return
    for low, high in pairwise(edges):
        if low == high:
            continue
        if not known[low]:
            yield first + low, first + high, f"sample {first + low} has no time"
            continue
        yield from _run_windows(offsets_ns[first + low : first + high], first + low, rate_hz, grid)


def _run_windows(times_ns: NDArray[np.int64], first: int, rate_hz: float, grid: SeriesGrid) -> Iterator[UnevenWindow]:
    since_ns = times_ns - times_ns[0]
    cells = np.floor(since_ns * (rate_hz / 1e9) + _EARLY).astype(np.int64)
    breaks = np.flatnonzero(np.diff(since_ns) > reach_ns(since_ns, rate_hz)) + 1
    starts = cells[np.concatenate(([0], breaks))]
    stops = cells[np.concatenate((breaks - 1, [len(cells) - 1]))] + 1
    for sent in grid.windows(zip(starts.tolist(), stops.tolist(), strict=True)):
        window = sent.window
        low, high = (int(place) for place in np.searchsorted(cells, [window.start, window.stop - window.pad]))
        if low == high:
            low, high = max(low - 1, 0), min(high + 1, len(cells))
        yield UnevenWindow(
            sent=sent,
            first=first + low,
            last=first + high,
            start_ns=time_of(window.start, int(times_ns[0]), rate_hz),
            stop_ns=time_of(window.stop, int(times_ns[0]), rate_hz),
        )


def reach_ns(times_ns: NDArray[np.int64], rate_hz: float) -> float:
    """Return how far neighbours may be apart without a gap between them."""
    steps = np.diff(times_ns)
    rising = steps[steps > 0]
    median_ns = float(np.median(rising)) if len(rising) else 0.0
    return REACH * max(median_ns, 1e9 / rate_hz)


def onto_grid(
    times_ns: NDArray[np.int64], values_TC: NDArray[np.float32], start_ns: int, steps: int, rate_hz: float
) -> tuple[NDArray[np.float32], int]:
    """Interpolate samples linearly onto a grid; samples of one time count with their mean.

    Args:
        times_ns: Times of the samples, never going back; on the same clock as `start_ns`.
        values_TC: The samples.
        start_ns: First point of the grid.
        steps: Its points.
        rate_hz: Its rate.

    Returns:
        The values, constant before the first and behind the last sample, and how many points lie in gaps.
    """
    distinct, first = np.unique(times_ns, return_index=True)
    values = values_TC
    if len(distinct) < len(times_ns):
        counts = np.diff(np.append(first, len(times_ns)))
        values = (np.add.reduceat(values_TC.astype(np.float64), first, axis=0) / counts[:, None]).astype(np.float32)
    points = np.arange(steps) * (1e9 / rate_hz)
    since = (distinct - start_ns).astype(np.float64)
    found = np.empty((steps, values.shape[1]), np.float32)
    for column in range(values.shape[1]):
        found[:, column] = np.interp(points, since, values[:, column])
    behind = np.searchsorted(since, points, side="left")
    before = np.clip(np.searchsorted(since, points, side="right") - 1, 0, len(since) - 1)
    apart = since[np.clip(behind, 0, len(since) - 1)] - since[before]
    reach = reach_ns(distinct, rate_hz)
    outside = (points > since[-1] + reach) | (points < since[0] - reach)
    return found, int(np.count_nonzero((apart > reach) | outside))
