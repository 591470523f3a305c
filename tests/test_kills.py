"""Real processes, really killed: running again ends in the rows of an undisturbed run, and nothing is asked twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import yaml

import s1batch
from tests.archives import pick_job, write_archive
from tests.faults.runs import PATIENCE_S, held, written

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    archive = write_archive(tmp_path / "archive", stations=6, seconds=400)
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(pick_job(archive, "slowly", run={"part_chunks": 16, "parts_in_flight": 2})))
    return path


def start(job, **variables):
    command = [sys.executable, "-m", "s1batch", "run", str(job), "-o", str(job.parent / "out")]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **variables}, stderr=subprocess.PIPE, text=True)


def start_and_wait(job):
    """Start a run and wait until some answers, but not all of them, are on file; it waits then to be released."""
    process = start(job, **held(100, job.parent / "released"))
    give_up = time.monotonic() + PATIENCE_S
    while written(job.parent / "out") < 10_000:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.005)
    return process


def rows(path):
    return pl.read_parquet(path / "rows/*.parquet").drop("seconds").sort("chunk_key")


def test_sigkill_in_the_middle_then_run_again(job):
    process = start_and_wait(job)
    process.kill()
    process.wait()
    process.stderr.close()
    known = s1batch.open_results(job.parent / "out").scan(unfinished=True).collect()["fingerprint"].to_list()
    asked_before = (job.parent / "asked").read_text().split()
    assert 0 < len(known) < 234
    results = s1batch.run(job, job.parent / "out")
    assert results.summary.outcomes == {"ok": 234}
    assert results.verify().ok
    asked_after = (job.parent / "asked").read_text().split()[len(asked_before) :]
    assert not set(asked_after) & set(known), "an answer that was received was asked again"
    whole = s1batch.run(job, job.parent / "whole")
    assert rows(job.parent / "out").equals(rows(whole.path))


@pytest.mark.slow
def test_twenty_kills_at_random_moments(job):
    dice = random.Random(1)
    for _ in range(20):
        process = start(job)
        time.sleep(dice.uniform(0.3, 2.5))
        process.kill()
        process.wait()
        process.stderr.close()
    results = s1batch.run(job, job.parent / "out")
    assert results.summary.outcomes == {"ok": 234}
    assert results.verify().ok
    whole = s1batch.run(job, job.parent / "whole")
    assert rows(job.parent / "out").equals(rows(whole.path))


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGTERM, signal.SIGUSR2))],
)
def test_a_signal_ends_in_good_order_with_75(job, number):
    process = start_and_wait(job)
    process.send_signal(number)
    (job.parent / "released").touch()
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 75, said
    assert "run the same command to go on" in said
    asked = (job.parent / "asked").read_text().split()
    known = s1batch.open_results(job.parent / "out").scan(unfinished=True).collect().height
    assert known == len(asked), "an answer on its way was not waited for"
    results = s1batch.run(job, job.parent / "out")
    assert results.summary.outcomes == {"ok": 234}
