"""A whole command whose worker jobs Slurm refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

JOB = """\
source: {kind: table, path: rows.csv}
job: {kind: ask, prompt: "{{ q }}"}
engine: {kind: replay, function: "tests.answers:echo"}
output: out
"""


@pytest.mark.slow
def test_what_slurm_says_is_told_once_and_without_a_traceback(tmp_path):
    (tmp_path / "rows.csv").write_text("q\none\ntwo\n")
    (tmp_path / "job.yaml").write_text(JOB)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: x' >&2\nexit 1\n")
    (programs / "sbatch").chmod(0o755)
    (tmp_path / "site.toml").write_text('[slurm.workers]\ninterface = "lo"\n')
    done = subprocess.run(
        [sys.executable, "-m", "s1batch", "run", "job.yaml", "--scheduler", "slurm"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "S1BATCH_SITE": "site.toml",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Traceback" not in said, said
    assert said.count("sbatch refused: sbatch: error: invalid partition specified: x") == 1, said
