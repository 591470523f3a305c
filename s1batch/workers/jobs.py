"""Workers as jobs of Slurm, through dask-jobqueue: replaced when they are lost, never more than there are parts."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dask
from dask_jobqueue.core import JobQueueCluster
from dask_jobqueue.slurm import SLURMJob
from distributed import Client
from distributed.deploy.spec import ProcessInterface

from s1batch.canonical import digest
from s1batch.errors import S1BatchError
from s1batch.results.layout import Layout
from s1batch.session import SessionSetup
from s1batch.slurm.client import JobState, Slurm, SlurmError, SlurmPrograms
from s1batch.slurm.flags import joined
from s1batch.slurm.folder import new_name
from s1batch.slurm.site import SlurmSite
from s1batch.slurm.worker_script import WorkerScript, worker_script
from s1batch.wording import count
from s1batch.workers.crew import SETTINGS, Crew, parts_at_once, starting_scheduler, threads_of
from s1batch.workers.lifetime import Lifetime
from s1batch.workers.logs import last_lines

Say = Callable[[str], None]

QUEUE_EVERY_S = 10.0
"""How often the queue is looked at."""

FAILURES = 3
"""Jobs that end one after the other before their worker began, after which there is no point in another one."""


@dataclass(slots=True, kw_only=True)
class JobBook:
    """The jobs of a run's workers; the seam between dask-jobqueue, which asks for them, and Slurm.

    Attributes:
        slurm: Submits and cancels.
        script: What a script says; name and scheduler are those of each worker.
        jobs: Number of the last job of each worker, by the worker's name.
        submitted: When that was, by the monotonic clock.
        refused: What Slurm said last when it refused a job; None after it took one.
    """

    slurm: Slurm
    script: WorkerScript
    jobs: dict[str, str] = field(default_factory=dict)
    submitted: dict[str, float] = field(default_factory=dict)
    refused: SlurmError | None = None

    def submit(self, name: str, scheduler: str) -> str:
        """Write a worker's script, and submit it.

        Raises:
            SlurmError: It is refused.
        """
        path = Path(self.script.folder) / f"{name}.sh"
        path.write_text(worker_script(replace(self.script, name=name, scheduler=scheduler)), encoding="utf-8")
        try:
            self.jobs[name] = self.slurm.submit(path)
        except SlurmError as error:
            self.refused = error
            raise
        self.refused = None
        self.submitted[name] = time.monotonic()
        return self.jobs[name]


class WorkerJob(SLURMJob):
    """One job, as dask-jobqueue sees it.

    Args:
        book: Who submits it.
    """

    def __init__(self, *args: Any, book: JobBook, **options: Any) -> None:
        super().__init__(*args, **options)
        self._book = book

    def job_script(self) -> str:
        """Return the script."""
        return worker_script(replace(self._book.script, name=str(self.name), scheduler=self.scheduler))

    async def start(self) -> None:
        """Submit the job."""
        self.job_id = await asyncio.to_thread(self._book.submit, str(self.name), self.scheduler)
        await ProcessInterface.start(self)

    async def close(self) -> None:
        """Cancel the job; nothing happens when it has ended."""
        if self.job_id:
            with suppress(SlurmError):
                await asyncio.to_thread(self._book.slurm.cancel, [self.job_id])
        await ProcessInterface.close(self)


@dataclass(slots=True, kw_only=True)
class JobCrew(Crew):
    """Workers that are jobs.

    Attributes:
        cluster: dask-jobqueue's.
        book: Its jobs.
        most: Most of them at a time.
    """

    cluster: Any
    book: JobBook
    most: int
    _wanted: int = field(default=0, init=False)
    _next_queue: float = field(default=0.0, init=False)
    _seen: set[str] = field(default_factory=set, init=False)
    _failures: int = field(default=0, init=False)
    _queue: list[JobState] = field(default_factory=list, init=False)

    def want(self, parts: int) -> None:
        """Ask for as many workers as there are parts, up to the most; those that are lost are replaced."""
        wanted = min(self.most, parts)
        if wanted == self._wanted or parts == 0:
            return
        self._wanted = wanted
        # Not `scale`: that asks once, and what is lost afterwards is not replaced.
        self.cluster.adapt(minimum=wanted, maximum=wanted, interval="1s", wait_count=2)

    def look(self, alive: int, parts: int) -> None:
        """Have lost jobs replaced, and say so when no worker comes.

        Raises:
            S1BatchError: No worker will come: Slurm refuses jobs, or they end before their worker begins.
        """
        Crew.look(self, alive, parts)
        now = time.monotonic()
        if now < self._next_queue:
            return
        self._next_queue = now + QUEUE_EVERY_S
        if self.book.refused is not None and not alive:
            raise self.book.refused
        queue = self.book.slurm.named(self.book.script.job_name)
        if queue is None:
            return  # the controller may be down for a minute
        self._queue = queue
        self._forget({each.job for each in queue if not each.ended}, now)

    def why(self) -> str:
        """Return what the queue says."""
        reasons = Counter(each.reason or each.state.lower() for each in self._queue)
        said = ", ".join(f"{number} {reason}" for reason, number in sorted(reasons.items()))
        return f"; {count(len(self._queue), 'job')} in the queue{f' ({said})' if said else ''}"

    def _forget(self, queued: set[str], now: float) -> None:
        """Let jobs that have left the queue be replaced; Dask alone would wait for some of them for ever."""
        living = {str(about["name"]) for about in self.cluster.scheduler_info["workers"].values()}
        if living - self._seen:
            self._failures = 0
        self._seen |= living
        for name, job in list(self.book.jobs.items()):
            if name in living or job in queued or now - self.book.submitted[name] < QUEUE_EVERY_S / 2:
                continue
            del self.book.jobs[name]
            if name not in self._seen:
                self._failures += 1
                log = Path(self.book.script.folder) / "logs" / f"{name}-{job}.log"
                self.say(f"job {job} has ended before its worker began: {log}")
                if self._failures >= FAILURES and not living:
                    raise S1BatchError(
                        f"{self._failures} worker jobs ended before their worker began: {log}: {last_lines(log)}"
                    )
            self._seen.discard(name)
            self.cluster.loop.add_callback(self.cluster.workers.pop, name, None)


@contextmanager
def in_jobs(setup: SessionSetup, site: SlurmSite, workers: int | None, parts: int, say: Say) -> Iterator[Crew]:
    """Have workers as jobs for the length of a block; afterwards none of them is in the queue.

    Args:
        setup: What their sessions begin with.
        site: What holds at this site.
        workers: Most of them at a time; None takes the site's.
        parts: Parts of the run.
        say: Receives lines for a person.

    Raises:
        S1BatchError: Slurm cannot be asked.
    """
    slurm, most = SlurmPrograms(outside_of_jobs()), min(workers or site.workers.most, max(parts, 1))
    threads = threads_of(parts, most, parts_at_once(setup.loaded, most))
    results = Path(os.path.abspath(setup.results))
    script = _script(site, results, setup.run, threads)
    (Path(script.folder) / "logs").mkdir(parents=True)
    book = JobBook(slurm=slurm, script=script)
    _cancel_left(slurm, script.job_name, say)
    with ExitStack() as stack:
        stack.callback(_cancel_left, slurm, script.job_name, lambda line: None)
        stack.enter_context(dask.config.set(SETTINGS))
        with starting_scheduler(site.workers.interface):
            cluster = JobQueueCluster(
                job_cls=WorkerJob,  # type: ignore[arg-type]  # a class of jobs, which it takes for a job
                config_name="slurm",
                cores=threads,
                memory="1 GB",  # dask-jobqueue wants a number; the script says what holds
                processes=1,
                interface=site.workers.interface,
                scheduler_options={"dashboard_address": ":0"},
                name=f"worker-{script.job_name[-4:]}",
                book=book,
            )
        stack.enter_context(cluster)
        client = stack.enter_context(Client(cluster, set_as_default=False))
        stack.enter_context(client.as_current())
        say(f"up to {count(most, 'worker')} as jobs {script.job_name}; scripts and logs: {script.folder}")
        yield JobCrew(
            client=client,
            at_start=most,
            threads=threads,
            lifetime=Lifetime(lifetime_s=site.workers.lifetime_s, stagger_s=site.workers.stagger_s),
            cluster=cluster,
            book=book,
            most=most,
            say=say,
        )


def _script(site: SlurmSite, results: Path, run: str, threads: int) -> WorkerScript:
    """Return what the scripts of a run's workers say, but for name and scheduler."""
    name = digest([str(results), run])[:8]
    flags = joined(site.array_flags(), site.workers.flags())
    return WorkerScript(
        name="",
        # Known again by a later run, should this one be killed.
        job_name=f"s1batch-workers-{name}",
        results=str(results),
        folder=str(Layout(results).slurm / f"workers-{new_name(time.time(), name[:4])}"),
        workdir=flags.pop("chdir", None) or os.getcwd(),
        scheduler="",
        threads=threads,
        python=site.workers.python or shlex.quote(sys.executable),
        setup=site.setup,
        sbatch=flags,
        interface=site.workers.interface,
        local_directory=site.workers.local_directory,
        memory=memory_limit(flags.get("mem")),
        death_timeout_s=site.workers.death_timeout_s,
    )


def outside_of_jobs(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment without what Slurm says of the job that the run itself may be in: workers inherit it."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("SLURM_", "SLURMD_")) or name in ("SLURM_CONF", "SLURM_CLUSTERS")
    }


def memory_limit(mem: str | None) -> str | None:
    """Return memory as Slurm reads it (a plain number is in MiB) as Dask reads it; None: no limit, or another form."""
    found = re.fullmatch(r"(\d+)([KMGT]?)", (mem or "").upper())
    return f"{found[1]}{found[2] or 'M'}iB" if found and int(found[1]) else None


def _cancel_left(slurm: Slurm, name: str, say: Say) -> None:
    """Cancel what an earlier run that was killed has left in the queue."""
    left = [each.job for each in slurm.named(name) or ()]
    if left:
        say(f"cancelled {count(len(left), 'worker job')} that an earlier run has left: {', '.join(left)}")
        with suppress(SlurmError):
            slurm.cancel(left)
