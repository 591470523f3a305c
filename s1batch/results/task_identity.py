"""Which task of a batch system a process belongs to, as its environment says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskIdentity:
    """A task of Slurm, and which of its starts.

    Attributes:
        name: `ARRAY_INDEX`, or the number of a job of its own; empty outside of Slurm. To requeue a task, it must be
            named so: the last task of an array has the array's own number, and that would requeue all of them.
        restarts: How often Slurm has started it again.
        node: Where it runs.
    """

    name: str
    restarts: int
    node: str

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> TaskIdentity:
        """Return what the environment says."""
        array, index = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
        name = f"{array}_{index}" if array and index else environment.get("SLURM_JOB_ID", "")
        restarts = environment.get("SLURM_RESTART_COUNT", "")
        node = environment.get("SLURMD_NODENAME") or os.uname().nodename
        return cls(name=name, restarts=int(restarts) if restarts.isdigit() else 0, node=node)
