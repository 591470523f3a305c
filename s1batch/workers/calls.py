"""What the client has workers do: functions that Dask sends to them by name, with the plugin that holds the session."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from distributed import get_worker
from distributed.comm.addressing import get_address_host

from s1batch.scheduler import PartTask
from s1batch.session import SessionStats
from s1batch.workers.plugin import Ended, SessionPlugin


@dataclass(frozen=True, slots=True, kw_only=True)
class Died:
    """The worker that ran a part alone has died; nothing was done in its place.

    Attributes:
        worker: Its address.
        host: The host that it was on.
    """

    worker: str
    host: str


UNKNOWN = Died(worker="an unknown worker", host="")


def run_one(plugin: str, task: PartTask) -> Ended:
    """Run a part on a worker, beside others."""
    return _plugin(get_worker(), plugin).run(task)


def run_alone(plugin: str, task: PartTask, mark: Path) -> Ended | Died:
    """Run a part with nothing beside it on its worker, unless another worker has died of it.

    Dask gives the part of a dead worker to the next one. The mark, a file in the results folder, tells that one.

    Args:
        plugin: Name of the plugin.
        task: The part.
        mark: Written before it begins.
    """
    worker = get_worker()
    held = _plugin(worker, plugin)
    with held.alone:
        try:
            with mark.open("xb") as file:
                file.write(orjson.dumps({"worker": worker.address, "host": get_address_host(worker.address)}))
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            return read_mark(mark) or UNKNOWN
        return held.run(task)


def read_mark(mark: Path) -> Died | None:
    """Return who has begun a part alone; None when nobody has."""
    try:
        plain = orjson.loads(mark.read_bytes())
    except FileNotFoundError:
        return None
    except orjson.JSONDecodeError:
        return UNKNOWN  # killed while it wrote this
    return Died(worker=plain["worker"], host=plain["host"])


def stop_worker(plugin: str, at_limit: bool, in_vain: bool, dask_worker: Any) -> None:
    """Let a worker take in nothing new; see `Session.stop`."""
    _plugin(dask_worker, plugin).stop(at_limit=at_limit, in_vain=in_vain)


def tell_worker(plugin: str, sessions: int, ends_at: float | None, dask_worker: Any) -> None:
    """Tell a worker how many share the engine's endpoints, and when the run must be over."""
    held = _plugin(dask_worker, plugin)
    held.share_with(sessions)
    if ends_at is not None:
        held.end_with(ends_at)


def worker_stats(plugin: str, dask_worker: Any) -> SessionStats | None:
    """Return a worker's counters; None before its first part."""
    return _plugin(dask_worker, plugin).stats()


def _plugin(worker: Any, name: str) -> SessionPlugin:
    found = worker.plugins[name]
    if not isinstance(found, SessionPlugin):
        raise TypeError(f"the worker's plugin {name} is a {type(found).__name__}")
    return found
