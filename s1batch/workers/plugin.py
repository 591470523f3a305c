"""A worker's session: opened at its first part, closed with the worker, which leaves in good order before its end."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin
from distributed.core import Status

from s1batch.deadline import Deadline
from s1batch.errors import Interrupted, OutOfTime, S1BatchError
from s1batch.part_runner import PartSummary
from s1batch.process_settings import give_back_memory, settle_process
from s1batch.results.layout import Layout
from s1batch.results.lease import LeaseKeeper
from s1batch.scheduler import PartTask
from s1batch.session import Session, SessionSetup, SessionStats
from s1batch.workers.lifetime import Lifetime

LOOK_EVERY_S = 0.5

SAME_S = 1.0
"""Times that differ by no more are one: that of the allocation which worker and run are in."""

GATHER_S = 10.0
"""How long a worker that leaves waits until the client has taken what its parts ended with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaves:
    """A part came back because its worker leaves: another one goes on with it."""

    part: int


Ended = PartSummary | Leaves | S1BatchError
"""How a part ended on a worker; errors are returned, because Dask logs what is raised with its traceback."""


class SessionPlugin(WorkerPlugin):
    """What a worker holds for one run.

    Args:
        setup: What the session begins with.
        lifetime: When the worker leaves.
        owns_process: Whether the worker is there for this run only.
    """

    def __init__(self, setup: SessionSetup, lifetime: Lifetime, owns_process: bool) -> None:
        self._setup = setup
        self._lifetime = lifetime
        self._owns_process = owns_process

    def setup(self, worker: Any) -> None:
        """Called by Dask when the worker begins."""
        if self._owns_process:
            settle_process()
        self._worker = worker
        self._lock = threading.Lock()
        self.alone = threading.Lock()
        self._stopped = threading.Event()
        self._leaving = threading.Event()
        self._leaves_first = False
        self._how_to_stop: dict[str, bool] = {}
        self._share = self._setup.share
        self._running = 0
        self._session: Session | None = None
        self._free_parts_of_the_dead()

    def teardown(self, worker: Any) -> None:
        """Called by Dask when the worker ends."""
        self._leaving.set()
        with self._lock:
            if self._session is not None:
                self._session.stop()
                self._session.__exit__(None, None, None)
                self._session = None

    def run(self, task: PartTask) -> Ended:
        """Run a part, in one of the worker's threads."""
        with self._counted():
            try:
                if self._leaving.is_set():
                    time.sleep(LOOK_EVERY_S)  # until the scheduler knows; parts would come and go meanwhile
                    return Leaves(part=task.part)
                return self._opened().run_part(task.part, task.only, given_up=task.given_up)
            except Interrupted as error:
                # Only sessions of workers that leave before the run does know an end of their own.
                if isinstance(error, OutOfTime) and self._leaves_first:
                    self._leaving.set()
                return Leaves(part=task.part) if self._leaving.is_set() and not self._stopped.is_set() else error
            except S1BatchError as error:
                return error
            finally:
                give_back_memory()

    def stop(self, *, at_limit: bool = False, in_vain: bool = False) -> None:
        """Stop the session, also one that is only being opened; see `Session.stop`."""
        self._how_to_stop = {"at_limit": at_limit, "in_vain": in_vain}
        self._stopped.set()
        if self._session is not None:
            self._session.stop(**self._how_to_stop)

    def share_with(self, sessions: int) -> None:
        """Say how many sessions share the engine's endpoints from now on: workers have come or gone."""
        self._free_parts_of_the_dead()
        self._share = sessions
        if self._session is not None:
            self._session.share_with(sessions)

    def end_with(self, run_ends_at: float) -> None:
        """Say when the run must be over, in case its limit was moved; a worker that leaves before that still does."""
        if self._setup.deadline is not None:
            self._setup.deadline.at = run_ends_at

    def stats(self) -> SessionStats | None:
        """Return the session's counters, if a part has opened it."""
        return self._session.stats() if self._session is not None else None

    def _free_parts_of_the_dead(self) -> None:
        # Called on the worker's event loop, which shall not wait for a disk.
        threading.Thread(target=free_parts_of_the_dead, args=(self._setup.results,), daemon=True).start()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    def _opened(self) -> Session:
        with self._lock:
            if self._session is None:
                setup = replace(self._setup, share=self._share)
                end = self._lifetime.ends_at()
                # In the run's own allocation a worker ends with the run, not before it.
                if end is not None and (setup.deadline is None or end < setup.deadline.at - SAME_S):
                    setup = replace(setup, deadline=Deadline(end))
                    self._leaves_first = True
                    self._worker.loop.add_callback(self._leave, end)
                self._session = Session(setup).__enter__()
            if self._stopped.is_set():
                self._session.stop(**self._how_to_stop)
            return self._session

    async def _leave(self, end: float) -> None:
        """Leave in time: take nothing new, wait for answers on their way and for the client to take the parts."""
        while time.time() < end and not self._leaving.is_set():
            if self._stopped.is_set() or self._worker.status != Status.running:
                return
            await asyncio.sleep(LOOK_EVERY_S)
        self._leaving.set()
        worker = self._worker
        worker.status = Status.closing_gracefully  # the scheduler gives it nothing more
        if self._session is not None:
            self._session.stop(at_limit=True)
        await _until(lambda: not self._running)
        await _until(lambda: not worker.data, GATHER_S)
        with suppress(OSError, TimeoutError):  # the scheduler may have gone; then the worker ends anyway
            # Parts that wait here are nobody's fault: a worker that only vanished would make them suspects.
            await worker.scheduler.retire_workers(
                workers=[worker.address], close_workers=False, remove=True, stimulus_id=f"s1batch-leaves-{time.time()}"
            )
        await worker.close(nanny=True, reason="s1batch-worker-leaves")


def free_parts_of_the_dead(results: Path) -> None:
    """Give back the parts of workers that have died on this machine, where alone that is known.

    Workers on other nodes have taken over their tasks, and would else wait for a minute until the leases are stale.
    """
    layout = Layout(results)
    with suppress(OSError), LeaseKeeper(layout.leases) as keeper:
        names = [layout.lease_name(path.name) for path in layout.leases.glob("part-*.json")]
        keeper.free_dead([name for name in names if name is not None])


async def _until(holds: Callable[[], bool], timeout_s: float = math.inf) -> None:
    give_up = time.monotonic() + timeout_s
    while True:
        if holds() or time.monotonic() > give_up:
            return
        await asyncio.sleep(LOOK_EVERY_S / 5)
