"""The example runs with one command, resumes, and leaves a row for everything in its corpus."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_the_example_runs_verifies_and_resumes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.papers.run", str(tmp_path / "papers")]
    first = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=800)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "clean: every planned chunk has exactly one row" in first.stdout
    rows = pl.read_parquet(tmp_path / "papers" / "results" / "rows" / "*.parquet")
    broken = rows.filter(pl.col("outcome") == "unreadable")
    assert sorted(broken["reason"]) == ["decode_error", "decode_error", "not_readable"]
    answered = rows.filter(pl.col("outcome") == "ok")
    assert answered.height >= 15
    statuses = answered["claims"].explode().struct.field("quote_status")
    assert set(statuses) <= {"exact", "normalised", "unverified"}
    assert "quotes and numbers, of all claims" in first.stdout
    again = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=800)
    assert "nothing to do" in again.stdout + again.stderr
