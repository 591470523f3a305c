"""How good descriptions of series are: the share of fields that are right, and how near the sentence is to references.

accuracy      rows whose field is the true one; of the rows whose truth says what it is
period_s      within a tolerance of the true period (10 % when left out); no period is right where there is none
description   the mean of token F1 and of ROUGE-L, the best of several references counting
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from s1batch.errors import UsageError
from s1batch.jobs.scoring.answer_scores import Answers, Measured, ScoreLine, ScoreTable, first_of
from s1batch.jobs.scoring.shares import mean_of
from s1batch.jobs.scoring.text_metrics import best, rouge_l, token_f1
from s1batch.jobs.scoring.truth_lines import row_keys

PERIOD_TOLERANCE = 0.1
WORDS = ("trend", "level")
TEXT = ("description", "caption", "reference")


@dataclass(frozen=True, slots=True)
class DescriptionMetrics:
    """The metrics of `sensor-describe`."""

    needs_truth: bool = True
    unit: str = "streams"
    valid_baselines: tuple[str, ...] = ()

    @property
    def columns(self) -> frozenset[str]:
        """The fields, and what says which row a line of truth is about."""
        return frozenset(
            [
                *("description", "trend", "periodic", "period_s", "level"),
                *("start", "variable", "row_index", "source_file", "chunk_key", "source"),
            ]
        )

    def labels(self, rows: pl.DataFrame) -> list[str]:
        """Return the stream of each row."""
        return first_of(rows, "source")

    def measure(self, answers: Answers) -> Measured:
        """Return the scores of the answered rows that the truth has."""
        truth = answers.truth
        if truth is None:
            raise UsageError("descriptions are scored against truth")
        fields = [name for name in (*WORDS, "periodic", "period_s") if truth.find(name) is not None]
        text = truth.find(*TEXT)
        if not fields and text is None:
            truth.need("what is true", *WORDS, "periodic", "period_s", *TEXT)
        rows = answers.rows
        answered = answers.answered()
        of_line = truth.rows_of(row_keys(rows))
        right: dict[str, dict[int, float]] = {name: {} for name in fields}
        references: dict[int, list[str]] = {}
        tolerance = PERIOD_TOLERANCE if answers.tolerance is None else answers.tolerance
        for number, places in enumerate(of_line):
            for place in (place for place in places if answered[place]):
                for name in fields:
                    if name in WORDS and (said := truth.value(number, name)):
                        right[name][place] = float(rows[name][place].casefold() == said.casefold())
                    elif name == "periodic" and (is_periodic := truth.boolean(number, name)) is not None:
                        right[name][place] = float(rows[name][place] == is_periodic)
                    elif name == "period_s" and truth.value(number, "periodic" if "periodic" in fields else name):
                        period = truth.number(number, name)
                        right[name][place] = _period_is_right(rows[name][place], period, tolerance)
                if text is not None and (reference := truth.value(number, text)):
                    references.setdefault(place, []).append(reference)
        lines = [_line(name, list(found), {"accuracy": list(found.values())}, answers) for name, found in right.items()]
        tables = []
        if lines:
            title = f"fields (period_s within {tolerance:.0%})" if "period_s" in fields else "fields"
            tables.append(ScoreTable(title=title, of="answered rows", lines=tuple(lines)))
        if text is not None:
            sentences = {place: rows["description"][place] for place in references}
            scores = {
                "token F1": [best(token_f1, sentences[place], references[place]) for place in references],
                "ROUGE-L": [best(rouge_l, sentences[place], references[place]) for place in references],
            }
            line = _line("description", list(references), scores, answers)
            tables.append(ScoreTable(title="description", of="answered rows", lines=(line,)))
        unmatched = sum(not places for places in of_line)
        notes = [f"truth: {unmatched:,} lines are about no row of the results"] if unmatched else []
        return Measured(tables=tuple(tables), notes=tuple(notes))


def _line(name: str, places: Sequence[int], scores: dict[str, list[float]], answers: Answers) -> ScoreLine:
    units = [int(answers.resampling.of_window[place]) for place in places]
    estimates = {metric: mean_of(answers.resampling, values, units) for metric, values in scores.items()}
    return ScoreLine(name=name, n=len(places), counts={}, estimates=estimates)


def _period_is_right(said: float | None, true: float | None, tolerance: float) -> float:
    if said is None or true is None:
        return float(said is None and true is None)
    return float(abs(said - true) <= tolerance * abs(true))
