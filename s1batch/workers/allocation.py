"""Workers over all nodes of the Slurm allocation that a run is in, beside whatever else runs there."""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import dask
from distributed import Client, Scheduler, SpecCluster

from s1batch.errors import S1BatchError, UsageError
from s1batch.launching.allocation import step_environment
from s1batch.results.layout import Layout
from s1batch.session import SessionSetup
from s1batch.slurm.folder import new_name
from s1batch.slurm.site import SlurmSite, WorkersSite
from s1batch.wording import count
from s1batch.workers.crew import SETTINGS, Crew, parts_at_once, starting_scheduler, threads_of
from s1batch.workers.logs import last_lines

Say = Callable[[str], None]

END_S = 15.0
"""How long the worker processes have to end when the run does, before they are killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """The allocation that this process runs in.

    Attributes:
        job: Its number.
        nodes: How many nodes it has.
        cpus: CPUs that the job has on each node, on the one with the fewest.
    """

    job: str
    nodes: int
    cpus: int

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> Allocation:
        """Return what the environment says.

        Raises:
            UsageError: This is no allocation.
        """
        job = environment.get("SLURM_JOB_ID")
        if not job:
            raise UsageError(
                "--scheduler allocation: this is no allocation of Slurm (SLURM_JOB_ID is not set); run it inside of "
                "one, or use --scheduler slurm"
            )
        nodes = environment.get("SLURM_JOB_NUM_NODES") or environment.get("SLURM_NNODES") or "1"
        # "8(x2),4": two nodes with 8, one with 4.
        counts = re.findall(r"(\d+)(?:\(x\d+\))?(?:,|$)", environment.get("SLURM_JOB_CPUS_PER_NODE", ""))
        return cls(job=job, nodes=int(nodes), cpus=min(map(int, counts), default=os.cpu_count() or 1))

    def workers_per_node(self, asked: int | None) -> int:
        """Return how many workers each node gets: as many as were asked for in all, else one for two CPUs."""
        return -(-asked // self.nodes) if asked else max(1, self.cpus // 2)


def step_command(allocation: Allocation, each: int, threads: int, scheduler: str, site: WorkersSite) -> list[str]:
    """Return the command that starts the workers on all nodes.

    Args:
        allocation: The allocation.
        each: Workers of each node.
        threads: Parts that each of them runs at a time.
        scheduler: Address of the scheduler.
        site: What holds for workers at this site.
    """
    python = shlex.split(site.python) if site.python else [sys.executable]
    return [
        "srun",
        f"--jobid={allocation.job}",
        # Beside the engine's step, on the same nodes, without its GPUs; a worker that ends takes no other with it.
        "--overlap",
        "--gres=none",
        "--mem=0",
        "--cpu-bind=none",
        "--mpi=none",
        "--export=ALL",
        "--job-name=s1batch-workers",
        "--kill-on-bad-exit=0",
        f"--nodes={allocation.nodes}",
        f"--ntasks={allocation.nodes * each}",
        f"--ntasks-per-node={each}",
        f"--cpus-per-task={max(1, allocation.cpus // each)}",
        *(["--overcommit"] if each > allocation.cpus else []),
        *python,
        "-m",
        "distributed.cli.dask_worker",
        scheduler,
        f"--nthreads={threads}",
        "--memory-limit=0",
        f"--death-timeout={site.death_timeout_s}",
        "--no-dashboard",
        "--preload-nanny=s1batch.workers.forking",
        *([f"--interface={site.interface}"] if site.interface else []),
        *([f"--local-directory={os.path.expandvars(site.local_directory)}"] if site.local_directory else []),
    ]


@dataclass(slots=True, kw_only=True)
class StepCrew(Crew):
    """Workers that are a step of the allocation.

    Attributes:
        step: srun.
        log: What it and the workers say.
        expected: How many workers there should be.
    """

    step: subprocess.Popen[bytes]
    log: Path
    expected: int
    _least: int = field(default=0, init=False)

    def look(self, alive: int, parts: int) -> None:
        """Notice workers that were lost.

        Raises:
            S1BatchError: All of them have ended.
        """
        code = self.step.poll()
        if code is not None:
            raise S1BatchError(
                f"the workers of this allocation have ended (exit code {code}; {self.log}): {last_lines(self.log)}"
            )
        if alive < self._least:
            self.say(f"{count(self._least - alive, 'worker')} of {self.expected} lost; their parts go to the others")
        self._least = alive
        Crew.look(self, alive, parts)

    def why(self) -> str:
        """Return where their log is."""
        return f"; {self.log}: {last_lines(self.log)}"


@contextmanager
def in_allocation(setup: SessionSetup, site: SlurmSite, workers: int | None, parts: int, say: Say) -> Iterator[Crew]:
    """Have workers on all nodes of this allocation for the length of a block; all of them end with it.

    Args:
        setup: What their sessions begin with.
        site: What holds at this site.
        workers: How many in all; None: one for two CPUs.
        parts: Parts of the run.
        say: Receives lines for a person.

    Raises:
        UsageError: This is no allocation.
        S1BatchError: srun is not there.
    """
    allocation = Allocation.here()
    each = allocation.workers_per_node(workers)
    total = each * allocation.nodes
    threads = threads_of(parts, total, parts_at_once(setup.loaded, total))
    folder = Layout(Path(os.path.abspath(setup.results))).slurm / f"workers-{new_name(time.time(), allocation.job)}"
    folder.mkdir(parents=True)
    log = folder / "workers.log"
    options = {"interface": site.workers.interface, "dashboard_address": ":0"}
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(SETTINGS))
        with starting_scheduler(site.workers.interface):
            cluster = SpecCluster(
                workers={}, scheduler={"cls": Scheduler, "options": options}, silence_logs=logging.ERROR
            )
        stack.enter_context(cluster)
        command = step_command(allocation, each, threads, cluster.scheduler_address, site.workers)
        step = stack.enter_context(_started(command, log))
        client = stack.enter_context(Client(cluster, set_as_default=False))
        stack.enter_context(client.as_current())
        # The workers leave before the scheduler does, or each of them would log how it was left alone.
        stack.callback(_retire, client)
        say(f"{count(total, 'worker')} on {count(allocation.nodes, 'node')} of job {allocation.job}: {log}")
        yield StepCrew(
            client=client,
            at_start=total,
            threads=threads,
            step=step,
            log=log,
            expected=total,
            say=say,
        )


@contextmanager
def _started(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        try:
            # In a session of its own: Ctrl-C is for the client, which ends the workers in good order.
            step = subprocess.Popen(
                command,
                env=step_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise S1BatchError("srun is not installed here; run this where Slurm's commands are") from None
    try:
        yield step
    finally:
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                step.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                step.wait(END_S)
                break


def _retire(client: Client) -> None:
    with suppress(OSError, TimeoutError):
        client.retire_workers(close_workers=True)
