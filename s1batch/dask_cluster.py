"""Parts on Dask workers: one task per part, a bounded number of them submitted. The only module that imports dask."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from multiprocessing import resource_tracker
from typing import Any

from distributed import Client, LocalCluster, WorkerPlugin, get_worker, wait
from distributed.scheduler import KilledWorker

from s1batch.canonical import digest
from s1batch.errors import Interrupted, S1BatchError, UsageError
from s1batch.part_gate import FEWEST_OPEN_PARTS
from s1batch.part_runner import PartSummary
from s1batch.process_settings import give_back_memory, settle_process
from s1batch.scheduler import POLL_S, PartTask, Watch
from s1batch.session import Session, SessionSetup, SessionStats
from s1batch.stopping import StopSign

WORKER_LOSS_PATIENCE_S = 75.0
"""How long a part waits for the lease of a worker that died; longer than a lease takes to go stale."""

CONNECT_TIMEOUT_S = 30
STATS_EVERY_S = 2.0

_LOST = (OSError, TimeoutError, CancelledError)
"""What calls of a client raise when its scheduler has gone (`CommClosedError` is an OSError)."""


class SessionPlugin(WorkerPlugin):
    """A worker's session: opened at its first part, closed with the worker.

    Args:
        setup: What the session begins with.
        owns_process: Whether the worker is there for this run only.
    """

    def __init__(self, setup: SessionSetup, owns_process: bool) -> None:
        self._setup = setup
        self._owns_process = owns_process

    def setup(self, worker: Any) -> None:
        """Called by Dask when the worker begins."""
        if self._owns_process:
            settle_process()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._session: Session | None = None

    def teardown(self, worker: Any) -> None:
        """Called by Dask when the worker ends."""
        with self._lock:
            if self._session is not None:
                self._session.stop()
                self._session.__exit__(None, None, None)
                self._session = None

    def session(self) -> Session:
        """Return the open session."""
        with self._lock:
            if self._session is None:
                self._session = Session(self._setup).__enter__()
            if self._stopped.is_set():
                self._session.stop()
            return self._session

    def stop(self) -> None:
        """Stop the session, also one that is only being opened."""
        self._stopped.set()
        if self._session is not None:
            self._session.stop()

    def stats(self) -> SessionStats | None:
        """Return the session's counters, if a part has opened it."""
        return self._session.stats() if self._session is not None else None


def run_on_dask(
    address: str | None,
    setup: SessionSetup,
    tasks: Sequence[PartTask],
    *,
    workers: int | None,
    watch: Watch,
    stop: StopSign,
    say: Callable[[str], None],
) -> None:
    """Run parts on a Dask cluster: an existing one, or local worker processes.

    A part whose worker dies is run again on another; what was answered is in its journal.

    Raises:
        Interrupted: `stop` was set before every part had ended.
        S1BatchError: What ended the run.
    """
    width = setup.loaded.spec.run.parts_in_flight or FEWEST_OPEN_PARTS
    # Two runs on one cluster must not meet in one plugin, and a run that goes on replaces the one that was killed.
    plugin = f"s1batch-session-{digest([str(setup.results.resolve()), setup.run])}"
    with _client(address, workers, width) as client:
        try:
            say(f"Dask dashboard: {client.dashboard_link}")
            sessions = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
            patience_s = max(setup.lease_patience_s, WORKER_LOSS_PATIENCE_S)
            setup = replace(setup, share=sessions, lease_patience_s=patience_s)
            client.register_plugin(SessionPlugin(setup, owns_process=address is None), name=plugin)
            try:
                _Submission(client, plugin, watch, stop).run(tasks, 2 * sessions * width)
            finally:
                with suppress(*_LOST):
                    client.unregister_worker_plugin(plugin)
        except _LOST as error:
            where = address or "of this run"
            raise S1BatchError(
                f"the Dask scheduler {where} has gone ({type(error).__name__}); what was answered is in the journals: "
                "start a scheduler and run again to go on"
            ) from error


@contextmanager
def _client(address: str | None, workers: int | None, width: int) -> Iterator[Client]:
    # A scheduler that is lost becomes an error of ours; the client's log would print tracebacks about it first.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    if address is not None:
        try:
            client = Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(f"--scheduler {address}: no Dask scheduler answers there: {error}") from error
        with client, client.as_current():
            yield client
        return
    count = workers or max(1, (os.cpu_count() or 2) // 2)
    with ExitStack() as stack:
        with _ctrl_c_is_for_the_client():
            cluster = stack.enter_context(
                LocalCluster(n_workers=count, threads_per_worker=width, processes=True, dashboard_address=":0")
            )
            client = stack.enter_context(Client(cluster, set_as_default=False))
        stack.enter_context(client.as_current())
        yield client


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


class _Submission:
    """The parts of one run on their way through a client."""

    def __init__(self, client: Client, plugin: str, watch: Watch, stop: StopSign) -> None:
        self._client = client
        self._plugin = plugin
        self._watch = watch
        self._stop = stop
        self._error: S1BatchError | None = None
        self._next_look = time.monotonic() + STATS_EVERY_S

    def run(self, tasks: Sequence[PartTask], width: int) -> None:
        """Run all parts; those that lost worker after worker once more, one by one, to find out which it was.

        Raises:
            S1BatchError: What ended the run, or which parts kill the workers they run on; the others are finished.
        """
        suspects = self._round(tasks, width)
        deadly = [task for task in suspects if self._round([task], 1)]
        self._next_look = time.monotonic()
        self._look()
        if self._error is not None:
            raise self._error
        if deadly:
            names = ", ".join(f"part {task.part}" for task in deadly)
            raise S1BatchError(
                f"{names}: every worker that ran {'it' if len(deadly) == 1 else 'one of them'} died (out of memory, or "
                "a crash in the engine); the other parts are done; mend the cause and run again to go on"
            )

    def _round(self, tasks: Sequence[PartTask], width: int) -> list[PartTask]:
        """Run parts, at most `width` submitted at once, and return those whose workers died again and again."""
        token = secrets.token_hex(4)
        waiting = iter(tasks)
        running: dict[Any, PartTask] = {}
        lost: list[PartTask] = []
        while True:
            if self._stop.is_set() and self._error is None:
                self._error = Interrupted("stopped")
            if self._error is not None:
                waiting = iter(())
                # Also for workers that begin only now: the parts of a dead one are given to them.
                self._client.run(_stop_worker, self._plugin, on_error="ignore")
            while len(running) < width and (task := next(waiting, None)) is not None:
                key = f"s1batch-part-{task.part}-{token}"
                running[self._client.submit(_run_one, self._plugin, task, key=key, pure=False)] = task
            if not running:
                return lost
            with suppress(TimeoutError):
                wait(list(running), timeout=POLL_S, return_when="FIRST_COMPLETED")
            self._look()
            for future in [future for future in running if future.done()]:
                task = running.pop(future)
                if not self._take(future):
                    lost.append(task)
                future.release()

    def _look(self) -> None:
        if time.monotonic() >= self._next_look:
            stats = self._client.run(_worker_stats, self._plugin, on_error="ignore").values()
            self._watch.tick(_sum(stats))
            self._next_look = time.monotonic() + STATS_EVERY_S

    def _take(self, future: Any) -> bool:
        """Take the result of a part; False when its workers died."""
        try:
            ended: PartSummary | S1BatchError = future.result()
        except KilledWorker:
            return False
        if isinstance(ended, PartSummary):
            self._watch.finished(ended)
        elif self._error is None or (isinstance(self._error, Interrupted) and not isinstance(ended, Interrupted)):
            self._error = ended
        return True


def _run_one(plugin: str, task: PartTask) -> PartSummary | S1BatchError:
    """Run a part on a worker; what ended it is returned, because Dask logs what is raised with its traceback."""
    try:
        return _plugin(get_worker(), plugin).session().run_part(task.part, task.only)
    except S1BatchError as error:
        return error
    finally:
        give_back_memory()


def _stop_worker(plugin: str, dask_worker: Any) -> None:
    _plugin(dask_worker, plugin).stop()


def _worker_stats(plugin: str, dask_worker: Any) -> SessionStats | None:
    return _plugin(dask_worker, plugin).stats()


def _plugin(worker: Any, name: str) -> SessionPlugin:
    found = worker.plugins[name]
    if not isinstance(found, SessionPlugin):
        raise TypeError(f"the worker's plugin {name} is a {type(found).__name__}")
    return found


def _sum(stats: Any) -> SessionStats | None:
    known = [item for item in stats if isinstance(item, SessionStats)]
    return SessionStats.total(known) if known else None
