"""By when a run must be over: it may move, and asking about it costs little."""

from __future__ import annotations

import pickle
import re
import time
from types import SimpleNamespace

import pytest

from s1batch import deadline
from s1batch.deadline import Deadline
from s1batch.errors import OutOfTime
from s1batch.slurm.walltime import RESERVE_S, working_deadline
from s1batch.stopping import Ending, Stop
from tests.slurm.fake import FakeSlurm


def test_a_limit_that_was_moved_is_taken_over_and_told(monkeypatch):
    monkeypatch.setattr(deadline, "LOOK_S", (0.02, 0.02))
    said: list[str] = []
    moving = Deadline(time.time() + 50, lambda: time.time() + 7200)
    with moving.watched(said.append):
        give_up = time.monotonic() + 60
        while not said and time.monotonic() < give_up:
            time.sleep(0.01)
    assert moving.left_s > 7000
    assert re.fullmatch(r"the limit of the allocation was moved: this run is over in 1[12]\d\.\d min", said[0])


def test_a_slurm_that_does_not_answer_changes_nothing():
    until = time.time() + 100
    still = Deadline(until, lambda: None)
    assert not still.refresh()
    assert still.at == until


def test_a_run_that_waits_for_a_deadline_sees_it_move():
    moving, ending = Deadline(time.time() - 1), Ending(Stop())
    ending.before(moving, OutOfTime())
    moving.at = time.time() + 100
    assert not ending.is_set()
    moving.at = time.time() - 1
    assert ending.is_set()
    assert ending.at_limit


def test_the_allocation_is_asked_again_later():
    slurm = FakeSlurm()
    end = int(time.time()) + 600
    found = working_deadline({"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(end)}, slurm)
    assert found is not None
    assert found.at == end - RESERVE_S
    slurm.ends_at = end + 3600.0
    assert found.refresh()
    assert found.at == end + 3600 - RESERVE_S
    assert working_deadline({}, slurm) is None


@pytest.mark.parametrize(("left_s", "least_s", "most_s"), [(86_400, 270, 330), (400, 90, 110), (50, 27, 40), (5, 1, 3)])
def test_looks_are_few_and_one_comes_before_the_end(left_s, least_s, most_s, monkeypatch):
    monkeypatch.setattr(deadline, "time", SimpleNamespace(time=lambda: 1e9))
    assert least_s <= Deadline(1e9 + left_s)._pause_s() <= most_s


def test_a_worker_elsewhere_gets_the_time_as_it_is():
    found = pickle.loads(pickle.dumps(Deadline(5.0, lambda: 9.0)))
    assert (found.at, found.refresh()) == (5.0, False)
