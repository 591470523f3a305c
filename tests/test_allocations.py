"""Runs in an allocation: over before its end, with all that was answered; patient with what a lost node holds."""

from __future__ import annotations

import threading
import time

import pytest

import s1batch
from s1batch.deadline import Deadline
from s1batch.errors import LockedError, OutOfTime
from s1batch.execution import RunOptions
from s1batch.results.layout import Layout
from s1batch.results.lease import LeaseKeeper

SCHEMA = {"type": "object", "properties": {"length": {"type": "integer"}}, "required": ["length"]}


@pytest.fixture
def job(tmp_path):
    (tmp_path / "names.csv").write_text("name\n" + "".join(f"m{number}\n" for number in range(12)))
    return {
        "source": {"kind": "table", "path": str(tmp_path / "names.csv")},
        "job": {"kind": "ask", "prompt": "Is {{ name }} a mineral?", "schema": SCHEMA},
        "engine": {"kind": "replay", "function": "tests.answers:echo", "latency_s": 0.4},
        "run": {"part_chunks": 1, "parts_in_flight": 1},
    }


def test_a_run_ends_before_its_allocation_and_the_next_one_goes_on(job, tmp_path):
    end = time.time() + 2.5
    with pytest.raises(OutOfTime, match="the allocation ends before another answer could come"):
        s1batch.run(job, tmp_path / "out", options=RunOptions(deadline=Deadline(end)))
    assert time.time() < end + 1
    before = s1batch.open_results(tmp_path / "out").scan(unfinished=True).collect().height
    assert 0 < before < 12
    results = s1batch.run(job, tmp_path / "out", options=RunOptions(deadline=Deadline(time.time() + 600)))
    assert results.summary.added == 12 - before
    assert results.verify().complete


@pytest.mark.parametrize("held", ["run", "part-000003"])
def test_what_another_run_holds_is_waited_for(job, tmp_path, held):
    job["engine"]["latency_s"] = 0
    s1batch.run(job, tmp_path / "out", options=RunOptions(limit=1))
    with LeaseKeeper(Layout(tmp_path / "out").leases) as keeper:
        lease = keeper.acquire(held)
        with pytest.raises(LockedError, match="is held by process"):
            s1batch.run(job, tmp_path / "out")
        threading.Timer(1.5, keeper.release, [lease]).start()
        results = s1batch.run(job, tmp_path / "out", options=RunOptions(patience_s=30))
    assert results.verify().complete
