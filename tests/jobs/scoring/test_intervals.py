"""Arithmetic with intervals agrees with looking at every integer."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1batch.jobs.scoring.intervals import common, extent, iou_matches, overlaps, united

INTERVALS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 8)).map(lambda pair: (pair[0], sum(pair))), max_size=8
)


def inside(intervals):
    return {place for start, stop in intervals for place in range(start, stop)}


@given(INTERVALS, INTERVALS)
def test_unions_and_overlaps(one, other):
    first, second = united(one), united(other)
    assert inside(first) == inside(one)
    assert all(before[1] < after[0] for before, after in pairwise(first))
    assert extent(first) == len(inside(one))
    assert inside(common(first, second)) == inside(one) & inside(other)
    for interval in first:
        assert overlaps(interval, second) == bool(inside([interval]) & inside(other))


@given(INTERVALS, INTERVALS)
def test_pairs_are_as_many_as_can_be(one, other):
    """An assignment over all pairs finds no more."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    first, second = united(one), united(other)
    pairs = iou_matches(first, second, 0.5)
    reached = np.zeros((len(first), len(second)))
    for number, mine in enumerate(first):
        for place, theirs in enumerate(second):
            both, either = inside([mine]) & inside([theirs]), inside([mine]) | inside([theirs])
            reached[number, place] = len(both) / len(either) >= 0.5
    assert all(reached[pair] for pair in pairs)
    assert len({number for number, _ in pairs}) == len({place for _, place in pairs}) == len(pairs)
    rows, columns = linear_sum_assignment(-reached)
    assert len(pairs) == reached[rows, columns].sum()


@pytest.mark.parametrize(
    ("one", "other", "pairs"),
    [
        ([(0, 10)], [(0, 5)], [(0, 0)]),
        ([(0, 10)], [(0, 4)], []),
        ([(0, 10)], [(0, 5), (5, 10)], [(0, 1)]),
        ([(0, 4), (10, 12)], [(1, 4), (9, 12)], [(0, 0), (1, 1)]),
    ],
)
def test_pairs_by_hand(one, other, pairs):
    assert iou_matches(one, other, 0.5) == pairs
