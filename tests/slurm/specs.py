"""Submissions for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from s1batch.slurm.spec import ArraySlice, SubmissionSpec
from s1batch.slurm.worker_script import WorkerScript

PLAIN = SubmissionSpec(
    name="20260101T000000-abcd",
    created="2026-01-01T00:00:00+00:00",
    s1batch="0.1.0",
    job="/data/picks.yaml",
    job_name="picks",
    overrides=(),
    results="/data/results/picks",
    folder="/data/results/picks/slurm/20260101T000000-abcd",
    workdir="/home/me",
    shards=8,
    arrays=(ArraySlice(offset=0, indices=tuple(range(8))),),
    accept=None,
    command="/opt/venv/bin/python -m s1batch",
    setup=(),
    sbatch={},
    closing=True,
    closing_sbatch={},
    signal_before_s=180,
    requeues=10,
)


def spec(**changes: Any) -> SubmissionSpec:
    return replace(PLAIN, **changes)


def plain_script(**changes: Any) -> WorkerScript:
    """Return what the script of a worker says, with some fields changed."""
    fields: dict[str, Any] = {
        "name": "worker-0",
        "job_name": "s1batch-workers-0123abcd",
        "results": "/data/results/picks",
        "folder": "/data/results/picks/slurm/workers-20260101T000000-abcd",
        "workdir": "/data",
        "scheduler": "tcp://10.0.0.1:4000",
        "threads": 4,
        "python": "/usr/bin/python3",
        "sbatch": {},
    }
    return WorkerScript(**{**fields, **changes})
