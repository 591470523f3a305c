"""The scores of one way of picking, beside the truth.

An onset counts when it lies in an answered window of its instrument ("over answered"), or in any window ("over all":
a window that failed, was refused or was not understood is a miss). Picks exist in answered windows only.

    precision = hits / picks    recall = hits / onsets    F1 = 2 hits / (picks + onsets)

Undefined quotients (0 / 0) are None. Residuals are pick minus onset, of the pairs at the largest tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from s1batch.jobs.scoring.bootstrap import Estimate, Floats, Resampling
from s1batch.jobs.scoring.matching import Integers, Matches, Points, match
from s1batch.jobs.scoring.phases import PHASES, Phase
from s1batch.jobs.scoring.windows import Mask, Windows

HISTOGRAM_BINS = 20
NO_ESTIMATE = Estimate(value=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToleranceScore:
    """How many picks are right within a tolerance.

    Attributes:
        tolerance_s: Largest distance of a pair, in seconds, inclusive.
        hits: Pairs over answered windows.
        precision: Share of the picks that are hits.
        recall: Share of the onsets in answered windows that were hit.
        recall_all: Share of the onsets in all windows that were hit.
        f1: Harmonic mean of `precision` and `recall`.
    """

    tolerance_s: float
    hits: int
    precision: Estimate
    recall: Estimate
    recall_all: Estimate
    f1: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """Pick minus onset in seconds, of the pairs at the largest tolerance.

    Attributes:
        n: How many pairs.
        median_s: Their median.
        mean_s: Their mean.
        std_s: Their standard deviation (divided by n).
        mae_s: Mean of their absolute values.
        edges_s: Edges of the histogram's bins; the last bin includes its right edge.
        counts: Pairs in each bin.
    """

    n: int
    median_s: Estimate
    mean_s: Estimate
    std_s: Estimate
    mae_s: Estimate
    edges_s: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WithinSecond:
    """Whether the part of a pick behind the full second, counted from its window's start, follows the truth's.

    A picker that names the right second and a constant fraction has good scores at coarse tolerances and no
    correlation here.

    Attributes:
        n: Windows whose pick has an onset within the largest tolerance.
        correlation: Circular correlation of the two fractions (Fisher and Lee 1983, Biometrika 70, 327-332), -1 to 1;
            None where one of them does not vary.
    """

    n: int
    correlation: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseScore:
    """The scores of one phase.

    Attributes:
        n_picks: Picks in answered windows.
        n_onsets: Onsets in answered windows.
        n_onsets_all: Onsets in all windows.
        tolerances: One score for each tolerance.
        residuals: How far off the matched picks are.
        within_second: Whether fractions of seconds were read.
    """

    n_picks: int
    n_onsets: int
    n_onsets_all: int
    tolerances: tuple[ToleranceScore, ...]
    residuals: Residuals
    within_second: WithinSecond


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """Windows with an onset, and windows that were said to hold an earthquake.

    Attributes:
        n_windows: Answered windows.
        n_windows_all: All windows.
        n_positive: Answered windows that hold a P or an S of the truth.
        n_positive_all: The same of all windows.
        n_said: Answered windows that were said to hold an earthquake.
        hits: Answered windows that hold an onset and were said to.
        precision: Share of what was said.
        recall: Share of the answered windows with an onset.
        recall_all: Share of all windows with an onset.
        f1: Harmonic mean of `precision` and `recall`.
    """

    n_windows: int
    n_windows_all: int
    n_positive: int
    n_positive_all: int
    n_said: int
    hits: int
    precision: Estimate
    recall: Estimate
    recall_all: Estimate
    f1: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodScore:
    """All scores of one way of picking."""

    name: str
    phases: dict[Phase, PhaseScore]
    detection: Detection


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """What one way of picking says.

    Attributes:
        name: What tables call it.
        contain: For each window, whether it was said to hold an earthquake.
        picks: Picks of each phase, one for each onset (merged over overlapping windows), in answered windows.
        picks_all: The same in all windows; a baseline may answer where the scored results have no answer.
        window_ns: For each phase the time that each window names, and where it names one.
    """

    name: str
    contain: Mask
    picks: Mapping[Phase, Points]
    picks_all: Mapping[Phase, Points]
    window_ns: Mapping[Phase, tuple[Integers, Mask]]


def score_method(
    windows: Windows,
    onsets: Mapping[Phase, Points],
    said: Predictions,
    tolerances_s: Sequence[float],
    resampling: Resampling,
) -> MethodScore:
    """Score predictions.

    Args:
        windows: The windows.
        onsets: The truth; what lies in no window does not count.
        said: The predictions.
        tolerances_s: In seconds, ascending.
        resampling: Where intervals come from.
    """
    phases = {phase: _score_phase(windows, onsets[phase], said, phase, tolerances_s, resampling) for phase in PHASES}
    return MethodScore(name=said.name, phases=phases, detection=_detection(windows, onsets, said, resampling))


def _score_phase(
    windows: Windows,
    onsets: Points,
    said: Predictions,
    phase: Phase,
    tolerances_s: Sequence[float],
    resampling: Resampling,
) -> PhaseScore:
    picks, picks_all = said.picks[phase], said.picks_all[phase]
    asked = onsets.only(windows.covers(onsets, windows.answered))
    everywhere = onsets.only(windows.covers(onsets))
    pick_unit, asked_unit, everywhere_unit = (
        resampling.units_of(windows, points) for points in (picks, asked, everywhere)
    )
    columns: list[Integers] = []
    pairs = Matches(pick=np.empty(0, np.int64), onset=np.empty(0, np.int64))
    for tolerance_s in tolerances_s:
        tolerance_ns = round(tolerance_s * 1e9)
        pairs = match(picks, asked, tolerance_ns)
        pairs_all = match(picks_all, everywhere, tolerance_ns)
        # A pick belongs to the unit of the onset that it hit, so that no unit has more hits than picks.
        unit = pick_unit.copy()
        unit[pairs.pick] = asked_unit[pairs.onset]
        columns += [
            resampling.count(asked_unit[pairs.onset]),
            resampling.count(unit),
            resampling.count(asked_unit),
            resampling.count(everywhere_unit[pairs_all.onset]),
            resampling.count(everywhere_unit),
        ]
    estimates = resampling.of_totals(np.stack(columns, axis=1), _quotients)
    scores = []
    for number, tolerance_s in enumerate(tolerances_s):
        precision, recall, recall_all, f1 = estimates[4 * number : 4 * number + 4]
        hits = int(columns[5 * number].sum())
        scores.append(
            ToleranceScore(
                tolerance_s=tolerance_s, hits=hits, precision=precision, recall=recall, recall_all=recall_all, f1=f1
            )
        )
    residuals_s = (picks.time_ns[pairs.pick] - asked.time_ns[pairs.onset]) / 1e9
    return PhaseScore(
        n_picks=len(picks),
        n_onsets=len(asked),
        n_onsets_all=len(everywhere),
        tolerances=tuple(scores),
        residuals=_residuals(residuals_s, asked_unit[pairs.onset], tolerances_s[-1], resampling),
        within_second=_within_second(windows, asked, *said.window_ns[phase], tolerances_s[-1]),
    )


def _detection(
    windows: Windows, onsets: Mapping[Phase, Points], said: Predictions, resampling: Resampling
) -> Detection:
    holds = windows.holds(onsets["P"]) | windows.holds(onsets["S"])
    claims = said.contain
    masks = (
        holds & claims & windows.answered,
        claims & windows.answered,
        holds & windows.answered,
        holds & claims,
        holds,
    )
    columns = [resampling.count(resampling.of_window[mask]) for mask in masks]
    precision, recall, recall_all, f1 = resampling.of_totals(np.stack(columns, axis=1), _quotients)
    hits, n_said, n_positive, _, n_positive_all = (int(mask.sum()) for mask in masks)
    return Detection(
        n_windows=int(windows.answered.sum()),
        n_windows_all=len(windows),
        n_positive=n_positive,
        n_positive_all=n_positive_all,
        n_said=n_said,
        hits=hits,
        precision=precision,
        recall=recall,
        recall_all=recall_all,
        f1=f1,
    )


def _quotients(totals: Floats) -> Floats:
    """From (hits, said, true, hits over all, true over all), repeated, to (precision, recall, recall over all, F1)."""
    hits, said, true, hits_all, true_all = (totals[..., start::5] for start in range(5))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = (hits / said, hits / true, hits_all / true_all, 2 * hits / (said + true))
    stacked = np.stack(ratios, axis=-1)
    return stacked.reshape(*stacked.shape[:-2], -1)


def _residuals(residuals_s: Floats, units: Integers, largest_s: float, resampling: Resampling) -> Residuals:
    counts, edges = np.histogram(residuals_s, bins=HISTOGRAM_BINS, range=(-largest_s, largest_s))
    estimates = [NO_ESTIMATE] * 4
    if len(residuals_s):
        estimates = resampling.of_values(residuals_s, units, _moments)
    return Residuals(
        n=len(residuals_s),
        median_s=estimates[0],
        mean_s=estimates[1],
        std_s=estimates[2],
        mae_s=estimates[3],
        edges_s=tuple(float(edge) for edge in edges),
        counts=tuple(int(count) for count in counts),
    )


def _moments(values: Floats, weights: Integers) -> Floats:
    """Return median, mean, standard deviation and mean absolute value of sorted values, each counted so often."""
    behind = np.cumsum(weights)
    total = int(behind[-1])
    if total == 0:
        return np.full(4, np.nan)
    middle = np.searchsorted(behind, [(total - 1) // 2, total // 2], side="right")
    often = weights.astype(np.float64)  # a product with integers would not be done by BLAS
    mean = float(values @ often) / total
    variance = float((values - mean) ** 2 @ often) / total
    return np.array([values[middle].mean(), mean, np.sqrt(variance), float(np.abs(values) @ often) / total])


def _within_second(windows: Windows, onsets: Points, times_ns: Integers, known: Mask, largest_s: float) -> WithinSecond:
    true_ns, there = windows.nearest(onsets, times_ns, known & windows.answered)
    near = there & (np.abs(times_ns - true_ns) <= round(largest_s * 1e9))
    angles = [((instants[near] - windows.start_ns[near]) % 10**9) / 1e9 * 2 * np.pi for instants in (times_ns, true_ns)]
    return WithinSecond(n=int(near.sum()), correlation=circular_correlation(*angles))


def circular_correlation(one: Floats, other: Floats) -> float | None:
    """Return the circular correlation of Fisher and Lee of two samples of angles; None where one does not vary.

    The sum over pairs i < j of sin(a_i - a_j) sin(b_i - b_j), divided by the root of the product of the sums of the
    squared sines; computed in linear time (Fisher 1993, Statistical Analysis of Circular Data, formula 6.36).
    """
    n = len(one)
    if n < 2:
        return None
    above = (np.cos(one) @ np.cos(other)) * (np.sin(one) @ np.sin(other))
    above -= (np.cos(one) @ np.sin(other)) * (np.sin(one) @ np.cos(other))
    spreads = [n**2 - np.cos(2 * angle).sum() ** 2 - np.sin(2 * angle).sum() ** 2 for angle in (one, other)]
    if min(spreads) <= 1e-9 * n**2:
        return None
    return float(np.clip(4 * above / np.sqrt(spreads[0] * spreads[1]), -1, 1))
