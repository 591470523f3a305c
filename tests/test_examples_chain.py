"""The examples of chained stages and of joined sources run with one command, and verify."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import s1batch
from s1batch.jobfile import load_job

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "results"),
    [("chain", ("results/pick", "results/stations")), ("multimodal", ("results",)), ("tables", ("results",))],
)
def test_an_example_runs_verifies_and_resumes(tmp_path, name, results):
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", f"examples.{name}.run", str(tmp_path)],
            capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing to do" in done.stdout + done.stderr
    for folder in results:
        assert s1batch.open_results(tmp_path / folder).verify(sources=True).complete


@pytest.mark.parametrize("page", ["tables.md", "multimodal.md"])
def test_the_jobs_of_the_documentation_are_valid(page, tmp_path):
    text = (ROOT / "docs" / page).read_text()
    blocks = [block.partition("```")[0] for block in text.split("```yaml\n")[1:]]
    whole = [block for block in blocks if block.startswith("name:")]
    assert whole
    rest = {
        "source": "source: {kind: seismic, paths: [a]}",
        "job": "job: {kind: ask, prompt: why}",
        "engine": "engine: {kind: reference}",
    }
    path = tmp_path / "job.yaml"
    for block in blocks:
        missing = [line for name, line in rest.items() if not re.search(f"^{name}:", block, re.MULTILINE)]
        path.write_text("\n".join([block, *missing]))
        load_job(path)
