"""Shares, precision and recall from sums over units, with intervals that resample the units."""

from __future__ import annotations

import numpy as np
import pytest

from s1batch.jobs.scoring.bootstrap import Resampling
from s1batch.jobs.scoring.shares import by_unit, mean_of, precision_recall
from tests.jobs.science import values


def resampling(*labels):
    return Resampling.over_labels(labels, ("papers", "rows"), seed=0, repeats=200)


def test_what_rows_have_in_common_is_resampled_else_the_rows():
    several, one = resampling("a", "b", "a"), resampling("a", "a", "a")
    assert (several.unit, several.n_units, several.of_window.tolist()) == ("papers", 2, [0, 1, 0])
    assert (one.unit, one.n_units) == ("rows", 3)


def test_a_mean_and_its_interval():
    drawn = resampling("a", "b", "a")
    estimate = mean_of(drawn, [1.0, 0.0, 1.0], drawn.of_window)
    assert estimate.value == pytest.approx(2 / 3)
    # Only a (1), only b (0), or both (2 / 3).
    assert (estimate.low, estimate.high) == (0.0, 1.0)
    assert mean_of(drawn, [], []).value is None


def test_precision_recall_and_their_harmonic_mean():
    drawn = resampling("a", "b")
    said, right = by_unit(drawn, [0, 0, 1, 1]), by_unit(drawn, [0])
    true, found = by_unit(drawn, [0, 1]), by_unit(drawn, [0])
    assert values(precision_recall(drawn, (right, said), (found, true))) == {
        "precision": 0.25,
        "recall": 0.5,
        "F1": pytest.approx(1 / 3, abs=1e-6),
    }
    everything = by_unit(drawn, [0, 1, 1, 1])
    assert precision_recall(drawn, (right, said), (found, true), (found, everything))["recall over all"].value == 0.25


@pytest.mark.parametrize(
    ("said", "true", "expected"),
    [
        (0, 0, (None, None, None)),
        (2, 0, (0.0, None, 0.0)),
        (0, 2, (None, 0.0, 0.0)),
    ],
)
def test_what_is_not_there_defines_nothing(said, true, expected):
    drawn = resampling("a", "b")
    nothing = np.zeros(2)
    found = precision_recall(drawn, (nothing, by_unit(drawn, [0] * said)), (nothing, by_unit(drawn, [1] * true)))
    assert tuple(one.value for one in found.values()) == expected


def test_amounts_are_summed():
    assert by_unit(resampling("a", "b"), [0, 1, 0], [1.5, 2.0, 3.0]).tolist() == [4.5, 2.0]
