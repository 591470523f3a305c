"""Shares, means, precision and recall with their intervals, from things that belong to the units of a resampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from s1batch.jobs.scoring.bootstrap import Estimate, Floats, Resampling


def mean_of(resampling: Resampling, values: ArrayLike, units: ArrayLike) -> Estimate:
    """Return the mean of values (the share of ones) that belong to units; None of no values."""
    sums = np.stack([_summed(resampling, units, values), _summed(resampling, units)], axis=1)
    return resampling.of_totals(sums, lambda totals: _ratio(totals[..., :1], totals[..., 1:]))[0]


def precision_recall(
    resampling: Resampling,
    said: tuple[ArrayLike, ArrayLike],
    true: tuple[ArrayLike, ArrayLike],
    over_all: tuple[ArrayLike, ArrayLike] | None = None,
) -> dict[str, Estimate]:
    """Return precision, recall and F1, their harmonic mean.

    Args:
        resampling: What is drawn.
        said: For each unit, how much of what was said is right, and how much was said; as `by_unit` sums them.
        true: For each unit, how much of the truth was found, and how much there is.
        over_all: The same with the truth of what has no answer, which gives `recall over all`.
    """
    parts = [said[0], said[1], true[0], true[1], *(over_all or (np.zeros(resampling.n_units),) * 2)]
    sums = np.stack([np.asarray(part, np.float64) for part in parts], axis=1)

    def statistic(totals: Floats) -> Floats:
        precision = _ratio(totals[..., 0], totals[..., 1])
        recall = _ratio(totals[..., 2], totals[..., 3])
        p, r = np.nan_to_num(precision), np.nan_to_num(recall)
        f1 = np.where(p + r > 0, _ratio(2 * p * r, p + r), 0.0)
        f1 = np.where(totals[..., 1] + totals[..., 3] > 0, f1, np.nan)
        return np.stack([precision, recall, _ratio(totals[..., 4], totals[..., 5]), f1], axis=-1)

    names = ("precision", "recall", "recall over all", "F1")
    found = dict(zip(names, resampling.of_totals(sums, statistic), strict=True))
    if over_all is None:
        del found["recall over all"]
    return found


def by_unit(resampling: Resampling, units: Sequence[int], amounts: Sequence[float] | None = None) -> Floats:
    """Return what of the things falls on each unit: how many, or the sum of their amounts."""
    return _summed(resampling, units, amounts)


def _summed(resampling: Resampling, units: ArrayLike, amounts: ArrayLike | None = None) -> Floats:
    places = np.asarray(units, np.int64)
    weights = None if amounts is None else np.asarray(amounts, np.float64)
    return np.bincount(places, weights=weights, minlength=resampling.n_units).astype(np.float64)


def _ratio(upper: Floats, lower: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = upper / lower
    return ratio
