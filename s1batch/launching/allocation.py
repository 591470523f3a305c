"""Where the servers of a run start: on its own host, or on nodes of the Slurm allocation that it runs in.

What is said of srun here was seen on a real cluster (Slurm 22.05): a second step starts only with `--overlap`; a step
gets all GPUs of its job on each node; the end of srun's standard input reaches every task, which then end in their own
time; SIGTERM makes srun kill them at once; and when srun itself is killed, Slurm ends them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from s1batch.errors import UsageError

PATIENCE_S = 30.0
"""How long `scontrol` may take."""

_KEPT = ("SLURM_JOB_", "SLURM_ARRAY_", "SLURM_SUBMIT_")
_KEPT_NAMES = frozenset(
    {
        "SLURM_CLUSTER_NAME",
        "SLURM_CONF",
        "SLURM_JOBID",
        "SLURM_JWT",
        "SLURM_RESTART_COUNT",
        "SLURM_WORKING_CLUSTER",
    }
)
_INPUTS = ("SLURM_", "SBATCH_", "SALLOC_", "SRUN_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one run starts its servers.

    Attributes:
        hosts: Names or addresses, in the order of the servers' ranks.
        launcher: Words before a command that start it on every one of them; empty: here.
    """

    hosts: tuple[str, ...]
    launcher: tuple[str, ...] = ()

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the command that starts another one on every host."""
        return [*self.launcher, *words]

    def environment(self, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Return the environment to start it with."""
        return step_environment(environment) if self.launcher else dict(environment)


def find_place(nodes: int | Literal["auto"], here: str, environment: Mapping[str, str] = os.environ) -> Place:
    """Return where servers start that were asked for on so many nodes.

    Args:
        nodes: How many; `auto`: all of the allocation; 1: this host.
        here: The name or address under which this host is asked.
        environment: Slurm's variables are taken from it.

    Raises:
        UsageError: There is no allocation, or it has fewer nodes.
    """
    if nodes == 1:
        return Place(hosts=(here,))
    listed = environment.get("SLURM_JOB_NODELIST", "")
    if not environment.get("SLURM_JOB_ID") or not listed:
        raise UsageError(
            f"engine.nodes: {nodes}: this is no Slurm allocation: use `s1batch submit`, sbatch or salloc, or leave "
            "nodes out"
        )
    hosts = node_names(listed, environment)
    count = len(hosts) if nodes == "auto" else nodes
    if count == 1:
        return Place(hosts=(here,))
    if count > len(hosts):
        raise UsageError(
            f"engine.nodes: {nodes}: this allocation has {len(hosts)} ({listed}): allocate more (--sbatch "
            f"nodes={nodes}), or set nodes: auto"
        )
    return Place(hosts=hosts[:count], launcher=srun_words(hosts[:count]))


def srun_words(hosts: Sequence[str]) -> tuple[str, ...]:
    """Return the words of srun that start one task on each host, and end all of them when one fails."""
    return (
        "srun",
        "--overlap",
        "--kill-on-bad-exit=1",
        f"--nodes={len(hosts)}",
        f"--ntasks={len(hosts)}",
        "--ntasks-per-node=1",
        f"--nodelist={','.join(hosts)}",
        "--mem=0",
        "--cpu-bind=none",
        "--mpi=none",
        "--export=ALL",
        "--label",
        "--job-name=s1batch-servers",
    )


def step_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which srun finds its job, and nothing else that would shape its step.

    A batch script's variables are options of srun (SLURM_NTASKS, SLURM_MEM_PER_CPU, SLURM_CPU_BIND, SLURM_EXPORT_ENV,
    ...), and some of them cannot be joined with those that are given here.
    """
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(_INPUTS) or name.startswith(_KEPT) or name in _KEPT_NAMES
    }


def node_names(listed: str, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the names that a list of Slurm's (`n[1-2,5]`) stands for, in its order.

    Raises:
        UsageError: `scontrol`, which knows how to read it, cannot be asked.
    """
    if not any(sign in listed for sign in "[,"):
        return (listed,)
    command = ["scontrol", "show", "hostnames", listed]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, env=dict(environment), check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{' '.join(command)}: {error}; have Slurm's programs on the PATH") from error
    names = tuple(done.stdout.split())
    if done.returncode != 0 or not names:
        raise UsageError(f"{' '.join(command)}: {' '.join(done.stderr.split()) or 'says nothing'}")
    return names
