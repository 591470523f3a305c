"""Every metric on small cases computed by hand, and its bounds on any case."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.jobs.scoring.bootstrap import Estimate, Resampling
from s1batch.jobs.scoring.matching import Points
from s1batch.jobs.scoring.metrics import Predictions, circular_correlation, score_method
from s1batch.jobs.scoring.phases import Phase
from s1batch.jobs.scoring.stations import score_stations
from s1batch.jobs.scoring.windows import Windows

SECOND = 10**9


def points(*pairs):
    table = np.array([(group, round(time * SECOND)) for group, time in pairs], np.int64).reshape(-1, 2)
    return Points(group=table[:, 0], time_ns=table[:, 1])


def windows(*lines, stations=None):
    """Windows of 10 s, given as (group, start) or (group, start, answered)."""
    table = [(*line, True)[:3] for line in lines]
    group, start, answered = (np.array(column) for column in zip(*table, strict=True))
    return Windows(
        group=group.astype(np.int64),
        start_ns=start.astype(np.int64) * SECOND,
        stop_ns=(start.astype(np.int64) + 10) * SECOND,
        answered=answered.astype(bool),
        station=np.array(stations if stations is not None else range(int(group.max()) + 1), np.int64),
    )


def said(at, *, contain=None, p=(), s=(), p_all=None):
    picks: dict[Phase, Points] = {"P": points(*p), "S": points(*s)}
    count = len(at)
    nothing = (np.zeros(count, np.int64), np.zeros(count, bool))
    return Predictions(
        name="x",
        contain=np.array(contain if contain is not None else [False] * count),
        picks=picks,
        picks_all=picks if p_all is None else {**picks, "P": points(*p_all)},
        window_ns={"P": nothing, "S": nothing},
    )


def score(at, predictions, p=(), s=(), tolerances=(0.1, 0.5), seed=0, repeats=200):
    truth: dict[Phase, Points] = {"P": points(*p), "S": points(*s)}
    return score_method(at, truth, predictions, tolerances, Resampling.over(at, seed, repeats))


class TestPicks:
    def test_precision_recall_and_f1_at_each_tolerance(self):
        at = windows((0, 0), (1, 0))
        found = score(at, said(at, p=[(0, 5.0), (0, 8.0), (1, 4.3)]), p=[(0, 5.05), (1, 4.0), (1, 9.0)]).phases["P"]
        near, far = found.tolerances
        assert (near.hits, far.hits) == (1, 2)
        assert near.precision.value == pytest.approx(1 / 3)
        assert near.recall.value == pytest.approx(1 / 3)
        assert near.f1.value == pytest.approx(2 / 6)
        assert far.f1.value == pytest.approx(4 / 6)
        assert (found.n_picks, found.n_onsets, found.n_onsets_all) == (3, 3, 3)

    def test_an_onset_in_an_unanswered_window_is_missed_over_all_and_left_out_over_answered(self):
        at = windows((0, 0), (0, 20, False))
        found = score(at, said(at, p=[(0, 5.0)]), p=[(0, 5.0), (0, 25.0)]).phases["P"]
        assert (found.n_onsets, found.n_onsets_all) == (1, 2)
        assert found.tolerances[0].recall.value == 1.0
        assert found.tolerances[0].recall_all.value == 0.5
        assert found.tolerances[0].f1.value == 1.0

    def test_a_baseline_may_find_it_there(self):
        at = windows((0, 0), (0, 20, False))
        predictions = said(at, p=[(0, 5.0)], p_all=[(0, 5.0), (0, 25.0)])
        assert score(at, predictions, p=[(0, 5.0), (0, 25.0)]).phases["P"].tolerances[0].recall_all.value == 1.0

    def test_onsets_outside_every_window_do_not_count(self):
        at = windows((0, 0), (0, 20))
        found = score(at, said(at), p=[(0, -1.0), (0, 10.0), (0, 19.9), (0, 30.0)]).phases["P"]
        assert (found.n_onsets, found.n_onsets_all) == (0, 0)
        assert found.tolerances[0].recall.value is None

    def test_a_window_is_half_open(self):
        at = windows((0, 0))
        assert score(at, said(at), p=[(0, 0.0), (0, 10.0)]).phases["P"].n_onsets == 1

    def test_an_onset_in_two_overlapping_windows_counts_once(self):
        at = windows((0, 0), (0, 5))
        assert score(at, said(at, p=[(0, 7.0)]), p=[(0, 7.0)]).phases["P"].tolerances[0].f1.value == 1.0

    def test_two_picks_for_one_onset_are_a_hit_and_a_false_pick(self):
        at = windows((0, 0))
        one = score(at, said(at, p=[(0, 5.0), (0, 5.02)]), p=[(0, 5.01)]).phases["P"].tolerances[0]
        assert (one.hits, one.precision.value, one.recall.value) == (1, 0.5, 1.0)

    def test_without_truth_and_without_picks_nothing_is_defined(self):
        at = windows((0, 0))
        one = score(at, said(at)).phases["S"].tolerances[0]
        assert one.precision == one.recall == one.recall_all == one.f1 == Estimate(value=None)

    def test_picks_without_truth_are_all_wrong(self):
        at = windows((0, 0))
        one = score(at, said(at, p=[(0, 5.0)])).phases["P"].tolerances[0]
        assert (one.precision.value, one.recall.value, one.f1.value) == (0.0, None, 0.0)

    def test_truth_without_picks_is_all_missed(self):
        at = windows((0, 0))
        one = score(at, said(at), p=[(0, 5.0)]).phases["P"].tolerances[0]
        assert (one.precision.value, one.recall.value, one.f1.value) == (None, 0.0, 0.0)


class TestResiduals:
    def test_are_those_of_the_largest_tolerance(self):
        at = windows((0, 0), (1, 0), (2, 0), (3, 0))
        picks = [(0, 5.1), (1, 5.0), (2, 4.6), (3, 7.0)]
        truth = [(group, 5.0) for group in range(4)]
        found = score(at, said(at, p=picks), p=truth).phases["P"].residuals
        # +0.1, 0.0 and -0.4 s
        assert found.n == 3
        assert found.median_s.value == pytest.approx(0.0)
        assert found.mean_s.value == pytest.approx(-0.1)
        assert found.mae_s.value == pytest.approx(0.5 / 3)
        assert found.std_s.value == pytest.approx(np.std([0.1, 0.0, -0.4]))
        assert sum(found.counts) == 3
        assert (found.edges_s[0], found.edges_s[-1]) == (-0.5, 0.5)

    def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two(self):
        at = windows((0, 0), (1, 0))
        found = score(at, said(at, p=[(0, 5.1), (1, 5.3)]), p=[(0, 5.0), (1, 5.0)]).phases["P"].residuals
        assert found.median_s.value == pytest.approx(0.2)

    def test_none_are_defined_without_matches(self):
        at = windows((0, 0))
        found = score(at, said(at)).phases["P"].residuals
        assert found.n == 0
        assert found.median_s.value is None


class TestDetection:
    def test_by_hand(self):
        # An S counts like a P; a window that was not answered is missed over all.
        at = windows((0, 0), (0, 20), (0, 40), (0, 60), (0, 80, False))
        predictions = said(at, contain=[True, False, True, False, False])
        found = score(at, predictions, p=[(0, 5.0), (0, 85.0)], s=[(0, 25.0)]).detection
        assert (found.n_windows, found.n_windows_all) == (4, 5)
        assert (found.n_positive, found.n_positive_all, found.n_said, found.hits) == (2, 3, 2, 1)
        assert found.precision.value == 0.5
        assert found.recall.value == 0.5
        assert found.recall_all.value == pytest.approx(1 / 3)
        assert found.f1.value == 0.5


class TestWithinTheSecond:
    def fractions(self, named, true):
        at = windows(*((0, 20 * number) for number in range(len(named))))
        instants = np.array([20 * number + time for number, time in enumerate(named)]) * SECOND
        predictions = Predictions(
            name="x",
            contain=np.ones(len(at), bool),
            picks={"P": points(), "S": points()},
            picks_all={"P": points(), "S": points()},
            window_ns={
                "P": (instants.astype(np.int64), np.ones(len(at), bool)),
                "S": (np.zeros(len(at), np.int64), np.zeros(len(at), bool)),
            },
        )
        truth = [(0, 20 * number + time) for number, time in enumerate(true)]
        return score(at, predictions, p=truth).phases["P"].within_second

    def test_a_constant_fraction_has_no_correlation(self):
        assert self.fractions([5.5, 6.5, 7.5], [5.3, 6.6, 7.9]).correlation is None

    def test_exact_picks_have_correlation_one(self):
        found = self.fractions([5.1, 6.6, 7.9], [5.1, 6.6, 7.9])
        assert found.n == 3
        assert found.correlation == pytest.approx(1.0)

    def test_only_picks_near_an_onset_count(self):
        assert self.fractions([5.1, 9.0], [5.2, 4.0]).n == 1

    @given(st.lists(st.tuples(st.floats(0, 6), st.floats(0, 6)), min_size=2, max_size=12))
    def test_the_formula_is_the_sum_over_pairs(self, samples):
        one, other = np.array(samples).T
        upper = np.triu_indices(len(one), 1)
        sines = [np.sin(angle[:, None] - angle[None, :])[upper] for angle in (one, other)]
        product = (sines[0] ** 2).sum() * (sines[1] ** 2).sum()
        found = circular_correlation(one, other)
        if found is not None:
            assert found == pytest.approx((sines[0] * sines[1]).sum() / np.sqrt(product), abs=1e-6)


class TestIntervals:
    AT = windows(*((group, 0) for group in range(8)))
    TRUTH = tuple((group, 5.0) for group in range(8))
    PICKS = tuple((group, 5.0 + group * 0.02) for group in range(8))

    def test_one_seed_gives_one_interval(self):
        once, again = (score(self.AT, said(self.AT, p=self.PICKS), p=self.TRUTH, seed=3) for _ in range(2))
        assert once == again
        assert once != score(self.AT, said(self.AT, p=self.PICKS), p=self.TRUTH, seed=4)

    def test_they_hold_the_value_and_lie_within_the_bounds(self):
        for one in score(self.AT, said(self.AT, p=self.PICKS), p=self.TRUTH).phases["P"].tolerances:
            assert one.f1.low is not None
            assert one.f1.high is not None
            assert 0 <= one.f1.low <= one.f1.value <= one.f1.high <= 1

    def test_stations_are_drawn_and_windows_where_there_is_one_station(self):
        assert Resampling.over(self.AT, 0).unit == "stations"
        one = windows((0, 0), (0, 20), (1, 0), stations=[0, 0])
        assert (Resampling.over(one, 0).unit, Resampling.over(one, 0).n_units) == ("windows", 3)

    def test_the_share_of_stations_that_are_right_has_the_spread_of_a_binomial(self):
        at = windows(*((group, 0) for group in range(400)))
        found = score(
            at,
            said(at, p=[(group, 5.0) for group in range(200)]),
            p=[(group, 5.0) for group in range(400)],
            repeats=1000,
        )
        recall = found.phases["P"].tolerances[0].recall
        assert recall.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.01)
        assert recall.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.01)

    def test_a_single_window_has_none(self):
        at = windows((0, 0))
        assert score(at, said(at, p=[(0, 5.0)]), p=[(0, 5.0)]).phases["P"].tolerances[0].f1 == Estimate(value=1.0)


class TestByStation:
    def test_stations_add_up_to_the_whole(self):
        at = windows((0, 0), (1, 0), (2, 0, False), stations=[0, 0, 1])
        truth: dict[Phase, Points] = {"P": points((0, 5.0), (1, 5.0), (2, 5.0)), "S": points()}
        predictions = said(at, contain=[True, False, False], p=[(0, 5.0), (1, 8.0)])
        first, second = score_stations(at, ("XX.A", "XX.B"), truth, predictions, (0.1,))
        assert (first.n_windows, first.n_answered) == (2, 2)
        assert (first.detection_hits, first.detection_false, first.detection_missed) == (1, 0, 1)
        assert (first.phases["P"].hits, first.phases["P"].f1) == ((1,), (0.5,))
        assert (second.n_windows, second.n_answered, second.phases["P"].f1) == (1, 0, (None,))


TIMES = st.lists(st.tuples(st.integers(0, 2), st.floats(0, 29.9)), max_size=12)


@settings(max_examples=50)
@given(TIMES, TIMES, st.lists(st.booleans(), min_size=9, max_size=9), st.lists(st.booleans(), min_size=9, max_size=9))
def test_scores_are_shares_and_recall_over_all_is_never_higher_in_hits(picks, truth, answered, contain):
    lines = [(group, start, answered[3 * group + start // 10]) for group in range(3) for start in (0, 10, 20)]
    at = windows(*lines)
    inside = [pick for pick in picks if answered[3 * pick[0] + int(pick[1] // 10)]]
    predictions = said(at, contain=np.array(contain) & np.array(answered), p=inside)
    found = score(at, predictions, p=truth, repeats=5)
    for one in (*found.phases["P"].tolerances, found.detection):
        for estimate in (one.precision, one.recall, one.recall_all, one.f1):
            for value in (estimate.value, estimate.low, estimate.high):
                assert value is None or 0 <= value <= 1
        low, high = sorted((one.precision.value or 0, one.recall.value or 0))
        if one.f1.value is not None:
            assert low - 1e-12 <= one.f1.value <= high + 1e-12
    assert found.phases["P"].n_onsets <= found.phases["P"].n_onsets_all
