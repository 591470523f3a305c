"""A process whose task is over is not at work, however fresh its lease is."""

from __future__ import annotations

import os
import time

import orjson
import pytest

import s1batch
from s1batch.execution import RunOptions
from s1batch.results.holder import read_holder
from s1batch.results.layout import Layout
from s1batch.results.lease import STALE_S, LeaseKeeper
from s1batch.results.process import ProcessIdentity
from s1batch.results.status import status
from s1batch.results_report import status_dict, status_lines
from s1batch.slurm.ended_tasks import ended_tasks
from tests.slurm.fake import FakeSlurm, task

ELSEWHERE = ProcessIdentity(host="n7", boot="another", namespace="pid:[1]", pid=77, started="1")


@pytest.fixture
def results(job):
    s1batch.run(job, options=RunOptions(limit=1))
    return job.parent / "out"


@pytest.fixture
def lease_of(results, monkeypatch):
    """Return a function that leaves a lease of a part behind, as a process on another host with a task."""

    def leave(part: int, name: str, *, restarts: int = 0, age_s: float = 0.0, pid: int = 77) -> None:
        array, _, index = name.partition("_")
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", array)
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", index)
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
        layout = Layout(results)
        path = layout.lease(layout.part_lease_name(part))
        with LeaseKeeper(layout.leases, identity=ELSEWHERE) as keeper, keeper.lease(path.stem):
            content = orjson.loads(path.read_bytes())
        content["process"]["pid"] = pid
        path.write_bytes(orjson.dumps(content))
        os.utime(path, (time.time() - age_s,) * 2)

    return leave


def test_a_lease_names_the_task_of_its_holder(results, lease_of):
    lease_of(3, "100_3", restarts=2)
    holder = read_holder(Layout(results).lease(Layout(results).part_lease_name(3)))
    assert holder is not None
    assert (holder.task, holder.restarts) == ("100_3", 2)
    assert str(holder).startswith("process 77 on n7 in 100_3 since ")


def test_a_process_of_an_ended_task_is_lost_and_its_parts_are_free_a_minute_later(results, lease_of):
    lease_of(3, "100_3")
    lease_of(4, "100_4", pid=78)
    now = status(results)
    assert [holder.task for holder in now.holders] == ["100_3", "100_4"]
    judged = now.without_ended({"100_3": "100_3 failed"})
    assert [holder.task for holder in judged.holders] == ["100_4"]
    *_, line = status_lines(judged)
    assert line.startswith("lost: process 77 on n7 in 100_3 since ")
    assert line.endswith(": 100_3 failed; its parts are free 60 s after its last sign of life")
    assert status_dict(judged)["lost"] == [line.removeprefix("lost: ")]


def test_a_process_without_a_sign_of_life_is_lost_whoever_knows(results, lease_of):
    lease_of(3, "100_3", age_s=STALE_S + 1)
    (lost,) = status(results).lost
    assert "no sign of life since 20" in str(lost)
    assert str(lost).endswith("its parts are free")
    assert status(results).holders == ()


def test_a_process_of_this_machine_that_has_ended_is_lost_at_once(results):
    layout = Layout(results)
    dead = ProcessIdentity.current().plain() | {"started": "1"}
    path = layout.lease(layout.part_lease_name(3))
    path.write_bytes(orjson.dumps({"token": "t", "process": dead, "since_ns": 1}))
    (lost,) = status(results).lost
    assert ": it has ended; " in str(lost)


def test_of_a_task_that_was_started_again_only_the_last_start_is_at_work(results, lease_of):
    lease_of(3, "100_3")
    lease_of(4, "100_3", restarts=1, pid=78)
    now = status(results)
    assert [holder.restarts for holder in now.holders] == [1]
    assert "100_3 was started again since" in str(now.lost[0])


@pytest.mark.parametrize("state", ["PENDING", "REQUEUED", "REQUEUE_HOLD"])
def test_a_task_that_waits_has_no_process(state):
    slurm = FakeSlurm()
    slurm.in_queue = [task("100", 3, state), task("100", 4, "RUNNING"), task("100", 5, "SUSPENDED")]
    assert list(ended_tasks(["100_3", "100_4", "100_5"], slurm)) == ["100_3"]


def test_what_has_left_the_queue_is_looked_up_while_others_of_its_array_go_on():
    slurm = FakeSlurm()
    slurm.in_queue = [task("100", 3, "RUNNING")]
    slurm.in_accounting = [task("100", 4, "OUT_OF_MEMORY"), task("7", None, "CANCELLED")]
    slurm.in_memory = [task("100", 5, "FAILED")]
    assert ended_tasks(["100_3", "100_4", "100_5", "100_6", "7", ""], slurm) == {
        "100_4": "100_4 out of memory",
        "100_5": "100_5 failed",
        "7": "7 cancelled",
    }


def test_a_slurm_that_cannot_be_asked_declares_nobody_dead():
    slurm = FakeSlurm()
    slurm.in_memory = [task("100", 3, "FAILED")]
    slurm.reachable = False
    assert ended_tasks(["100_3"], slurm) == {}
