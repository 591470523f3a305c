"""Scores of each station by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from s1batch.jobs.scoring.matching import Points, match
from s1batch.jobs.scoring.metrics import Predictions
from s1batch.jobs.scoring.phases import PHASES, Phase
from s1batch.jobs.scoring.windows import Windows


@dataclass(frozen=True, slots=True, kw_only=True)
class StationPhase:
    """One phase at one station.

    Attributes:
        n_picks: Picks in answered windows.
        n_onsets: Onsets in answered windows.
        hits: Pairs at each tolerance.
        f1: 2 hits / (picks + onsets) at each tolerance; None where there are neither.
    """

    n_picks: int
    n_onsets: int
    hits: tuple[int, ...]
    f1: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StationScore:
    """One station.

    Attributes:
        station: NET.STA.
        n_windows: Its windows.
        n_answered: Those with an answer.
        detection_hits: Answered windows that hold an onset and were said to hold an earthquake.
        detection_false: Answered windows that hold none and were said to.
        detection_missed: Answered windows that hold an onset and were not.
        phases: P and S.
    """

    station: str
    n_windows: int
    n_answered: int
    detection_hits: int
    detection_false: int
    detection_missed: int
    phases: dict[Phase, StationPhase]


def score_stations(
    windows: Windows,
    names: Sequence[str],
    onsets: Mapping[Phase, Points],
    said: Predictions,
    tolerances_s: Sequence[float],
) -> tuple[StationScore, ...]:
    """Return the scores of each station, in the order of `names`."""
    count = len(names)
    at = windows.station[windows.group]
    holds = windows.holds(onsets["P"]) | windows.holds(onsets["S"])
    tallies = [
        np.bincount(at[mask], minlength=count)
        for mask in (
            np.ones(len(windows), bool),
            windows.answered,
            windows.answered & holds & said.contain,
            windows.answered & ~holds & said.contain,
            windows.answered & holds & ~said.contain,
        )
    ]
    phases = {phase: _phase(windows, count, onsets[phase], said.picks[phase], tolerances_s) for phase in PHASES}
    return tuple(
        StationScore(
            station=name,
            n_windows=int(tallies[0][number]),
            n_answered=int(tallies[1][number]),
            detection_hits=int(tallies[2][number]),
            detection_false=int(tallies[3][number]),
            detection_missed=int(tallies[4][number]),
            phases={phase: phases[phase][number] for phase in PHASES},
        )
        for number, name in enumerate(names)
    )


def _phase(
    windows: Windows, count: int, onsets: Points, picks: Points, tolerances_s: Sequence[float]
) -> list[StationPhase]:
    asked = onsets.only(windows.covers(onsets, windows.answered))
    n_picks, n_onsets = (np.bincount(windows.station[points.group], minlength=count) for points in (picks, asked))
    hits = [
        np.bincount(windows.station[asked.group[match(picks, asked, round(tolerance_s * 1e9)).onset]], minlength=count)
        for tolerance_s in tolerances_s
    ]
    found = []
    for number in range(count):
        both = int(n_picks[number] + n_onsets[number])
        here = tuple(int(column[number]) for column in hits)
        found.append(
            StationPhase(
                n_picks=int(n_picks[number]),
                n_onsets=int(n_onsets[number]),
                hits=here,
                f1=tuple(2 * value / both if both else None for value in here),
            )
        )
    return found
