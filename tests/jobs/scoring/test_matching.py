"""Matching is one-to-one, within the tolerance, largest in number and then nearest."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1batch.jobs.scoring.matching import Points, match

TENTH = 10**8


def points(times, group=0):
    """Points at tenths of a second; a pair stands for (group, time)."""
    pairs = [time if isinstance(time, tuple) else (group, time) for time in times]
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return Points(group=table[:, 0], time_ns=table[:, 1] * TENTH)


def pairs(picks, onsets, tolerance):
    found = match(points(picks), points(onsets), tolerance * TENTH)
    return sorted(zip(found.pick.tolist(), found.onset.tolist(), strict=True))


class TestByHand:
    def test_the_nearer_of_two_picks_is_the_hit(self):
        assert pairs([10, 12], [13], 5) == [(1, 0)]

    def test_two_picks_at_equal_distances_give_one_hit(self):
        assert len(pairs([8, 12], [10], 5)) == 1

    def test_the_tolerance_is_inclusive(self):
        assert pairs([15], [10], 5) == [(0, 0)]
        assert pairs([16], [10], 5) == []

    def test_a_nearer_pair_is_given_up_for_a_second_one(self):
        # 10 is nearest to 11, but only it reaches 5; taking (10, 5) and (14, 11) finds both.
        assert pairs([10, 14], [11, 5], 5) == [(0, 1), (1, 0)]

    def test_among_equally_many_pairs_the_sum_of_distances_is_smallest(self):
        assert pairs([10, 20], [11, 19], 50) == [(0, 0), (1, 1)]

    def test_stations_do_not_mix(self):
        assert pairs([(0, 10), (1, 20)], [(1, 10), (0, 20)], 5) == []

    def test_equal_times_are_matched_one_to_one(self):
        assert len(pairs([10, 10, 10], [10, 10], 1)) == 2

    @pytest.mark.parametrize(("picks", "onsets"), [([], []), ([1], []), ([], [1])])
    def test_nothing_matches_nothing(self, picks, onsets):
        assert pairs(picks, onsets, 5) == []


def value(picks, onsets, tolerance):
    found = match(points(picks), points(onsets), tolerance * TENTH)
    distance = np.abs(points(picks).time_ns[found.pick] - points(onsets).time_ns[found.onset])
    return len(found), int(distance.sum())


def brute_force(picks, onsets, tolerance):
    """Try every assignment of the shorter list to places in the longer one, or to none."""
    short, long = sorted((picks, onsets), key=len)
    best = (0, 0)
    for places in permutations([*range(len(long)), *[-1] * len(short)], len(short)):
        distances = [abs(one - long[place]) for one, place in zip(short, places, strict=True) if place >= 0]
        if all(distance <= tolerance for distance in distances):
            best = max(best, (len(distances), -sum(distances)))
    return best[0], -best[1] * TENTH


TIMES = st.lists(st.integers(0, 40), max_size=4)
MANY = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 300)), max_size=40)


@given(TIMES, TIMES, st.integers(0, 15))
def test_it_agrees_with_trying_everything(picks, onsets, tolerance):
    assert value(picks, onsets, tolerance) == brute_force(picks, onsets, tolerance)


@given(MANY, MANY, st.integers(0, 30))
def test_number_and_distance_do_not_depend_on_which_set_comes_first(picks, onsets, tolerance):
    assert value(picks, onsets, tolerance) == value(onsets, picks, tolerance)


@given(MANY, MANY, st.integers(0, 30), st.randoms(use_true_random=False))
def test_the_order_of_the_points_does_not_matter(picks, onsets, tolerance, random):
    def matched(these, those):
        return sorted((these[pick], those[onset]) for pick, onset in pairs(these, those, tolerance))

    before = matched(picks, onsets)
    shuffled = [random.sample(points, len(points)) for points in (picks, onsets)]
    assert matched(*shuffled) == before


@given(MANY, MANY, st.integers(0, 30))
def test_each_point_is_used_once_and_pairs_are_near_and_at_one_station(picks, onsets, tolerance):
    found = pairs(picks, onsets, tolerance)
    for side in (0, 1):
        assert len({pair[side] for pair in found}) == len(found)
    for pick, onset in found:
        assert picks[pick][0] == onsets[onset][0]
        assert abs(picks[pick][1] - onsets[onset][1]) <= tolerance


@given(MANY, MANY)
def test_a_larger_tolerance_never_finds_fewer(picks, onsets):
    assert value(picks, onsets, 5)[0] <= value(picks, onsets, 10)[0]


def test_a_day_full_of_picks_is_matched_at_once():
    picks = np.arange(0, 864_000, 6)
    onsets = picks[::100] + 2
    assert len(pairs(picks.tolist(), onsets.tolist(), 10)) == len(onsets)
