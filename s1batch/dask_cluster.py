"""Parts on Dask workers: one task per part, a bounded number of them submitted. The only module that imports dask."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from distributed import Client, LocalCluster, WorkerPlugin, get_worker, wait
from distributed.scheduler import KilledWorker

from s1batch.errors import Interrupted, S1BatchError, UsageError
from s1batch.part_runner import PartSummary
from s1batch.scheduler import POLL_S, PartTask, Watch
from s1batch.session import Session, SessionSetup, SessionStats

PLUGIN = "s1batch-session"

WORKER_LOSS_PATIENCE_S = 75.0
"""How long a part waits for the lease of a worker that died; longer than a lease takes to go stale."""

CONNECT_TIMEOUT_S = 30
STATS_EVERY_S = 2.0


class SessionPlugin(WorkerPlugin):
    """A worker's session: opened at its first part, closed with the worker."""

    name = PLUGIN

    def __init__(self, setup: SessionSetup) -> None:
        self._setup = setup

    def setup(self, worker: Any) -> None:
        """Called by Dask when the worker begins."""
        self._lock = threading.Lock()
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
            return self._session

    def opened(self) -> Session | None:
        """Return the session if a part has opened it."""
        return self._session


def run_on_dask(
    address: str | None,
    setup: SessionSetup,
    tasks: Sequence[PartTask],
    *,
    workers: int | None,
    watch: Watch,
    stop: threading.Event,
    say: Callable[[str], None],
) -> None:
    """Run parts on a Dask cluster: an existing one, or local worker processes.

    A part whose worker dies is run again on another; what was answered is in its journal.

    Raises:
        Interrupted: `stop` was set before every part had ended.
        S1BatchError: What ended the run.
    """
    width = setup.loaded.spec.run.parts_in_flight
    with _client(address, workers, width) as client:
        say(f"Dask dashboard: {client.dashboard_link}")
        sessions = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        setup = replace(setup, share=sessions, lease_patience_s=WORKER_LOSS_PATIENCE_S)
        client.register_plugin(SessionPlugin(setup), name=PLUGIN)
        try:
            _submit_all(client, tasks, 2 * sessions * width, watch, stop)
        finally:
            client.unregister_worker_plugin(PLUGIN)


@contextmanager
def _client(address: str | None, workers: int | None, width: int) -> Iterator[Client]:
    if address is not None:
        try:
            client = Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(f"--scheduler {address}: no Dask scheduler answers there: {error}") from error
        with client, client.as_current():
            yield client
        return
    count = workers or max(1, (os.cpu_count() or 2) // 2)
    with (
        LocalCluster(n_workers=count, threads_per_worker=width, processes=True, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
        client.as_current(),
    ):
        yield client


def _submit_all(client: Client, tasks: Sequence[PartTask], width: int, watch: Watch, stop: threading.Event) -> None:
    waiting = iter(tasks)
    running: set[Any] = set()
    error: S1BatchError | None = None
    told = False
    next_stats = time.monotonic() + STATS_EVERY_S
    while True:
        if stop.is_set() and error is None:
            error = Interrupted("stopped")
        if error is not None:
            waiting = iter(())
            if not told:
                client.run(_stop_worker, on_error="ignore")
                told = True
        while len(running) < width and (task := next(waiting, None)) is not None:
            running.add(client.submit(_run_one, task, key=f"s1batch-part-{task.part}", pure=False))
        if not running:
            break
        with suppress(TimeoutError):
            wait(running, timeout=POLL_S, return_when="FIRST_COMPLETED")
        if time.monotonic() >= next_stats:
            watch.tick(_sum(client.run(_worker_stats, on_error="ignore").values()))
            next_stats = time.monotonic() + STATS_EVERY_S
        for future in [future for future in running if future.done()]:
            running.discard(future)
            error = _take(future, watch, error)
            future.release()
    if error is not None:
        raise error


def _take(future: Any, watch: Watch, error: S1BatchError | None) -> S1BatchError | None:
    try:
        watch.finished(future.result())
    except Interrupted as interrupted:
        return error or interrupted
    except S1BatchError as failure:
        return failure if error is None or isinstance(error, Interrupted) else error
    except KilledWorker as killed:
        text = f"{future.key}: its workers died again and again (out of memory?); run again to go on: {killed}"
        return error or S1BatchError(text)
    return error


def _run_one(task: PartTask) -> PartSummary:
    plugin = get_worker().plugins[PLUGIN]
    if not isinstance(plugin, SessionPlugin):
        raise TypeError(f"the worker's plugin {PLUGIN} is a {type(plugin).__name__}")
    return plugin.session().run_part(task.part, task.only)


def _stop_worker(dask_worker: Any) -> None:
    plugin = dask_worker.plugins.get(PLUGIN)
    session = plugin.opened() if plugin is not None else None
    if session is not None:
        session.stop()


def _worker_stats(dask_worker: Any) -> SessionStats | None:
    plugin = dask_worker.plugins.get(PLUGIN)
    session = plugin.opened() if plugin is not None else None
    return session.stats() if session is not None else None


def _sum(stats: Any) -> SessionStats | None:
    known = [item for item in stats if isinstance(item, SessionStats)]
    return SessionStats.total(known) if known else None
