"""How good claims are: what their quotes and numbers are worth, and, with truth, which of the true claims they are.

Without truth, of all claims of all answered passages:

    exact, normalised, unverified    share of the claims whose quote has this status
    numbers ok                       share whose numbers all stand in their quotes

With truth (a paper, and a claim or a value with its unit), of the papers that it has, on claims merged over overlapping
passages: a claim said and a true one are a pair when they have the same value (and the same unit, where the truth names
one), or, where the truth gives claims, when they are the same text after folding. Each is in one pair at most.

    precision = pairs / claims said    recall = pairs / true claims    F1 = 2 pairs / (said + true)

Where the truth gives values, only claims with a value are said.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from s1batch.jobs.paper_extract.merge import MERGE_COLUMNS, said
from s1batch.jobs.paper_extract.numbers import known_unit
from s1batch.jobs.scoring.answer_scores import Answers, Measured, ScoreLine, ScoreTable, first_of
from s1batch.jobs.scoring.shares import by_unit, mean_of, precision_recall
from s1batch.jobs.scoring.truth_lines import KEYS, TruthLines

Key = tuple[float | str, str]
"""What claims are compared by: a value and its unit, or a text and nothing."""

STATUSES = ("exact", "normalised", "unverified")


@dataclass(frozen=True, slots=True)
class ClaimMetrics:
    """The metrics of `paper-extract`."""

    needs_truth: bool = False
    unit: str = "papers"
    valid_baselines: tuple[str, ...] = ()

    @property
    def columns(self) -> frozenset[str]:
        """What merging looks at, and the paper where a row has no answer."""
        return MERGE_COLUMNS | {"paper_id", "source_file"}

    def labels(self, rows: pl.DataFrame) -> list[str]:
        """Return the paper of each row."""
        return first_of(rows, "paper", "paper_id", "source")

    def measure(self, answers: Answers) -> Measured:
        """Return what the quotes are worth, and how many true claims were found."""
        tables = [_quotes(answers)]
        notes: list[str] = []
        if answers.truth is not None:
            table, missed = _claims(answers, answers.truth)
            tables.append(table)
            if missed:
                notes.append(f"truth: {missed:,} lines are of papers without an answered passage; not scored")
        return Measured(tables=tuple(tables), notes=tuple(notes))


def _quotes(answers: Answers) -> ScoreTable:
    resampling = answers.resampling
    units: list[int] = []
    claims: list[Mapping[str, Any]] = []
    for place, found in enumerate(answers.rows["claims"].to_list()):
        units += [int(resampling.of_window[place])] * len(found or ())
        claims += found or ()
    estimates = {
        status: mean_of(resampling, [claim["quote_status"] == status for claim in claims], units) for status in STATUSES
    }
    estimates["numbers ok"] = mean_of(resampling, [claim["numbers_ok"] for claim in claims], units)
    counts = {"passages": int(answers.answered().sum())}
    line = ScoreLine(name=answers.name, n=len(claims), counts=counts, estimates=estimates)
    return ScoreTable(title="quotes and numbers, of all claims of answered passages", of="claims", lines=(line,))


def _claims(answers: Answers, truth: TruthLines) -> tuple[ScoreTable, int]:
    """Return the table of true claims, and how many lines of truth are of other papers."""
    resampling = answers.resampling
    paper = truth.need("which paper a claim is of", *KEYS["paper"])
    by_value = truth.find("value") is not None
    text = None if by_value else truth.need("what is claimed", "claim", "text", "value")
    unit = truth.find("unit")
    # The first row of a paper has its unit.
    unit_of = {
        name: int(number)
        for name, number in reversed(list(zip(answers.rows["paper"].to_list(), resampling.of_window, strict=True)))
        if name is not None
    }
    true: dict[str, Counter[Key]] = defaultdict(Counter)
    missed = 0
    for number in range(len(truth.lines)):
        name = truth.value(number, paper)
        if name not in unit_of:
            missed += 1
        elif by_value:
            value = truth.number(number, "value")
            if value is not None:
                true[name][(value, known_unit(truth.value(number, unit)))] += 1
        elif claim := truth.value(number, text):
            true[name][(said(claim), "")] += 1
    mine = _said(answers, by_value)
    rights, saids, wanted, units = [], [], [], []
    for name, keys in true.items():
        found = mine.get(name, Counter())
        rights.append(_paired(keys, found))
        saids.append(found.total())
        wanted.append(keys.total())
        units.append(unit_of[name])
    sums = {key: by_unit(resampling, units, values) for key, values in (("r", rights), ("s", saids), ("t", wanted))}
    estimates = precision_recall(resampling, (sums["r"], sums["s"]), (sums["r"], sums["t"]))
    counts = {"said": sum(saids), "pairs": sum(rights), "papers": len(true)}
    line = ScoreLine(name=answers.name, n=sum(wanted), counts=counts, estimates=estimates)
    title = "values of the truth" if by_value else "claims of the truth"
    return ScoreTable(title=f"{title}, of its papers", of="true claims", lines=(line,)), missed


def _said(answers: Answers, by_value: bool) -> dict[str, Counter[Key]]:
    """Return the merged claims of each paper, by what they are compared by."""
    merged = answers.job.merge(answers.rows)
    found: dict[str, Counter[Key]] = defaultdict(Counter)
    for claim in () if merged is None else merged.iter_rows(named=True):
        if not by_value:
            found[claim["paper"]][(said(claim["claim"]), "")] += 1
        elif claim["value"] is not None:
            found[claim["paper"]][(claim["value"], known_unit(claim["unit"] or ""))] += 1
    return found


def _paired(true: Counter[Key], found: Counter[Key]) -> int:
    """Return how many pairs have the same value, and the same unit where the truth names one."""
    pairs = (true & found).total()
    left = found - true
    for key, count in (true - found).items():
        value, unit = key
        if unit:
            continue
        for other in list(left):
            taken = min(count, left[other]) if other[0] == value else 0
            left[other] -= taken
            count -= taken
            pairs += taken
    return pairs
