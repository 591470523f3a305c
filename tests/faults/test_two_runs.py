"""Two runs that meet in one results folder, and runs that meet the results of another job."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

import s1batch
from s1batch.results.lease import LeaseKeeper
from tests.archives import pick_job, write_archive
from tests.faults.runs import held, one_line, rows, run, start, stored, wait_for_journal, write_job

RUN = {"part_chunks": 8, "parts_in_flight": 2}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("data") / "archive", stations=4, seconds=400)


@pytest.fixture
def job(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    return write_job(tmp_path, pick_job(archive, "slowly", run=RUN))


def asked(job):
    path = job.parent / "asked"
    return path.read_text().split() if path.exists() else []


def test_the_second_run_ends_with_4_at_once_and_after_a_kill_the_next_begins_at_once(job):
    """The second says who is at work; the lease of a process that was killed on this machine holds nobody up."""
    out = job.parent / "out"
    first = start(job, env=held(50))
    wait_for_journal(out, first)
    second = run(job)
    assert second.process.returncode == 4, second.said
    assert f"run is held by process {first.process.pid} on {socket.gethostname()}" in one_line(second.said)
    assert first.process.poll() is None, "the first run was over before the second began"
    first.kill()
    known = set(stored(out)["fingerprint"])
    before = len(asked(job))
    third = run(job)
    assert third.process.returncode == 0, third.said
    assert not known.intersection(asked(job)[before:])
    assert s1batch.open_results(out).verify().ok


@pytest.mark.slow
def test_overlapping_shards_keep_out_of_one_another(job):
    """Whole run, halves and thirds at the same time: some end with 4, no chunk is asked twice, and all ends well."""
    with ThreadPoolExecutor(4) as pool:
        shards = [(), ("--shard", "0/2"), ("--shard", "1/3"), ("--shard", "1/2")]
        ended = list(pool.map(lambda options: run(job, *options), shards))
    for each in ended:
        assert each.process.returncode in (0, 4), each.said
        if each.process.returncode == 4:
            assert "is held by process" in one_line(each.said)
    last = run(job)
    assert last.process.returncode == 0, last.said
    assert s1batch.open_results(job.parent / "out").verify().ok
    assert rows(job.parent / "out").height == 156
    assert len(asked(job)) == len(set(asked(job))) == 156


@pytest.mark.slow
def test_shards_that_plan_at_the_same_time_share_one_plan(job):
    """Three shards of a fresh folder: one plans, the others wait for it, and together they are the whole."""
    with ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(lambda index: run(job, "--shard", f"{index}/3"), range(3)))
    assert [each.process.returncode for each in ended] == [0, 0, 0], [each.said for each in ended]
    assert sum("planned 156 chunks" in each.said for each in ended) == 1
    assert s1batch.open_results(job.parent / "out").verify().complete
    assert len(asked(job)) == 156


class Hours:
    """A file system's clock that passes an hour whenever somebody sleeps."""

    def __init__(self):
        self.ahead_ns = 0

    def file_time_ns(self, folder):
        return time.time_ns() + self.ahead_ns

    def touch(self, path):
        raise AssertionError("nobody holds a lease long enough here")

    def sleep(self, seconds):
        self.ahead_ns += 3600 * 10**9


def forge_lease(out, name, age_s):
    """Write the lease of a run on another host, with its last sign of life some time ago."""
    path = out / "leases" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    process = {"host": "elsewhere", "boot": "b", "namespace": "n", "pid": 7, "started": "1"}
    path.write_bytes(orjson.dumps({"token": "0123456789abcdef", "process": process, "since_ns": time.time_ns()}))
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


@pytest.mark.slow
def test_the_lease_of_another_host_holds_until_it_is_stale(job):
    """Fresh, it ends the run with 4; without a sign of life for a minute, the run watches it and takes over."""
    out = job.parent / "out"
    forge_lease(out, "run", age_s=0)
    held = run(job)
    assert held.process.returncode == 4, held.said
    assert "run is held by process 7 on elsewhere" in one_line(held.said)
    forge_lease(out, "run", age_s=61)
    forge_lease(out, "part-000001", age_s=61)
    ended = run(job)
    assert ended.process.returncode == 0, ended.said


@pytest.mark.parametrize("ahead_s", [-7 * 3600, 7 * 3600])
def test_a_lease_from_another_time_is_watched_before_it_is_taken(ahead_s, tmp_path):
    """The holder's clock was hours off, or ours is: only that nothing moves for two heartbeats decides."""
    forge_lease(tmp_path, "run", age_s=ahead_s)
    clock = Hours()
    with LeaseKeeper(tmp_path / "leases", clock=clock).lease("run"):
        assert clock.ahead_ns >= 3600 * 10**9


@pytest.mark.slow
class TestAnotherJob:
    def test_changed_answers_are_refused_with_every_field_named(self, job):
        """Window, prompt and sampling: exit 4 in one line, and the results stay as they are."""
        assert run(job, "--limit", "8").process.returncode == 0
        before = stored(job.parent / "out")
        changed = ("--set", "window.length=30s", "--set", "job.seed=5", "--set", "source.rate_hz=50")
        refused = run(job, *changed)
        assert refused.process.returncode == 4, refused.said
        line = one_line(refused.said)
        for field in (
            "window.length: '20s' there, '30s' now",
            "job.seed: 0 there, 5 now",
            "source.rate_hz: None there",
        ):
            assert field in line, line
        assert stored(job.parent / "out").equals(before)

    def test_changed_places_of_work_are_fine(self, job):
        """Workers, limits, names, part sizes of a plan that is made: the run goes on."""
        assert run(job, "--limit", "8").process.returncode == 0
        places = (
            "--set", "name=another", "--set", "run.parts_in_flight=7", "--set", "run.prefetch=1", "--set",
            "run.part_chunks=100", "--set", "run.drain_s=1", "--set", "engine.latency_s=0.001",
        )  # fmt: skip
        assert run(job, *places, "--limit", "30").process.returncode == 0
        ended = run(job, *places, "--scheduler", "local", "--workers", "2")
        assert ended.process.returncode == 0, ended.said
        assert len(asked(job)) == len(set(asked(job))) == 156
