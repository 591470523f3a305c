"""One task: what it notes, and when it goes back into the queue."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from s1batch.errors import BudgetSpent, EngineUnavailable, Interrupted, OutOfTime
from s1batch.results.task_identity import TaskIdentity
from s1batch.slurm.folder import SubmissionFolder
from s1batch.slurm.task import task_of
from s1batch.slurm.walltime import allocation_end
from s1batch.stopping import Ending, Stop
from s1batch.subset import Shard
from tests.slurm.fake import FakeSlurm
from tests.slurm.specs import spec

LAST = TaskIdentity(name="100_7", restarts=0, node="n1")


@pytest.fixture
def folder(tmp_path):
    made = SubmissionFolder(tmp_path / "submission")
    made.create(spec(folder=str(made.root), requeues=2), ["#!/bin/bash\n"], None)
    return made


def ended(folder, error, *, stop=None, slurm=None, identity=LAST):
    """Let a task end with an error, and return its note."""
    with (
        pytest.raises(type(error)),
        task_of(
            folder.root, Shard(7, 8), stop or Stop(), lambda line: None, slurm=slurm or FakeSlurm(), identity=identity
        ),
    ):
        raise error
    return folder.read_note(7)


def at_limit():
    stop = Stop()
    stop.request(at_limit=True)
    return stop


def test_the_last_task_is_requeued_by_its_own_name_and_not_by_that_of_the_array():
    environment = {"SLURM_JOB_ID": "100", "SLURM_ARRAY_JOB_ID": "100", "SLURM_ARRAY_TASK_ID": "7"}
    assert TaskIdentity.here(environment).name == "100_7"
    assert TaskIdentity.here({**environment, "SLURM_RESTART_COUNT": "3"}).restarts == 3
    assert TaskIdentity.here({"SLURM_JOB_ID": "100"}).name == "100"
    assert TaskIdentity.here({}).name == ""


def test_a_run_that_ends_leaves_its_exit_code(folder):
    with task_of(folder.root, Shard(7, 8), Stop(), print, identity=LAST) as report:
        assert folder.read_note(7).ended is None
        report.ended(3, "two rows failed")
    note = folder.read_note(7)
    assert (note.exit_code, note.said, note.requeued, note.task) == (3, "two rows failed", False, "100_7")


@pytest.mark.parametrize(
    ("error", "stop"),
    [(Interrupted("stopped"), at_limit()), (OutOfTime("the allocation ends"), Stop())],
    ids=["signal", "pace"],
)
def test_at_the_time_limit_it_goes_back_into_the_queue(folder, error, stop):
    slurm = FakeSlurm()
    note = ended(folder, error, stop=stop, slurm=slurm)
    assert slurm.requeued == ["100_7"]
    assert (note.requeued, note.exit_code) == (True, 75)


@pytest.mark.parametrize(
    "error",
    [Interrupted("SIGTERM"), EngineUnavailable("engine_unavailable", "gone"), ZeroDivisionError()],
    ids=["cancelled", "engine", "bug"],
)
def test_whatever_else_ends_it_is_no_reason_to_requeue(folder, error):
    slurm = FakeSlurm()
    note = ended(folder, error, slurm=slurm)
    assert slurm.requeued == []
    assert (note.requeued, note.ended is not None) == (False, True)


def test_a_spent_budget_is_no_reason_to_requeue_even_at_the_limit(folder):
    slurm = FakeSlurm()
    ended(folder, BudgetSpent("spent"), stop=at_limit(), slurm=slurm)
    assert slurm.requeued == []


def test_after_the_last_allowed_time_it_is_not_requeued(folder):
    slurm = FakeSlurm()
    note = ended(folder, OutOfTime("late"), slurm=slurm, identity=replace(LAST, restarts=2))
    assert slurm.requeued == []
    assert "started again 2 times already (at most 2)" in note.said


def test_a_slurm_that_does_not_requeue_is_told_in_the_note(folder):
    slurm = FakeSlurm()
    slurm.refuses_requeue = True
    note = ended(folder, OutOfTime("late"), slurm=slurm)
    assert not note.requeued
    assert note.said.startswith("not requeued: scontrol refused")


def test_outside_of_a_submission_nothing_is_noted():
    with task_of(None, None, Stop(), print) as report:
        report.ended(0, "done")


def test_a_disk_that_refuses_notes_does_not_end_the_task(folder):
    for path in (folder.note(0).parent,):
        path.rmdir()
        path.write_text("no folder")
    said: list[str] = []
    with task_of(folder.root, Shard(7, 8), Stop(), said.append, identity=LAST) as report:
        report.ended(0, "done")
    assert len(said) == 2
    assert "only what this task says of itself is lost" in said[0]


def test_the_end_of_the_allocation_is_told_by_the_environment_or_by_slurm():
    slurm = FakeSlurm()
    slurm.ends_at = time.time() + 50
    later = int(time.time()) + 100
    assert allocation_end({}, slurm) is None
    assert allocation_end({"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": str(later)}, slurm) == later
    assert allocation_end({"SLURM_JOB_ID": "1"}, slurm) == slurm.ends_at
    assert allocation_end({"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": "1000"}, slurm) is None, "of an old shell"


def test_the_last_task_asks_about_itself_and_not_about_the_whole_array():
    slurm = FakeSlurm()
    slurm.ends_at = time.time() + 50
    environment = {"SLURM_JOB_ID": "100", "SLURM_ARRAY_JOB_ID": "100", "SLURM_ARRAY_TASK_ID": "7"}
    assert allocation_end(environment, slurm) == slurm.ends_at
    assert slurm.asked_about == ["100_7"]


def test_a_run_is_over_at_its_deadline():
    ending = Ending(Stop())
    ending.by(time.monotonic() + 1000, OutOfTime("much later"))
    assert not ending.is_set()
    ending.by(time.monotonic(), OutOfTime("now"))
    assert ending.is_set()
    assert ending.at_limit
    assert str(ending.error) == "now"
