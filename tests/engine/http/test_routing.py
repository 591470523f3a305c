"""The choice among endpoints, without a network and without a clock."""

from __future__ import annotations

import math
from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from s1batch.engine.http.routing import Router


def router(count: int = 3) -> Router:
    return Router([f"http://node{i}" for i in range(count)], eject_after=3, probe_base_s=1.0, probe_cap_s=8.0)


def test_idle_endpoints_are_used_in_turn() -> None:
    routes = router()
    chosen = [routes.pick(0.0) for _ in range(6)]
    assert [each.url[-1] for each in chosen if each] == ["0", "1", "2", "0", "1", "2"]


def test_a_slow_endpoint_gets_less() -> None:
    routes, got = router(2), [0, 0]
    slow, fast = routes.endpoints
    with ExitStack() as stuck:
        for _ in range(50):
            chosen = routes.pick(0.0)
            assert chosen is not None
            got[chosen is fast] += 1
            if chosen is slow:
                stuck.enter_context(routes.using(slow))  # never comes back; the fast one always does
    assert got == [1, 49]
    assert slow.in_flight == 0


def test_three_failures_in_a_row_take_an_endpoint_out_and_an_answer_starts_the_count_again() -> None:
    routes = router(1)
    [only] = routes.endpoints
    assert [routes.failed(only, "x", 1.0), routes.failed(only, "x", 2.0)] == [False, False]
    routes.succeeded(only)
    assert [routes.failed(only, "x", 3.0), routes.failed(only, "x", 4.0)] == [False, False]
    assert routes.failed(only, "gone", 5.0)
    assert routes.pick(5.0) is None
    assert not routes.failed(only, "later", 6.0)
    assert only.ejected_since == 5.0


def test_probes_come_after_doubling_waits_until_a_real_answer() -> None:
    routes = router(1)
    [only] = routes.endpoints
    routes.eject(only, "dead", 0.0)
    waits = [routes.probe_delay_s(only)]
    for _ in range(4):
        routes.probe_failed(only, "dead")
        waits.append(routes.probe_delay_s(only))
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0]
    routes.readmit(only, 1.0)
    assert routes.pick(1.0) is only
    assert routes.failed(only, "still dead", 2.0), "one failure after a readmission takes it out again"
    assert routes.probe_delay_s(only) == 8.0
    routes.readmit(only, 2.0)
    routes.succeeded(only)
    routes.eject(only, "dead again", 3.0)
    assert routes.probe_delay_s(only) == 1.0


def test_a_readmitted_endpoint_gets_one_request_until_it_answers() -> None:
    routes = router(2)
    first, second = routes.endpoints
    routes.eject(first, "hanging", 0.0)
    routes.readmit(first, 0.0)
    with routes.using(second), routes.using(second):
        assert routes.pick(1.0) is first
        with routes.using(first):
            assert routes.pick(1.0) is second
            routes.eject(second, "dead", 1.0)
            assert routes.pick(1.0) is None
            assert routes.next_change_s(1.0) == math.inf
            routes.succeeded(first)
            assert routes.pick(1.0) is first


def test_what_was_asked_before_an_endpoint_came_back_says_nothing_about_it() -> None:
    """A node that vanished leaves requests that hang, and fail long after it works again."""
    routes = router(1)
    [only] = routes.endpoints
    with routes.using(only):
        routes.eject(only, "vanished", 10.0)
        routes.readmit(only, 70.0)
        assert routes.pick(71.0) is only, "a request that hangs is not its trial"
        with routes.using(only):
            assert routes.pick(72.0) is None
            assert not routes.failed(only, "timed out", 80.0, sent=5.0)
            assert only.ejected_since is None
            assert routes.failed(only, "reset", 81.0, sent=71.0)
    assert only.in_flight == 0


def test_an_endpoint_that_passes_probes_and_fails_requests_has_been_dead_all_the_time() -> None:
    routes = router(1)
    [only] = routes.endpoints
    routes.eject(only, "no answer", 10.0)
    for now in (20.0, 40.0, 80.0):
        routes.readmit(only, now)
        assert routes.dead_for_s(now) == 0.0, "its trial may still succeed"
        assert routes.failed(only, "no answer", now)
    assert routes.dead_for_s(80.0) == 70.0
    routes.readmit(only, 80.0)
    routes.succeeded(only)
    routes.eject(only, "dead", 100.0)
    assert routes.dead_for_s(101.0) == 1.0


def test_the_endpoint_that_just_failed_is_avoided_while_there_is_another() -> None:
    routes = router(2)
    first, second = routes.endpoints
    assert routes.pick(0.0, avoid=first) is second
    assert routes.pick(0.0, avoid=second) is first
    routes.eject(second, "dead", 0.0)
    assert routes.pick(0.0, avoid=first) is first


def test_an_endpoint_that_asked_for_it_is_left_alone() -> None:
    routes = router(2)
    first, second = routes.endpoints
    routes.cool(first, 10.0)
    assert {routes.pick(9.9) for _ in range(4)} == {second}
    routes.cool(second, 12.0)
    routes.cool(second, 11.0)
    assert routes.pick(9.0) is None
    assert routes.next_change_s(9.0) == 1.0
    assert routes.pick(10.0) is first
    routes.eject(first, "dead", 0.0)
    assert routes.next_change_s(9.0) == 3.0
    routes.eject(second, "dead", 0.0)
    assert routes.next_change_s(9.0) == math.inf


def test_the_time_of_death_is_that_of_the_last_endpoint() -> None:
    routes = router(2)
    first, second = routes.endpoints
    routes.eject(first, "x", 10.0)
    assert routes.dead_for_s(50.0) == 0.0
    routes.eject(second, "x", 20.0)
    assert routes.dead_for_s(50.0) == 30.0
    routes.readmit(first, 50.0)
    assert routes.dead_for_s(50.0) == 0.0


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["ok", "fail", "cool", "readmit"])), max_size=60))
def test_only_endpoints_in_use_are_picked_and_someone_always_is_while_there_is_one(
    events: list[tuple[int, str]],
) -> None:
    routes = router()
    for now, (index, event) in enumerate(events):
        endpoint = routes.endpoints[index]
        if event == "ok":
            routes.succeeded(endpoint)
        elif event == "fail":
            routes.failed(endpoint, "x", float(now))
        elif event == "cool":
            routes.cool(endpoint, now + 2.0)
        else:
            routes.readmit(endpoint, float(now))
        usable = {each for each in routes.endpoints if each.ejected_since is None and each.cool_until <= now}
        chosen = routes.pick(float(now), avoid=endpoint)
        assert (chosen in usable) if usable else (chosen is None)
        assert chosen is not endpoint or usable == {endpoint}


def answered(routes: Router, *seconds: float) -> None:
    """Every endpoint has given ten answers in its own time."""
    for endpoint, each in zip(routes.endpoints, seconds, strict=True):
        for _ in range(10):
            routes.took(endpoint, each)


def test_an_endpoint_ten_times_slower_counts_its_requests_ten_times() -> None:
    routes = router(3)
    answered(routes, 10.0, 1.0, 1.2)
    slow, *_ = routes.endpoints
    with ExitStack() as running:
        for _ in range(43):
            chosen = routes.pick(0.0)
            assert chosen is not None
            running.enter_context(routes.using(chosen))
        assert slow.in_flight == 2
        assert {each.in_flight for each in routes.endpoints[1:]} == {20, 21}


def test_endpoints_of_about_the_same_speed_are_equals() -> None:
    routes = router(3)
    answered(routes, 2.9, 1.0, 1.0)
    assert [each.pace for each in routes.endpoints] == [1.0, 1.0, 1.0]


def test_a_slow_endpoint_gets_none_of_the_last_requests_unless_it_is_all_there_is() -> None:
    routes = router(2)
    answered(routes, 1.0, 10.0)
    fast, slow = routes.endpoints
    with ExitStack() as running:
        for _ in range(12):
            running.enter_context(routes.using(fast))
        assert routes.pick(0.0, left=1000) is slow
        assert routes.pick(0.0, left=None) is slow
        assert routes.pick(0.0, left=12 * 19) is fast, "19 s of work are left, an answer there takes 10 s on average"
        routes.eject(fast, "dead", 0.0)
        assert routes.pick(0.0, left=1) is slow


def test_an_endpoint_that_recovers_is_an_equal_again() -> None:
    routes = router(2)
    answered(routes, 1.0, 10.0)
    _, slow = routes.endpoints
    assert slow.pace > 3
    for _ in range(100):
        routes.took(slow, 1.0)
    assert slow.pace == 1.0
