"""The workers of a run, wherever they come from."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker

import dask
from distributed import Client, LocalCluster

from s1batch.assembly import requests_of_session
from s1batch.errors import UsageError
from s1batch.jobfile import LoadedJob
from s1batch.part_gate import most_open_parts
from s1batch.wording import count
from s1batch.workers.forking import forking
from s1batch.workers.lifetime import Lifetime

CONNECT_TIMEOUT_S = 30

TELL_EVERY_S = 60.0
"""How often it is said that there is no worker."""

SETTINGS = {
    # Workers are started again where they are. Dask would take one that has not come back after 15 s, or has just died
    # once more, for lost, and end what starts it again.
    "distributed.deploy.lost-worker-timeout": "1000 days",
    # Dask keeps the last messages for its developers, with the tasks that are in them: of 1000 of them, 150 MB.
    "distributed.admin.low-level-log-length": 100,
    # Lost workers after which a part is run alone. Dask's own 3 more would cost three more workers for each chunk that
    # ends them, and answers on their way with every one.
    "distributed.scheduler.allowed-failures": 1,
}
"""Dask's, for clusters and clients of a run's own."""

ROUNDS = 4
"""Parts that each thread of a worker should get in turn, where there are so many: who comes late finds work too."""


@dataclass(slots=True, kw_only=True)
class Crew:
    """Workers, and the client that gives them parts.

    Attributes:
        client: The client.
        at_start: Workers to reckon with before any is heard of.
        threads: Parts that each of them runs at a time; None: that is their own affair.
        owned: Whether they are there for this run only.
        lifetime: When each of them leaves.
        say: Receives lines for a person.
    """

    client: Client
    at_start: int
    threads: int | None = None
    owned: bool = True
    lifetime: Lifetime = field(default_factory=Lifetime)
    say: Callable[[str], None] = lambda line: None
    _next_tell: float = field(default=0.0, init=False)

    def want(self, parts: int) -> None:
        """Say how many parts are left: more workers than those are of no use."""

    def look(self, alive: int, parts: int) -> None:
        """See to the workers, every few seconds, and say so when there are none.

        Args:
            alive: How many there are.
            parts: How many parts are left.

        Raises:
            S1BatchError: There will be none any more.
        """
        now = time.monotonic()
        if alive or not self._next_tell:
            self._next_tell = now + TELL_EVERY_S
        elif now >= self._next_tell:
            self._next_tell = now + TELL_EVERY_S
            self.say(f"no worker for {TELL_EVERY_S:g} s, {count(parts, 'part')} to do{self.why()}")

    def why(self) -> str:
        """Return what is known of workers that do not come, behind a semicolon."""
        return ""


def parts_at_once(loaded: LoadedJob, workers: int) -> int:
    """Return how many parts each of some workers may have open at once."""
    return most_open_parts(loaded.spec.run.parts_in_flight, requests_of_session(loaded, workers))


def threads_of(parts: int, workers: int, width: int) -> int:
    """Return how many parts each worker runs at a time: many, as long as everybody gets some.

    Args:
        parts: Parts of the run.
        workers: Workers.
        width: Most of them at a time.
    """
    return max(1, min(width, max(2, parts // (ROUNDS * workers))))


@contextmanager
def connected(address: str, say: Callable[[str], None]) -> Iterator[Crew]:
    """Use the workers of a scheduler that runs already.

    Raises:
        UsageError: None answers there.
    """
    try:
        with dask.config.set(SETTINGS):
            client = Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(f"--scheduler {address}: no Dask scheduler answers there: {error}") from error
    with client, client.as_current():
        workers = len(client.scheduler_info(n_workers=-1)["workers"])
        yield Crew(client=client, at_start=max(1, workers), owned=False, say=say)


@contextmanager
def local(loaded: LoadedJob, workers: int | None, parts: int, say: Callable[[str], None]) -> Iterator[Crew]:
    """Start worker processes on this machine."""
    most = workers or max(1, (os.cpu_count() or 2) // 2)
    threads = threads_of(parts, most, parts_at_once(loaded, most))
    with ExitStack() as stack:
        stack.enter_context(dask.config.set({**SETTINGS, **forking()}))
        with _ctrl_c_is_for_the_client():
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=most,
                    threads_per_worker=threads,
                    processes=True,
                    dashboard_address=":0",
                    # That of this moment: the process that is copied may be there since an earlier run.
                    env=dict(os.environ),
                )
            )
            client = stack.enter_context(Client(cluster, set_as_default=False))
        stack.enter_context(client.as_current())
        yield Crew(client=client, at_start=most, threads=threads, say=say)


@contextmanager
def starting_scheduler(interface: str | None) -> Iterator[None]:
    """Say in one line why a scheduler cannot start in this process.

    Raises:
        UsageError: It cannot.
    """
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        at = f"[slurm.workers] interface = {interface!r} in the site's file" if interface else "no interface is set"
        raise UsageError(f"the scheduler of this run cannot start ({at}): {' '.join(str(error).split())}") from error


def quiet_client() -> None:
    """A scheduler that is lost, or a job that is refused, becomes an error of ours; no tracebacks about it first."""
    for name in ("distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _ctrl_c_is_for_the_client() -> Iterator[None]:
    """Block SIGINT in the threads that are begun meanwhile, and so in the processes that they start.

    A terminal sends it to all of them, but the workers are stopped by the client, in good order.
    """
    # Starting the resource tracker unblocks the signal, so it has to run before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
