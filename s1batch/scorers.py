"""Who scores the results of which job: `s1batch score` asks the scorer of the job's kind."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from s1batch.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from s1batch.api import Results


def _silent(line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions:
    """What a user chooses; None leaves it to the scorer.

    Attributes:
        tolerances: How far an answer may be off: seconds for picks, else the share of a true number.
        baselines: Names of what to compare with; empty for nothing.
        by: What else to tell apart, such as `station`.
        seed: Seed of the bootstrap.
        say: Receives lines for a person.
    """

    tolerances: tuple[float, ...] | None = None
    baselines: tuple[str, ...] | None = None
    by: str | None = None
    seed: int = 0
    say: Callable[[str], None] = _silent


class Report(Protocol):
    """What a scorer found."""

    def plain(self) -> dict[str, Any]:
        """Return it as plain data, as `metrics/score.json` holds it."""


class Scorer(Protocol):
    """Scores the results of one kind of job."""

    def score(self, results: Results, truth: str | Path | pl.DataFrame | None, options: ScoreOptions) -> Report:
        """Score results, and write the report to `metrics/score.json`.

        Raises:
            UsageError: The truth is missing or not understood, or an option means nothing here.
        """

    def lines(self, report: Any) -> Iterator[str]:
        """Yield the report for a terminal."""


@dataclass(frozen=True, slots=True)
class PickScorer:
    """Scores seismic picks: `s1batch.score`."""

    def score(self, results: Results, truth: str | Path | pl.DataFrame | None, options: ScoreOptions) -> Report:
        """Score picks against onsets, beside classical pickers."""
        from s1batch.score import BASELINES, TOLERANCES_S, score_results

        if truth is None:
            raise UsageError(f"{results.path}: picks are scored against truth; name it with --truth")
        if options.by not in (None, "station"):
            raise UsageError(f"--by {options.by}: picks are told apart by station only")
        return score_results(
            results,
            truth,
            tolerances_s=TOLERANCES_S if options.tolerances is None else options.tolerances,
            baselines=BASELINES if options.baselines is None else options.baselines,
            by_station=options.by == "station",
            seed=options.seed,
            say=options.say,
        )

    def lines(self, report: Any) -> Iterator[str]:
        """Yield the tables of a pick score."""
        from s1batch.score_report import score_lines

        return score_lines(report)


PICKS = "seismic-pick"

ANSWER_METRICS: Mapping[str, str] = {
    "sensor-anomaly": "s1batch.jobs.sensor_anomaly.score:AnomalyMetrics",
    "sensor-describe": "s1batch.jobs.sensor_describe.score:DescriptionMetrics",
    "paper-extract": "s1batch.jobs.paper_extract.score:ClaimMetrics",
    "image-describe": "s1batch.jobs.image_describe.score:ImageMetrics",
    "image-qa": "s1batch.jobs.image_qa.score:QaMetrics",
}
"""The metrics of the jobs that are scored answer by answer, as module:class; loaded when they are needed."""


def scorer_of(kind: str) -> Scorer:
    """Return the scorer of a kind of job.

    Raises:
        UsageError: Answers of this kind have no score.
    """
    source = ANSWER_METRICS.get(kind)
    if source is None:
        if kind != PICKS:
            scored = ", ".join((PICKS, *ANSWER_METRICS))
            raise UsageError(f"answers of a job {kind!r} have no score (jobs with one: {scored}); see the rows instead")
        return PickScorer()
    from s1batch.score_answers import AnswerScorer

    module, _, name = source.partition(":")
    return AnswerScorer(kind, getattr(importlib.import_module(module), name)())
