"""When a worker opens its next part."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from s1batch.errors import Interrupted
from s1batch.part_gate import (
    ADDRESSES_PER_CHUNK,
    FEWEST_OPEN_PARTS,
    MOST_OPEN_CHUNKS,
    MOST_OPEN_PARTS,
    OPEN_CHUNKS,
    READ_AHEAD_BYTES,
    READING_PARTS,
    PartGate,
    most_open_parts,
)


@pytest.fixture
def stopped():
    return threading.Event()


@pytest.fixture
def gate(stopped):
    return PartGate(stopped)


def is_shut(gate, stopped):
    stopped.set()
    try:
        with pytest.raises(Interrupted), gate.part():
            pass
    finally:
        stopped.clear()
    return True


def test_so_many_small_parts_are_read_at_once_and_no_more(gate, stopped):
    with ExitStack() as stack:
        for _ in range(READING_PARTS):
            stack.enter_context(gate.part()).holds(64, 1000)
        assert is_shut(gate, stopped)


def test_parts_that_only_wait_for_answers_let_others_in(gate):
    with ExitStack() as stack:
        for _ in range(50):
            place = stack.enter_context(gate.part())
            place.holds(64, 1000)
            place.read()


def test_large_records_are_read_in_one_part_at_a_time(gate, stopped):
    with gate.part() as place:
        place.holds(64, READ_AHEAD_BYTES + 1)
        assert is_shut(gate, stopped)
        place.read()
        with gate.part():
            pass


def test_beside_very_many_chunks_a_part_is_opened_only_when_nothing_else_is_read(gate, stopped):
    with gate.part() as first:
        first.holds(OPEN_CHUNKS + 1, 1000)
        assert is_shut(gate, stopped)
        first.read()
        with gate.part() as second:
            second.holds(64, 1000)
            assert is_shut(gate, stopped)


def test_chunks_of_very_many_addresses_count_by_these(gate, stopped):
    with gate.part() as first:
        first.holds(64, 1000, addresses=ADDRESSES_PER_CHUNK * (OPEN_CHUNKS + 1))
        assert is_shut(gate, stopped)


def test_no_part_of_a_later_turn_is_read_before_those_of_the_earlier_one_are(gate):
    with ExitStack() as stack:
        first = stack.enter_context(gate.part(0))
        first.holds(64, 1000)
        entered = threading.Event()

        def later():
            with gate.part(1):
                entered.set()

        thread = threading.Thread(target=later)
        thread.start()
        stack.enter_context(gate.part(0)).read()
        assert not entered.is_set()
        first.read()
        assert entered.wait(30)
        thread.join()


def test_rows_that_wait_for_their_part_are_bounded_however_many_parts_may_be_open(gate, stopped):
    with gate.part() as first:
        first.holds(MOST_OPEN_CHUNKS + 1, 1000)
        first.read()
        assert not gate.has_room()
        assert is_shut(gate, stopped)
    assert gate.has_room()


def test_as_many_parts_are_open_as_the_requests_in_flight_need_unless_the_job_says_otherwise():
    """1,280 requests in flight whose slowest hundredth takes ten times as long keep about 160 parts of 128 open."""
    assert most_open_parts(None, 1280) >= 160
    assert most_open_parts(None, 8) == FEWEST_OPEN_PARTS
    assert most_open_parts(None, 10**6) == MOST_OPEN_PARTS
    assert most_open_parts(3, 1280) == 3
