"""Runs in an allocation: over before its end, with all that was answered; patient with what a lost node holds."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import s1batch
from s1batch.deadline import Deadline
from s1batch.errors import LockedError, OutOfTime
from s1batch.execution import RunOptions
from s1batch.results.layout import Layout
from s1batch.results.lease import LeaseKeeper
from tests.answers import echo

SCHEMA = {"type": "object", "properties": {"length": {"type": "integer"}}, "required": ["length"]}


@pytest.fixture
def job(tmp_path):
    (tmp_path / "names.csv").write_text("name\n" + "".join(f"m{number}\n" for number in range(12)))
    return {
        "source": {"kind": "table", "path": str(tmp_path / "names.csv")},
        "job": {"kind": "ask", "prompt": "Is {{ name }} a mineral?", "schema": SCHEMA},
        "engine": {"kind": "replay", "function": "tests.answers:echo"},
        "run": {"part_chunks": 1, "parts_in_flight": 1},
    }


ASKED: list[str] = []
LIMIT = Deadline(0.0)


async def nearing(request):
    """Take half a second; with the fifth answer the end of the allocation comes nearer than that."""
    ASKED.append(request.fingerprint)
    if len(ASKED) <= 5:
        await asyncio.sleep(0.5)
    if len(ASKED) == 5:
        LIMIT.at = time.time() + 0.4
    return echo(request)


def test_a_run_ends_before_its_allocation_and_the_next_one_goes_on(job, tmp_path):
    """No question is begun whose answer would come too late; what was answered is kept."""
    job["engine"]["function"] = "tests.test_allocations:nearing"
    ASKED.clear()
    LIMIT.at = time.time() + 3600
    with pytest.raises(OutOfTime, match="the allocation ends before another answer could come"):
        s1batch.run(job, tmp_path / "out", options=RunOptions(deadline=LIMIT))
    assert len(ASKED) == 5
    before = s1batch.open_results(tmp_path / "out").scan(unfinished=True).collect().height
    assert 0 < before <= 5
    results = s1batch.run(job, tmp_path / "out", options=RunOptions(deadline=Deadline(time.time() + 600)))
    assert results.summary.added == 12 - before
    assert results.verify().complete


@pytest.mark.parametrize("held", ["run", "part-000003"])
def test_what_another_run_holds_is_waited_for(job, tmp_path, held):
    s1batch.run(job, tmp_path / "out", options=RunOptions(limit=1))
    with LeaseKeeper(Layout(tmp_path / "out").leases) as keeper:
        lease = keeper.acquire(held)
        with pytest.raises(LockedError, match="is held by process"):
            s1batch.run(job, tmp_path / "out")
        threading.Timer(0.7, keeper.release, [lease]).start()
        said: list[str] = []
        results = s1batch.run(job, tmp_path / "out", options=RunOptions(patience_s=200), say=said.append)
    assert results.verify().complete
    if held == "run":
        assert said[0].startswith("waiting up to 200 s: run is held by process"), said
