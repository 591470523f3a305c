"""Scans and the windows behind them on Dask workers that die of one of them: a part has two turns, and either may."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest

import s1batch
from tests.archives import pick_job, write_trace
from tests.faults.runs import rows, run, write_job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
EVENTS = (123_456, 456_789)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Noise for two scans, and a pulse in each."""
    values = np.random.default_rng(5).normal(0, 100, 600_000)
    around = np.arange(-1000, 1000)
    for event in EVENTS:
        values[event - 1000 : event + 1000] += 20_000 * np.exp(-((around / 30) ** 2))
    folder = tmp_path_factory.mktemp("two")
    write_trace(folder / "a.mseed", values)
    return folder


@pytest.fixture
def job(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    scans = pick_job(archive, "hidden_poisoned", long_series="coarse_to_fine")
    scans["source"]["components"] = "Z"
    scans["window"] = {"length": 300_000, "overlap": "10%", "longest_samples": 240_000}
    scans["coarse_to_fine"] = {"scan_rate_hz": 1, "length": "60s"}
    return write_job(tmp_path, scans)


@pytest.fixture
def undisturbed(job, tmp_path):
    assert run(job, out=tmp_path / "undisturbed").process.returncode == 0
    (tmp_path / "asked").unlink()
    return rows(tmp_path / "undisturbed")


def on_workers(job, poisonous, monkeypatch):
    """Run on two workers that die of a chunk; return the rows, of which this one's must say so."""
    monkeypatch.setenv("POISON", poisonous["fingerprint"])
    out = job.parent / "out"
    ended = run(job, "--scheduler", "local", "--workers", "2", timeout_s=300)
    assert ended.process.returncode == 3, ended.said
    verdict = s1batch.open_results(out).verify()
    assert (verdict.ok, verdict.complete) == (True, True), verdict.findings
    found = rows(out)
    (marked,) = found.filter(pl.col("outcome") == "failed").rows(named=True)
    assert (marked["chunk_key"], marked["reason"]) == (poisonous["chunk_key"], "worker_died")
    return found


def test_a_window_that_a_scan_called_for_costs_its_own_row(job, undisturbed, monkeypatch):
    """The scan is not asked again for it, and the windows beside it are answered."""
    called_for = undisturbed.filter((pl.col("outcome") == "ok") & (pl.col("decimation") == 1))
    bad = called_for.row(0, named=True)
    found = on_workers(job, bad, monkeypatch)
    others = pl.col("chunk_key") != bad["chunk_key"]
    assert found.filter(others).equals(undisturbed.filter(others))
    scans = set(undisturbed.filter(pl.col("decimation") > 1)["fingerprint"])
    asked = Counter((job.parent / "asked").read_text().split())
    assert scans
    assert {asked[scan] for scan in scans} == {1}


def test_a_scan_that_ends_its_workers_calls_for_all_its_windows(job, undisturbed, monkeypatch):
    bad = undisturbed.filter(pl.col("decimation") > 1).row(0, named=True)
    found = on_workers(job, bad, monkeypatch)
    plan = pl.read_parquet(job.parent / "out/plan.parquet")
    behind = plan.filter(pl.col("condition") == bad["chunk_key"])["chunk_key"]
    assert len(behind) > 1
    assert set(found.filter(pl.col("chunk_key").is_in(behind.implode()))["outcome"]) == {"ok"}
