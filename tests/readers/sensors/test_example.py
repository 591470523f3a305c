"""The example runs with one command, resumes, and its damage ends in rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import s1batch

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_the_example_runs_verifies_and_resumes(tmp_path):
    command = [sys.executable, "-m", "examples.sensors.run", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "21 rows for 21 chunks" in first.stdout
    rows = s1batch.open_results(tmp_path / "results").scan().collect()
    assert rows.filter(rows["outcome"] == "unreadable")["reason"].to_list() == ["decode_error"] * 3
    assert "truth: 2 lines" in first.stdout
    score = json.loads((tmp_path / "results" / "metrics" / "score.json").read_text())
    assert "robust" in json.dumps(score)
    assert rows.filter(rows["absent_frac"] > 0)["source"].unique().to_list() == ["pump1.zarr/vibration"]
    assert rows.filter(rows["nan_frac"] > 0)["source"].n_unique() == 3
    again = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "nothing to do" in again.stdout + again.stderr
