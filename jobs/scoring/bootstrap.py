"""95 % intervals by resampling stations (papers, images, streams); windows (rows), where there is only one of them.

Picks of one station share its site and its noise, so stations, not picks, are what another sample would replace. The
percentile method of Efron: the 2.5th and 97.5th percentile of the statistic over the resamples; resamples in which it
is not defined (0 / 0) are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s1batch.jobs.scoring.matching import Integers, Points
from s1batch.jobs.scoring.windows import Windows

REPEATS = 1000
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its interval; each None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resampling:
    """Which units are drawn, and how.

    Attributes:
        unit: What is drawn.
        n_units: How many there are.
        of_window: The unit of each window.
        seed: Seed of the draws; every iteration over `weights` repeats the same ones, so methods are compared on
            the same resamples.
        repeats: How many resamples.
    """

    unit: str
    n_units: int
    of_window: Integers
    seed: int
    repeats: int = REPEATS

    @classmethod
    def over(cls, windows: Windows, seed: int, repeats: int = REPEATS) -> Resampling:
        """Resample the stations of these windows, or the windows where there is one station."""
        stations, of_window = np.unique(windows.station[windows.group], return_inverse=True)
        if len(stations) > 1:
            return cls(unit="stations", n_units=len(stations), of_window=of_window, seed=seed, repeats=repeats)
        n_windows = len(windows)
        return cls(unit="windows", n_units=n_windows, of_window=np.arange(n_windows), seed=seed, repeats=repeats)

    @classmethod
    def over_labels(
        cls, labels: Sequence[str], names: tuple[str, str], seed: int, repeats: int = REPEATS
    ) -> Resampling:
        """Resample what rows have in common, or the rows where they all have it in common.

        Args:
            labels: What each row belongs to, such as its paper.
            names: What labels and rows are called.
            seed: Seed of the draws.
            repeats: How many resamples.
        """
        found, of_row = np.unique(np.array(labels, dtype=str), return_inverse=True)
        if len(found) > 1:
            return cls(unit=names[0], n_units=len(found), of_window=of_row, seed=seed, repeats=repeats)
        return cls(unit=names[1], n_units=len(labels), of_window=np.arange(len(labels)), seed=seed, repeats=repeats)

    def units_of(self, windows: Windows, points: Points) -> Integers:
        """Return the unit of each point: that of the window of its group that began last before it."""
        return self.of_window[windows.number_of(points)] if len(points) else np.empty(0, np.int64)

    def weights(self) -> Iterator[Integers]:
        """Yield how often each unit was drawn, for each resample; nothing when fewer than two units exist."""
        if self.n_units < 2:
            return
        random = np.random.default_rng(self.seed)
        for _ in range(self.repeats):
            yield np.bincount(random.integers(self.n_units, size=self.n_units), minlength=self.n_units)

    def count(self, units: Integers) -> Integers:
        """Return how many of the things with these units fall on each unit."""
        return np.bincount(units, minlength=self.n_units)

    def of_totals(self, counts_UK: Integers | Floats, statistic: Callable[[Floats], Floats]) -> list[Estimate]:
        """Estimate statistics of sums over units.

        Args:
            counts_UK: K counts (or sums) of each unit.
            statistic: From sums, shape (..., K), to statistics, shape (..., S); NaN where one is not defined.

        Returns:
            S estimates.
        """
        counts = counts_UK.astype(np.float64)
        values = statistic(counts.sum(axis=0))
        totals = [weights @ counts for weights in self.weights()]
        replicates = statistic(np.array(totals)) if totals else np.empty((0, len(values)))
        return [_estimate(value, column) for value, column in zip(values, replicates.T, strict=True)]

    def of_values(
        self, values: Floats, units: Integers, statistic: Callable[[Floats, Integers], Floats]
    ) -> list[Estimate]:
        """Estimate statistics of a sample whose values belong to units.

        Args:
            values: The sample.
            units: The unit of each value.
            statistic: From sorted values and how often each counts, to S statistics.
        """
        order = np.argsort(values, kind="stable")
        values, units = values[order], units[order]
        whole = statistic(values, np.ones(len(values), np.int64))
        drawn = [statistic(values, weights[units]) for weights in self.weights()]
        replicates = np.array(drawn) if drawn else np.empty((0, len(whole)))
        return [_estimate(value, column) for value, column in zip(whole, replicates.T, strict=True)]


def _estimate(value: float, replicates: Floats) -> Estimate:
    if not np.isfinite(value):
        return Estimate(value=None)
    defined = replicates[np.isfinite(replicates)]
    if len(defined) == 0:
        return Estimate(value=float(value))
    low, high = np.quantile(defined, [0.025, 0.975])
    return Estimate(value=float(value), low=float(low), high=float(high))
