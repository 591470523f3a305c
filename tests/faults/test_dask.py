"""Dask clusters that lose workers for good, or their scheduler: one line, exit 1, and the rest is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress

import orjson
import polars as pl
import pytest
from distributed import Client

import s1batch
from tests.archives import pick_job
from tests.faults.runs import (
    ROOT,
    has_grown,
    one_line,
    rows,
    run,
    start,
    stored,
    wait_for_journal,
    write_job,
    written,
)

pytestmark = pytest.mark.slow
LOCAL = ("--scheduler", "local", "--workers", "2")

PART = 16
OPEN = 2 * PART
"""Most questions that one worker has in flight: those of two parts."""


@contextmanager
def cluster(folder, workers=2):
    """A scheduler and workers in processes of their own; yields the address and the scheduler's process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    found = folder / "scheduler.json"
    command += ["--no-dashboard", "--no-show", "--scheduler-file", str(found)]
    log = (folder / "dask.log").open("w")
    processes = [subprocess.Popen(command, env=environment, stdout=log, stderr=log)]
    try:
        while (address := address_in(found)) is None:
            time.sleep(0.05)
        for _ in range(workers):
            command = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(found)]
            command += ["--nthreads", "2", "--no-dashboard", "--death-timeout", "60"]
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        yield address, processes[0]
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.close()


def address_in(file):
    """Return where a scheduler says that it is; None until it has said so."""
    with suppress(FileNotFoundError, orjson.JSONDecodeError):
        return orjson.loads(file.read_bytes())["address"]
    return None


def workers_at(address):
    """Return the worker processes of a scheduler on this machine; those that are just starting again are not there."""
    with Client(address, set_as_default=False) as client:
        return list(client.run(os.getpid, on_error="ignore").values())


def asked_again(job):
    """Return how many questions were asked again, each as often as it was."""
    questions = (job.parent / "asked").read_text().split()
    return len(questions) - len(set(questions))


def poison(job, monkeypatch, undisturbed, *places):
    """Let some questions kill whoever asks them; return their chunk keys. `places` are (part, number) pairs."""
    rows_of = {part: undisturbed.filter(undisturbed["part"] == part) for part, _ in places}
    chosen = [rows_of[part].row(number, named=True) for part, number in places]
    monkeypatch.setenv("POISON", " ".join(row["fingerprint"] for row in chosen))
    job.write_text(job.read_text().replace("tests.answers:slowly", "tests.answers:poisoned"))
    return {row["chunk_key"] for row in chosen}


@pytest.mark.parametrize("where", ["local", "address"])
def test_chunks_that_kill_their_workers_get_a_row_that_says_so_and_all_others_are_answered(
    where, job, undisturbed, monkeypatch
):
    """Two of them in one part, one in another; mended, `--retry failed` asks these three and nothing else."""
    bad = poison(job, monkeypatch, undisturbed, (7, 3), (7, 11), (15, 0))
    out, asked = job.parent / "out", job.parent / "asked"
    if where == "local":
        ended = run(job, *LOCAL, timeout_s=900)
    else:
        with cluster(job.parent) as (address, _scheduler):
            ended = run(job, "--scheduler", address, timeout_s=900)
    assert ended.process.returncode == 3, ended.said
    found = rows(out)
    marked = found.filter(pl.col("outcome") == "failed")
    assert set(marked["chunk_key"]) == bad
    assert set(marked["reason"]) == {"worker_died"}
    assert all(
        detail.startswith("all 3 workers that asked this chunk alone died (tcp://") for detail in marked["detail"]
    )
    good = found.filter(pl.col("outcome") == "ok")
    assert good.equals(undisturbed.filter(~pl.col("chunk_key").is_in(bad)))
    assert s1batch.open_results(out).verify().complete
    assert not list((out / "leases").glob("*.alone"))
    before = asked.read_text().split()
    print(f"\n{where}: {len(before)} asked for {len(set(before))} questions")
    # Each chunk ends as many workers as the scheduler allows, then its part is halved: 16 + 8 + 4 + 2.
    deaths = 2 if where == "local" else 4
    assert asked_again(job) <= len(bad) * (deaths * OPEN + 2 * PART)
    monkeypatch.delenv("POISON")
    again = run(job, "--retry", "failed")
    assert again.process.returncode == 0, again.said
    assert rows(out).equals(undisturbed)
    assert len(asked.read_text().split()) == len(before) + 3


@pytest.mark.parametrize("where", ["local", "address"])
def test_workers_killed_in_turn_cost_what_they_had_in_flight(where, job, undisturbed):
    """Six kills, one worker after the other; at the end the rows are those of an undisturbed run."""
    out, kills = job.parent / "out", 6
    with ExitStack() as stack:
        options: tuple[str, ...] = LOCAL
        if where == "address":
            address, _ = stack.enter_context(cluster(job.parent))
            options = ("--scheduler", address)
        running = start(job, *options)
        for number in range(kills):
            has_grown(out, running, written(out) + 15_000, timeout_s=60)
            workers = running.workers() if where == "local" else workers_at(address)
            if workers and running.process.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(sorted(workers)[number % len(workers)], signal.SIGKILL)
        assert running.wait() == 0, running.said
    assert rows(out).equals(undisturbed)
    assert s1batch.open_results(out).verify().complete
    again = asked_again(job)
    print(f"\n{where}: {again} of {len(undisturbed)} questions asked again after {kills} kills")
    assert again <= kills * OPEN, "more than the open parts of the workers that were killed"


def test_a_scheduler_that_dies_ends_the_run_in_one_line(job, undisturbed, hold):
    """Exit 1; what was answered is on file, and the next run completes, here without a cluster."""
    out = job.parent / "out"
    hold(150)
    with cluster(job.parent) as (address, scheduler):
        running = start(job, "--scheduler", address)
        wait_for_journal(out, running, 20_000)
        scheduler.send_signal(signal.SIGKILL)
        hold.release()
        began = time.monotonic()
        assert running.wait() == 1, running.said
        print(f"\nthe client ended {time.monotonic() - began:.1f} s after the scheduler")
        running.wait_for_children()
        assert "scheduler" in one_line(running.said)
    known = set(stored(out)["fingerprint"])
    assert known
    before = len((job.parent / "asked").read_text().split())
    again = run(job)
    assert again.process.returncode == 0, again.said
    assert rows(out).equals(undisturbed)
    assert s1batch.open_results(out).verify().complete
    assert not known.intersection((job.parent / "asked").read_text().split()[before:])
    print(f"{asked_again(job)} of {len(undisturbed)} questions asked again")
    assert asked_again(job) <= 2 * OPEN


def test_a_killed_client_of_a_cluster_goes_on_with_the_same_cluster(job, undisturbed, hold):
    """Its workers live on; the next run takes their parts over, and asks again what was in flight."""
    out, kills = job.parent / "out", 2
    hold(150)
    with cluster(job.parent) as (address, _):
        for _ in range(kills):
            running = start(job, "--scheduler", address)
            has_grown(out, running, 20_000 if written(out) < 20_000 else written(out) + 5_000, timeout_s=20)
            running.kill()
        hold.release()
        ended = run(job, "--scheduler", address)
        assert ended.process.returncode == 0, ended.said
    assert rows(out).equals(undisturbed)
    assert s1batch.open_results(out).verify().complete
    print(f"\n{asked_again(job)} of {len(undisturbed)} questions asked again after {kills} kills of the client")
    assert asked_again(job) <= kills * 2 * OPEN


def test_two_jobs_on_one_cluster_do_not_meet(job, archive, undisturbed, tmp_path):
    """Each has its own sessions and parts, in its own results folder."""
    other = write_job(tmp_path, pick_job(archive, "shy", run={"part_chunks": 16}), "other.yaml")
    with cluster(job.parent) as (address, _):
        first = start(job, "--scheduler", address)
        second = run(other, "--scheduler", address, out=tmp_path / "other")
        assert first.wait() == 0, first.said
    assert second.process.returncode == 0, second.said
    assert rows(job.parent / "out").equals(undisturbed)
    assert set(rows(tmp_path / "other")["contain"]) == {False}
