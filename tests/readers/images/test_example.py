"""The example runs in one command, is proved, and goes on when it is run again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import s1batch
from s1batch.jobfile import load_job

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_the_example_runs_and_resumes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.images.run", str(tmp_path / "images")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for said in ("clean: every planned chunk has exactly one row", "nothing to do"):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=800)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "EPSG:32633" in done.stdout
        assert said in done.stdout + done.stderr
    results = s1batch.open_results(tmp_path / "images" / "results")
    rows = results.scan().collect()
    assert set(rows["outcome"]) == {"ok", "length", "unreadable"}
    assert results.merged().collect().height > 0


def test_the_job_file_of_the_documentation_is_one() -> None:
    text = (ROOT / "docs" / "images.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert load_job(yaml.safe_load(block)).spec.source.kind == "images"
