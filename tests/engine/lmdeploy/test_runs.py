"""Plans and runs of `engine.kind: lmdeploy` where LMDeploy is not installed, or does not come up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

import s1batch
from s1batch.errors import MissingExtra
from tests.archives import pick_job, write_archive

ROOT = Path(__file__).resolve().parents[3]

ENGINE = {"kind": "lmdeploy", "model": "internlm/Intern-S1-Pro", "tp": 16, "trust_remote_code": True}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "archive", stations=1, seconds=100)


def test_a_plan_needs_no_lmdeploy_and_applies_its_rules(archive: Path) -> None:
    plan = s1batch.plan(pick_job(archive, engine=ENGINE))
    assert plan.facts.rules.longest_series == 240_000
    assert "TurboMind does not serve it, using LMDeploy's PyTorch engine" in plan.facts.told
    short = {**ENGINE, "engine_config": {"session_len": 300}}
    refused = s1batch.plan(pick_job(archive, engine=short))
    assert refused.totals.refused == {"context_too_long": refused.totals.chunks}


def test_a_run_without_lmdeploy_ends_before_anything_is_planned(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match=r"not installed here: pip install -c constraints/lmdeploy\.txt"):
        s1batch.run(pick_job(archive, engine=ENGINE), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_signal_ends_a_run_whose_engine_is_still_loading(archive: Path, tmp_path: Path) -> None:
    """Loading takes up to half an hour: nobody wants to wait for that only to stop."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n: >{tmp_path}/started\nexec sleep 1000\n")
    python.chmod(0o755)
    job: dict[str, Any] = pick_job(archive, engine={**ENGINE, "python": str(python), "stop_grace_s": 1.0})
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**job, "output": "out"}))
    command = [sys.executable, "-m", "s1batch", "run", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as running:
        while not (tmp_path / "started").exists():
            time.sleep(0.02)
        below = psutil.Process(running.pid).children(recursive=True)
        assert len(below) == 2, "a guard and the engine process"
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=250)
    assert running.returncode == 75, said
    assert "Traceback" not in said
    assert not any(process.is_running() for process in below)
