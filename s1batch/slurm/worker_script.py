"""The script of a job that is a Dask worker of a run: a pure function from what it needs to its text."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from s1batch.slurm.script import directive, literal


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerScript:
    """Everything that the script of a worker says.

    Attributes:
        name: Name of the worker.
        job_name: Name of the Slurm job; that of all workers of a run.
        results: The results folder.
        folder: Where scripts and logs of the run's workers lie.
        workdir: Where the worker runs.
        scheduler: Address of the run's scheduler.
        threads: Parts that it runs at a time.
        python: Python as the worker calls it, shell text; it may be that of a container.
        setup: Lines before that: modules, environments.
        sbatch: Options of sbatch; None: without a value.
        interface: The network interface that it is reached at; None: Dask finds one.
        local_directory: Folder on the node for Dask's own files, shell text; None: that of temporary files.
        memory: Memory at which the worker process is ended before Slurm ends the job, as Dask reads it; None: any.
        death_timeout_s: How long it looks for the scheduler before it ends.
    """

    name: str
    job_name: str
    results: str
    folder: str
    workdir: str
    scheduler: str
    threads: int
    python: str
    setup: tuple[str, ...] = ()
    sbatch: Mapping[str, str | None]
    interface: str | None = None
    local_directory: str | None = None
    memory: str | None = None
    death_timeout_s: int = 60


def worker_script(spec: WorkerScript) -> str:
    """Return the script of a worker's job."""
    own: dict[str, str | None] = {
        "job-name": spec.job_name,
        "ntasks": "1",
        "chdir": spec.workdir,
        "output": f"{literal(spec.folder)}/logs/{literal(spec.name)}-%j.log",
        # The run itself puts another worker in the place of one that was lost.
        "no-requeue": None,
    }
    lines = [
        "#!/bin/bash",
        f"# A worker of the run that writes {spec.results}; it ends with the run",
        *(directive(name, value) for name, value in {**own, **spec.sbatch}.items()),
        "",
        "set -e",
        *spec.setup,
        "",
        worker_command(spec),
    ]
    return "\n".join(lines) + "\n"


def worker_command(spec: WorkerScript) -> str:
    """Return the command of a worker, by which the shell replaces itself."""
    words = [
        f"exec {spec.python} -m distributed.cli.dask_worker {shlex.quote(spec.scheduler)}",
        *([f"--name {shlex.quote(spec.name)}"] if spec.name else []),
        f"--nthreads {spec.threads}",
        f"--memory-limit {spec.memory or 0}",
        f"--death-timeout {spec.death_timeout_s}",
        *([f"--interface {shlex.quote(spec.interface)}"] if spec.interface else []),
        *([f"--local-directory {spec.local_directory}"] if spec.local_directory else []),
        "--no-dashboard",
        "--preload-nanny s1batch.workers.forking",
    ]
    return " \\\n    ".join(words)
