"""When the allocation that this process runs in ends."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from s1batch.deadline import Deadline
from s1batch.results.task_identity import TaskIdentity
from s1batch.slurm.client import Slurm, SlurmPrograms

RESERVE_S = 30.0
"""How long before the end of an allocation a run is over: journals are flushed, leases given back, the task requeued.

Slurm looks at limits every 30 s or so, so the end itself comes late rather than early.
"""


def allocation_end(environment: Mapping[str, str] = os.environ, slurm: Slurm | None = None) -> float | None:
    """Return when this allocation ends, seconds since 1970; None outside of one, or when it has no limit.

    Args:
        environment: SLURM_JOB_END_TIME is taken from it where Slurm sets that (from 22.05 on).
        slurm: Who is asked else.
    """
    # By its own name: that of the array, which its last task has as well, would give the times of all of them.
    job = TaskIdentity.here(environment).name
    if not job:
        return None
    told = environment.get("SLURM_JOB_END_TIME", "")
    end = float(told) if told.isdigit() else (slurm or SlurmPrograms()).end_time(job)
    # What a shell inherited from an allocation that is long over says nothing about this process.
    return end if end is not None and end > time.time() else None


def working_deadline(environment: Mapping[str, str] = os.environ, slurm: Slurm | None = None) -> Deadline | None:
    """Return by when a run in this allocation must be over, which moves with its limit; None when it has no limit.

    Args:
        environment: See `allocation_end`.
        slurm: Who is asked, now where the environment says nothing, and again later.
    """
    end = allocation_end(environment, slurm)
    if end is None:
        return None
    job, asked = TaskIdentity.here(environment).name, slurm or SlurmPrograms()

    def look() -> float | None:
        now = asked.end_time(job)
        return None if now is None else now - RESERVE_S

    return Deadline(end - RESERVE_S, look)
