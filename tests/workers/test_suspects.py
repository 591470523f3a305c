"""The chunks that end their workers are found, and nothing else is blamed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.workers.calls import Died
from s1batch.workers.suspects import TRIES, Halving, refusal

SOMEBODY = Died(worker="tcp://node1:4000", host="node1")


class Part:
    """A part whose chunks are asked in order; a worker dies at one of `deadly`, or when `unlucky` says so."""

    def __init__(self, size, deadly, unlucky=()):
        self.keys = [str(number) for number in range(size)]
        self.deadly = {str(number) for number in deadly}
        self.unlucky = list(unlucky)
        self.known = set()
        self.deaths = 0

    def open(self):
        return [key for key in self.keys if key not in self.known]

    def ask(self, group):
        """Return whether the worker lived; what came before its death has rows."""
        if self.unlucky and self.unlucky.pop():
            self.deaths += 1
            return False
        for key in group:
            if key in self.deadly:
                self.deaths += 1
                return False
            self.known.add(key)
        return True


def find(part):
    halving = Halving(part.open)
    attempts = 0
    while group := halving.group():
        attempts += 1
        assert attempts < 10_000
        if not part.ask(group):
            halving.died(SOMEBODY, group)
    return halving


@settings(deadline=None)
@given(st.integers(1, 200), st.sets(st.integers(0, 199), max_size=6))
def test_every_deadly_chunk_is_given_up_and_every_other_one_has_its_row(size, deadly):
    deadly = {number for number in deadly if number < size}
    part = Part(size, deadly)
    halving = find(part)
    assert set(halving.given_up) == part.deadly
    assert part.known == set(part.keys) - part.deadly
    assert part.deaths <= len(deadly) * (TRIES + size.bit_length())


@settings(deadline=None)
@given(st.integers(2, 200), st.lists(st.booleans(), max_size=2))
def test_fewer_deaths_than_tries_blame_nobody(size, unlucky):
    """A node that was preempted, or lost: whoever was asked then has its row in the end."""
    part = Part(size, (), unlucky)
    assert not find(part).given_up
    assert part.known == set(part.keys)


def test_a_chunk_is_given_up_only_after_as_many_workers_as_there_are_tries():
    part = Part(1, {0})
    halving = Halving(part.open)
    for _ in range(TRIES - 1):
        assert halving.group() == ["0"]
        assert halving.died(SOMEBODY, ["0"]) is None
    assert halving.died(SOMEBODY, ["0"]) == "0"
    assert halving.group() == []


def test_a_worker_that_dies_behind_its_last_answer_blames_no_chunk():
    """Its result is lost with it, and the next worker finds the mark; what is asked next has nothing to do with it."""
    part = Part(2, {1})
    halving = Halving(part.open)
    for _ in range(10):
        group = halving.group()
        if len(group) == 1:
            break
        part.known.add("0")
        halving.died(SOMEBODY, group)
    for _ in range(TRIES):
        assert halving.died(SOMEBODY, ["0"]) is None
    assert halving.died(SOMEBODY, ["1"]) is None
    assert not halving.given_up


def test_the_row_says_how_often_and_by_whom_it_was_tried():
    losses = [Died(worker=f"tcp://node{number}:4000", host=f"node{number}") for number in range(3)]
    found = refusal(losses)
    assert (found.outcome, found.reason) == ("failed", "worker_died")
    assert found.detail.startswith(
        "all 3 workers that asked this chunk alone died (tcp://node0:4000, tcp://node1:4000, "
    )
