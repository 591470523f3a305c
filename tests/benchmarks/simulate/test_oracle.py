"""The oracle is no more than the best schedule that a search through all schedules finds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.benchmarks.simulate.oracle import as_one, blind_s, bound_s
from tests.benchmarks.simulate.outages import Outages
from tests.benchmarks.simulate.service import Service
from tests.benchmarks.simulate.workload import ShapeTotals, Workload

Job = tuple[float, int]
"""Seconds and shape."""


def best_s(
    jobs: Sequence[Job], slots: int, speeds: Sequence[float], downs: Sequence[list[tuple[float, float]]]
) -> float:
    """Return the least makespan: every order, every choice of engines, each job as early as it can be.

    One of these schedules is best: shifting any schedule's jobs to earlier times ends in one of them.
    """
    best = math.inf
    for order in permutations(jobs):
        for engines in product(range(len(speeds)), repeat=len(jobs)):
            placed: list[tuple[float, float, int, int]] = []  # begin, end, engine, shape
            for (seconds, shape), engine in zip(order, engines, strict=True):
                begin = _earliest(seconds / speeds[engine], shape, engine, placed, slots, downs[engine])
                placed.append((begin, begin + seconds / speeds[engine], engine, shape))
            best = min(best, max(end for _, end, _, _ in placed))
    return best


def _earliest(
    seconds: float,
    shape: int,
    engine: int,
    placed: Sequence[tuple[float, float, int, int]],
    slots: int,
    downs: Sequence[tuple[float, float]],
) -> float:
    here = [(begin, end, other) for begin, end, where, other in placed if where == engine]
    times = sorted({0.0, *(end for _, end, _ in here), *(up for _, up in downs if up < math.inf)})
    for begin in times:
        end = begin + seconds
        if any(down < end and begin < up for down, up in downs):
            continue
        beside = [(each, until, other) for each, until, other in here if each < end and begin < until]
        if any(other != shape for _, _, other in beside):
            continue
        moments = [begin, *(each for each, _, _ in beside if each > begin)]
        if all(sum(each <= moment < until for each, until, _ in beside) < slots for moment in moments):
            return begin
    return math.inf


def totals(jobs: Sequence[Job]) -> list[ShapeTotals]:
    return [
        ShapeTotals(
            work_s=sum(seconds for seconds, other in jobs if other == shape),
            longest_s=max(seconds for seconds, other in jobs if other == shape),
        )
        for shape in sorted({shape for _, shape in jobs})
    ]


def bound(
    jobs: Sequence[Job], slots: int, speeds: Sequence[float], downs: Sequence[list[tuple[float, float]]]
) -> float:
    outages = Outages(len(speeds), given=dict(enumerate(downs)))
    return bound_s(totals(jobs), slots=slots, batching=1.0, speeds=speeds, outages=outages)


JOBS = st.lists(st.tuples(st.integers(1, 6).map(float), st.integers(0, 1)), min_size=1, max_size=4)
OUTAGES: st.SearchStrategy[list[tuple[float, float]]] = st.one_of(
    st.just([]), st.tuples(st.integers(0, 5), st.integers(1, 4)).map(lambda at: [(float(at[0]), float(sum(at)))])
)


@settings(max_examples=150, deadline=None)
@given(JOBS, st.integers(1, 2), st.lists(st.tuples(st.sampled_from([1.0, 0.5]), OUTAGES), min_size=1, max_size=2))
def test_no_schedule_passes_the_bound(jobs, slots, engines):
    speeds, downs = [speed for speed, _ in engines], [list(down) for _, down in engines]
    assert bound(jobs, slots, speeds, downs) <= best_s(jobs, slots, speeds, downs) * (1 + 1e-6)


@pytest.mark.parametrize(
    ("jobs", "slots", "speeds", "downs", "expected"),
    [
        ([(3.0, 0)] * 4, 2, [1.0, 1.0], [[], []], 3.0),  # work over slots
        ([(5.0, 0), (1.0, 0)], 2, [1.0], [[]], 5.0),  # the longest request
        ([(3.0, 0), (2.0, 1)], 2, [1.0], [[]], 5.0),  # shapes that exclude one another
        ([(3.0, 0)] * 2, 1, [1.0], [[(3.0, 7.0)]], 10.0),  # an outage between two requests
        ([(4.0, 0)], 1, [1.0], [[(3.0, 7.0)]], 11.0),  # the longest does not fit before the outage
        ([(4.0, 0)], 1, [0.5, 1.0], [[], [(0.0, 9.0)]], 8.0),  # slow now, or fast later
    ],
)
def test_where_the_best_schedule_is_known_the_bound_is_it(jobs, slots, speeds, downs, expected):
    assert best_s(jobs, slots, speeds, downs) == pytest.approx(expected)
    assert bound(jobs, slots, speeds, downs) == pytest.approx(expected)


def test_shapes_that_may_meet_share_the_slots():
    shapes = [ShapeTotals(work_s=30.0, longest_s=3.0), ShapeTotals(work_s=10.0, longest_s=7.0)]
    found = bound_s(as_one(shapes), slots=2, batching=1.0, speeds=[1.0], outages=Outages(1))
    assert found == pytest.approx(20.0)


def test_a_request_that_is_alone_is_faster_in_the_bound_too():
    shapes = [ShapeTotals(work_s=12.0, longest_s=12.0)]
    assert bound_s(shapes, slots=4, batching=3.0, speeds=[1.0], outages=Outages(1)) == pytest.approx(4.0)


def test_engines_that_are_all_gone_for_good_have_no_bound():
    outages = Outages(1, given={0: [(1.0, math.inf)]})
    assert (
        bound_s([ShapeTotals(work_s=9.0, longest_s=1.0)], slots=1, batching=1.0, speeds=[1.0], outages=outages)
        == math.inf
    )


def test_an_ideal_scheduler_that_knows_no_times_takes_them_in_order():
    workload = Workload(3, Service(kind="constant", mean_s=4.0))
    assert blind_s(workload, 2) == pytest.approx(8.0)
    assert blind_s(workload, 3) == pytest.approx(4.0)


class TestOutages:
    def test_what_is_drawn_does_not_depend_on_how_it_is_asked_for(self):
        one, other = (Outages(4, fail_every_s=500.0, each_fails_every_s=900.0, repair_s=60.0, seed=3) for _ in "ab")
        for until_s in range(0, 20_000, 700):
            other.of(until_s % 4, float(until_s))
        for engine in range(4):
            assert one.of(engine, 20_000.0) == other.of(engine, 20_000.0)

    def test_outages_of_an_engine_do_not_overlap_and_have_their_rate(self):
        outages = Outages(8, each_fails_every_s=1000.0, repair_s=200.0)
        count = 0
        for engine in range(8):
            found = outages.of(engine, 1e6)
            assert all(up <= down for (_, up), (down, _) in pairwise(found))
            assert outages.live_s(engine, 1e6) == pytest.approx(1e6 - sum(up - down for down, up in found), abs=200.0)
            count += len(found)
        assert count == pytest.approx(8 * 1e6 / 1200.0, rel=0.1)

    def test_failures_of_all_together_have_their_rate(self):
        outages = Outages(64, fail_every_s=3600.0, repair_s=600.0)
        assert sum(len(outages.of(engine, 3.6e6)) for engine in range(64)) == pytest.approx(1000, rel=0.1)
