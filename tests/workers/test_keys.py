"""Keys of tasks: no two tasks have one at the same time, and there are few of them."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from s1batch.workers import keys as module
from s1batch.workers.keys import REST, Keys


@given(st.lists(st.integers(0, 40), max_size=60))
def test_no_key_is_given_out_twice_at_the_same_time(rooms):
    """Whatever the number of tasks at a time, which follows workers that come and go."""
    rest, module.REST = module.REST, 3
    try:
        keys = Keys()
        running: set[tuple[str, int]] = set()
        for room in rooms:
            while len(running) > room:
                keys.give_back(running.pop())
            taken = [keys.take() for _ in range(room - len(running))]
            assert not running.intersection(taken)
            running.update(taken)
    finally:
        module.REST = rest


def test_a_million_tasks_need_as_many_keys_as_rest_and_run():
    keys = Keys()
    running: deque[tuple[str, int]] = deque()
    for _ in range(1_000_000):
        running.append(keys.take())
        if len(running) > 128:
            keys.give_back(running.popleft())
    assert keys.made <= REST + 1 + 129


def test_two_runs_on_one_cluster_do_not_meet():
    assert Keys().take() != Keys().take()
