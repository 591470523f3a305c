"""The least and greatest value of each bin of a long series: what a plot of any width must show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def envelope(values: ArrayLike, bins: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Cut a series into bins of nearly equal length and return where each starts, its minimum and its maximum.

    Values that are not finite count as absent; a bin of only such ones is NaN. No extreme is lost: the least of the
    minima is the least finite value, and every value lies within the envelope of its bin.

    Args:
        values: One-dimensional.
        bins: How many are wanted; a shorter series gives one bin per value.

    Returns:
        starts: Index of each bin's first value; int64.
        lows: Minima; float64.
        highs: Maxima; float64.
    """
    values_T = np.asarray(values, dtype=np.float64).ravel()
    if bins < 1:
        raise ValueError(f"{bins} bins; at least one is needed")
    if values_T.size == 0:
        return np.empty(0, np.int64), np.empty(0), np.empty(0)
    count = min(bins, values_T.size)
    starts = np.arange(count, dtype=np.int64) * values_T.size // count
    finite = np.isfinite(values_T)
    if finite.all():
        return starts, np.minimum.reduceat(values_T, starts), np.maximum.reduceat(values_T, starts)
    lows = np.minimum.reduceat(np.where(finite, values_T, np.inf), starts)
    highs = np.maximum.reduceat(np.where(finite, values_T, -np.inf), starts)
    absent = lows > highs
    return starts, np.where(absent, np.nan, lows), np.where(absent, np.nan, highs)
