"""How many samples of a stretch lie in a union of windows, exactly and for many stretches at once.

Sample i of a stretch lies at `start + round(i * 1e9 / rate_hz)` nanoseconds. It belongs to a window [a, b) when
a - half <= t < b - half, with half of the stretch's own sample interval: the components of one station may be offset
by less than a sample against the common grid, and still each sample belongs to the window that shows it. Where values
are indices instead of times (characters, rows), sample i lies at `start + i` and half is zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]

FAR = 1 << 62
"""Stands for "without end"; every time within 146 years of 1970 lies inside."""


@dataclass(frozen=True, eq=False)
class Stretches:
    """Stretches of samples, as columns of equal length.

    Attributes:
        group: Which union each belongs to; negative means none.
        start: Time (ns) or index of sample 0.
        rate_hz: Samples per second; 0 where values are indices.
        count: Number of samples.
    """

    group: Int64s
    start: Int64s
    rate_hz: Float64s
    count: Int64s


def merge_windows(windows: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Return the unions of windows: disjoint, not touching, sorted, for each group apart.

    Args:
        windows: Columns `by`, `start` and `stop` (int64).
        by: Names of the columns that tell groups apart; nulls are a value of their own.
    """
    # Ranks instead of the columns themselves: nulls then form groups like any other value.
    ordered = windows.filter(pl.col("start") < pl.col("stop")).sort([*by, "start"], nulls_last=True)
    ordered = ordered.with_columns(pl.struct(by).rle_id().alias("_group"))
    reach = pl.col("stop").cum_max().over("_group").shift(1)
    fresh = (pl.col("_group") != pl.col("_group").shift(1)) | (pl.col("start") > reach)
    return (
        ordered.with_columns(fresh.fill_null(True).cum_sum().alias("_run"))
        .group_by("_run", maintain_order=True)
        .agg([*(pl.col(name).first() for name in by), pl.col("start").first(), pl.col("stop").max()])
        .drop("_run")
    )


class Unions:
    """Unions of windows by group number, made for counting.

    Args:
        windows: What `merge_windows` returned, grouped by the one column `group` of numbers from 0.
        groups: How many groups there are.
    """

    def __init__(self, windows: pl.DataFrame, groups: int) -> None:
        group = windows.get_column("group").to_numpy().astype(np.int64)
        self._start = windows.get_column("start").to_numpy().astype(np.int64)
        self._stop = windows.get_column("stop").to_numpy().astype(np.int64)
        # One more than needed, so that items without a group may look at group 0 even when there is none.
        self._first = np.searchsorted(group, np.arange(groups + 2))

    def count(self, stretches: Stretches) -> Int64s:
        """Return how many samples of each stretch lie in the union of its group."""
        known = (stretches.group >= 0) & (stretches.count > 0)
        group = np.where(known, stretches.group, 0)
        low, high = self._first[group], np.where(known, self._first[group + 1], self._first[group])
        half = _half(stretches.rate_hz)
        earliest = stretches.start + half
        latest = sample_times(stretches.start, stretches.rate_hz, np.maximum(stretches.count - 1, 0)) + half
        # The windows that end behind the first sample and begin before or at the last.
        left = _bisect_right(self._stop, earliest, low, high)
        right = _bisect_right(self._start, latest, left, high)
        return self._count_pairs(stretches, half, left, right)

    def touched(self, group: Int64s, start: Int64s, stop: Int64s) -> NDArray[np.bool_]:
        """Return whether any window of the group overlaps [start, stop)."""
        known = group >= 0
        safe = np.where(known, group, 0)
        low, high = self._first[safe], np.where(known, self._first[safe + 1], self._first[safe])
        left = _bisect_right(self._stop, start, low, high)
        right = _bisect_right(self._start, stop - 1, left, high)
        return np.asarray(right > left)

    def _count_pairs(self, stretches: Stretches, half: Int64s, left: Int64s, right: Int64s) -> Int64s:
        pairs = right - left
        owner = np.repeat(np.arange(len(pairs)), pairs)
        ends = np.cumsum(pairs)
        window = np.arange(len(owner)) - np.repeat(ends - pairs, pairs) + np.repeat(left, pairs)
        start, rate_hz, count = stretches.start[owner], stretches.rate_hz[owner], stretches.count[owner]
        inside = _first_sample(start, rate_hz, count, self._stop[window] - half[owner])
        inside -= _first_sample(start, rate_hz, count, self._start[window] - half[owner])
        total = np.concatenate([np.zeros(1, np.int64), np.cumsum(inside)])
        return np.asarray(total[ends] - total[ends - pairs])


def sample_times(start: Int64s, rate_hz: Float64s, index: Int64s) -> Int64s:
    """Return the time (ns) or position of sample `index` of stretches; the formula stands above."""
    indices = rate_hz == 0
    steps = np.rint(index.astype(np.float64) * 1e9 / np.where(indices, 1.0, rate_hz)).astype(np.int64)
    return np.asarray(start + np.where(indices, index, steps))


def _half(rate_hz: Float64s) -> Int64s:
    # Times are integers, so t >= a - half is the same as t >= a - floor(half).
    indices = rate_hz == 0
    return np.where(indices, 0, np.floor(0.5e9 / np.where(indices, 1.0, rate_hz))).astype(np.int64)


def _first_sample(start: Int64s, rate_hz: Float64s, count: Int64s, bound: Int64s) -> Int64s:
    """Return the number of the first sample at or behind `bound`; `count` when there is none."""
    bound = np.clip(bound, -FAR, FAR)
    scale = np.where(rate_hz == 0, 1.0, rate_hz / 1e9)
    guess = np.ceil((bound - start).astype(np.float64) * scale)
    index = np.clip(guess, 0, count).astype(np.int64)
    # Floating point leaves the guess a few samples off at most; walk to the exact one.
    while True:
        early = (index < count) & (sample_times(start, rate_hz, index) < bound)
        late = (index > 0) & (sample_times(start, rate_hz, index - 1) >= bound)
        if not early.any() and not late.any():
            return index
        index += early
        index -= late & ~early


def _bisect_right(values: Int64s, wanted: Int64s, low: Int64s, high: Int64s) -> Int64s:
    """Return, for each, the first position in [low, high) whose value is larger than wanted; high when none is."""
    low, high = low.copy(), high.copy()
    while (open_ := low < high).any():
        middle = (low + high) // 2
        larger = np.zeros(len(low), bool)
        larger[open_] = values[middle[open_]] > wanted[open_]
        high = np.where(open_ & larger, middle, high)
        low = np.where(open_ & ~larger, middle + 1, low)
    return low
