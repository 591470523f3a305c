"""How good answers to questions about images are.

    exact       equal to the reference, letter by letter
    match       equal after SQuAD's normalisation; booleans and choices are compared so too
    numeric     within a tolerance of the reference number (5 % when left out, ChartQA's relaxed accuracy, Masry et al.
                2022, ACL Findings); where the reference is no number, a normalised match
    ANLS        normalised Levenshtein similarity with threshold 0.5 (Biten et al. 2019, ICCV); of texts

Of several references (lines about one row) the best counts. Questions are told apart by the truth's column
`question_type` (or `type`), where it has one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl

from s1batch.errors import UsageError
from s1batch.jobs.scoring.answer_scores import Answers, Measured, ScoreLine, ScoreTable, image_labels
from s1batch.jobs.scoring.shares import mean_of
from s1batch.jobs.scoring.text_metrics import anls, best, exact_match, normalised_match
from s1batch.jobs.scoring.truth_lines import row_keys

TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class QaMetrics:
    """The metrics of `image-qa`."""

    needs_truth: bool = True
    unit: str = "images"
    valid_baselines: tuple[str, ...] = ()

    @property
    def columns(self) -> frozenset[str]:
        """The answer, and what says which row a line of truth is about."""
        return frozenset(["image", "question", "answer", "page", "row_index", "source_file", "chunk_key", "source"])

    def labels(self, rows: pl.DataFrame) -> list[str]:
        """Return the image of each row."""
        return image_labels(rows)

    def measure(self, answers: Answers) -> Measured:
        """Return the scores of the answered rows that the truth has."""
        truth = answers.truth
        if truth is None:
            raise UsageError("answers are scored against truth")
        true = truth.need("what is right", "answer", "truth", "label", "reference")
        kind = truth.find("question_type", "type")
        answered = answers.answered()
        of_line = truth.rows_of(row_keys(answers.rows))
        references: dict[int, list[str]] = {}
        kinds: dict[int, str] = {}
        for number, places in enumerate(of_line):
            reference = truth.value(number, true)
            for place in places if reference else ():
                references.setdefault(place, []).append(reference)
                kinds[place] = truth.value(number, kind)
        dtype = answers.rows["answer"].dtype
        metrics = _metrics(dtype, TOLERANCE if answers.tolerance is None else answers.tolerance)
        said = [_text(value) for value in answers.rows["answer"].to_list()]
        scored = [place for place in sorted(references) if answered[place]]
        scores = {
            name: {place: best(metric, said[place], references[place]) for place in scored}
            for name, metric in metrics.items()
        }
        lines = [_line(answers, "all", scored, len(references), scores)]
        for word in sorted(set(kinds.values()) - {""}):
            of_kind = [place for place in scored if kinds[place] == word]
            n_all = sum(found == word for found in kinds.values())
            lines.append(_line(answers, word, of_kind, n_all, scores))
        unmatched = sum(not places for places in of_line)
        notes = [f"truth: {unmatched:,} lines are about no row of the results"] if unmatched else []
        table = ScoreTable(title="answers", of="answered questions", lines=tuple(lines))
        return Measured(tables=(table,), notes=tuple(notes))


def _line(
    answers: Answers, name: str, places: Sequence[int], n_all: int, scores: dict[str, dict[int, float]]
) -> ScoreLine:
    units = [int(answers.resampling.of_window[place]) for place in places]
    estimates = {
        metric: mean_of(answers.resampling, [found[place] for place in places], units)
        for metric, found in scores.items()
    }
    return ScoreLine(name=name, n=len(places), counts={"questions": n_all}, estimates=estimates)


def _metrics(dtype: pl.DataType, tolerance: float) -> dict[str, Callable[[str, str], float]]:
    found: dict[str, Callable[[str, str], float]] = {"exact": exact_match, "match": normalised_match}
    if dtype.is_numeric():
        return {
            "exact": partial(within, tolerance=0.0),
            _within(tolerance): partial(within, tolerance=tolerance),
        }
    if dtype == pl.Boolean:
        return {"match": _same_truth}
    found[_within(tolerance)] = partial(within, tolerance=tolerance)
    found["ANLS"] = anls
    return found


def _within(tolerance: float) -> str:
    return f"within {100 * tolerance:g} %"


def within(text: str, reference: str, tolerance: float) -> float:
    """Return 1 where two numbers differ by at most a share of the reference; texts match normalised, else 0."""
    one, other = number_in(text), number_in(reference)
    if one is None or other is None:
        return normalised_match(text, reference)
    return float(abs(one - other) <= tolerance * abs(other))


def number_in(text: str) -> float | None:
    """Return the number that a text is (1,234.5 and 12 % too); None where it is none."""
    plain = text.strip().removesuffix("%").strip().replace("−", "-")
    if "," in plain and all(len(part.split(".")[0]) == 3 for part in plain.split(",")[1:]):
        plain = plain.replace(",", "")
    try:
        found = float(plain)
    except ValueError:
        return None
    return found if abs(found) < float("inf") else None


def _same_truth(text: str, reference: str) -> float:
    words = {"true": "true", "yes": "true", "1": "true", "false": "false", "no": "false", "0": "false"}
    return float(text == words.get(reference.strip().lower(), reference))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else f"{value:g}" if isinstance(value, float) and value.is_integer() else str(value)
