"""Scores of claims on small cases computed by hand."""

from __future__ import annotations

import pytest

from s1batch.errors import UsageError
from s1batch.jobs.paper_extract.score import ClaimMetrics
from tests.jobs.paper_extract.test_job import FOLDED, INVENTED, RIGHT, TEXT, WRONG, check
from tests.jobs.science import as_rows, make_job, measure, passage, values

JOB = make_job("paper-extract")


def rows(*papers):
    lines = [
        {
            "chunk_key": f"k{number}",
            "source": paper,
            **check(JOB, passage(TEXT, paper_id=paper, char_start=100 * number), *claims).fields,
        }
        for number, (paper, claims) in enumerate(papers)
    ]
    return as_rows(JOB, lines)


def test_without_truth_quotes_and_numbers_are_counted():
    (table,) = measure(ClaimMetrics(), JOB, rows(("p", [RIGHT, FOLDED]), ("q", [INVENTED, WRONG])), None).tables
    (line,) = table.lines
    assert values(line.estimates) == {"exact": 0.5, "normalised": 0.25, "unverified": 0.25, "numbers ok": 0.75}
    assert (line.n, line.counts) == (4, {"passages": 2})
    # Papers are resampled: all from p, all from q, or one of each.
    assert (line.estimates["unverified"].low, line.estimates["unverified"].high) == (0.0, 0.5)


def test_values_are_matched_by_number_and_unit():
    said = rows(("p", [RIGHT, FOLDED]), ("q", [INVENTED]))
    truth = {"paper_id": ["p", "p", "q", "z"], "value": ["5", "1,234", "50", "1"], "unit": ["percent", "m", "", ""]}
    found = measure(ClaimMetrics(), JOB, said, truth)
    line = found.tables[1].lines[0]
    # 5 % fits, 1234 mm is not 1234 m, and 50 fits any unit.
    assert values(line.estimates) == {
        "precision": pytest.approx(2 / 3, abs=1e-6),
        "recall": pytest.approx(2 / 3, abs=1e-6),
        "F1": pytest.approx(2 / 3, abs=1e-6),
    }
    assert (line.n, line.counts) == (3, {"said": 3, "pairs": 2, "papers": 2})
    assert found.notes == ("truth: 1 lines are of papers without an answered passage; not scored",)


def test_claims_are_matched_after_folding_and_papers_without_truth_are_left_out():
    said = rows(("p", [RIGHT, FOLDED]), ("p", [RIGHT]), ("q", [INVENTED]))
    truth = {"paper": ["p", "p", "p"], "claim": ["the sea rose by 5 %", "It fell by 1234 mm", "It was so."]}
    line = measure(ClaimMetrics(), JOB, said, truth).tables[1].lines[0]
    assert values(line.estimates) == {"precision": 1.0, "recall": pytest.approx(2 / 3, abs=1e-6), "F1": 0.8}


def test_a_true_value_is_found_once():
    twice = rows(("p", [RIGHT]), ("p", [{**RIGHT, "claim": "Again 5 %."}]))
    line = measure(ClaimMetrics(), JOB, twice, {"paper": ["p"], "value": [5.0]}).tables[1].lines[0]
    assert (values(line.estimates)["precision"], line.counts["said"]) == (0.5, 2)


def test_a_truth_without_claims_is_none():
    with pytest.raises(UsageError, match=r"no column says what is claimed .* Columns found: paper, stance"):
        measure(ClaimMetrics(), JOB, rows(("p", [RIGHT])), {"paper": ["p"], "stance": ["for"]})
