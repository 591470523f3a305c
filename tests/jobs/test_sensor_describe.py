"""Descriptions of series are one sentence and typed fields, which are scored one by one."""

from __future__ import annotations

import pytest

from s1batch.errors import UsageError
from s1batch.jobs.sensor_describe.score import DescriptionMetrics
from tests.jobs.science import SECOND, SETTINGS, answered, as_rows, make_job, measure, values, window

JOB = make_job("sensor-describe")


def said(**fields):
    return {
        "description": "It is flat.",
        "trend": "flat",
        "periodic": False,
        "period_s": None,
        "level": "low",
        **fields,
    }


def test_the_answer_is_typed():
    answer = answered(JOB, window(), said(periodic=True, period_s=3))
    assert answer.fields == {**said(periodic=True), "period_s": 3.0}
    assert answered(JOB, window(), said(trend="upwards")).reason == "not_in_schema"
    assert answered(JOB, window(), said(periodic=True, period_s=-1)).reason == "out_of_range"


def test_a_period_of_what_is_not_periodic_is_dropped():
    answer = answered(JOB, window(), said(period_s=3))
    assert (answer.outcome, answer.fields["period_s"], answer.detail) == (
        "ok",
        None,
        "period_s 3 dropped: periodic is false",
    )


def test_words_for_levels_and_further_fields_are_the_users():
    job = make_job("sensor-describe", levels=["quiet", "loud"], fields={"rain": {"type": "boolean"}})
    answer = answered(job, window(), said(level="loud", rain=True))
    assert (answer.fields["level"], answer.fields["rain"]) == ("loud", True)
    assert "Unit: K." in job.prepare(window(), SETTINGS).text


class TestScore:
    def scored(self, lines, truth, **options):
        rows = as_rows(
            JOB,
            [
                {"chunk_key": f"k{n}", "source": "abc"[n], "start": n * SECOND, "end": (n + 1) * SECOND, **line}
                for n, line in enumerate(lines)
            ],
        )
        found = measure(DescriptionMetrics(), JOB, rows, truth, **options)
        return {line.name: line for table in found.tables for line in table.lines}

    def test_fields_and_sentences(self):
        lines = [
            said(description="It rises slowly", trend="rising", periodic=True, period_s=11.0),
            said(description="flat line"),
            said(trend="mixed"),
        ]
        truth = {
            "source": ["a", "b", "c"],
            "start": ["1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z"],
            "trend": ["Rising", "falling", ""],
            "periodic": ["yes", "no", "true"],
            "period_s": ["10", "", "5"],
            "description": ["it rises", "a flat line", ""],
        }
        scores = self.scored(lines, truth)
        assert {name: (line.n, values(line.estimates).get("accuracy")) for name, line in scores.items()} == {
            "trend": (2, 0.5),
            "periodic": (3, pytest.approx(2 / 3, abs=1e-6)),
            "period_s": (3, pytest.approx(2 / 3, abs=1e-6)),
            "description": (2, None),
        }
        # token F1: 2 * 2 / 5 and 1. ROUGE-L: 2 * 2 / 5 and 2 * 2 / 5.
        assert values(scores["description"].estimates) == {"token F1": 0.9, "ROUGE-L": 0.8}
        assert values(self.scored(lines, truth, tolerance=0.05)["period_s"].estimates)["accuracy"] == pytest.approx(
            1 / 3, abs=1e-6
        )

    def test_a_truth_that_says_nothing_is_none(self):
        with pytest.raises(UsageError, match="no column says what is true"):
            self.scored([said()], {"source": ["a"], "colour": ["red"]})

    def test_a_truth_must_say_which_rows_it_is_about(self):
        with pytest.raises(UsageError, match="no column says which rows a line is about"):
            self.scored([said()], {"trend": ["flat"]})
