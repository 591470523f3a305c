"""Who holds a lease: what its file says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from s1batch.results.process import ProcessIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a lease.

    Attributes:
        token: Random identity of this lease.
        process: The holder; None when the file says nothing readable.
        since_ns: When it was taken, by the holder's clock.
        touched_ns: Last heartbeat, by the file system's clock.
        task: Name of the task of a batch system that the holder belongs to; empty outside of one.
        restarts: How often that had been started again by then.
    """

    token: str
    process: ProcessIdentity | None
    since_ns: int
    touched_ns: int
    task: str = ""
    restarts: int = 0

    def __str__(self) -> str:
        if self.process is None:
            return "an unknown process"
        since = datetime.fromtimestamp(self.since_ns / 1e9, tz=UTC)
        within = f" in {self.task}" if self.task else ""
        return f"process {self.process.pid} on {self.process.host}{within} since {since:%Y-%m-%d %H:%M:%S} UTC"


def read_holder(path: Path) -> Holder | None:
    """Return who holds the lease of that file; None when nobody does.

    Raises:
        OSError: The file is there but cannot be read.
    """
    try:
        # Opened afresh, so that a network file system fetches the true time.
        with path.open("rb") as file:
            data = file.read()
            stat = os.fstat(file.fileno())
    except FileNotFoundError:
        return None
    try:
        plain = orjson.loads(data)
    except orjson.JSONDecodeError:
        plain = None
    if not isinstance(plain, dict) or not isinstance(plain.get("token"), str):
        # Just being written, or damaged: known by its inode until the holder has written it.
        return Holder(token=f"i{stat.st_ino}", process=None, since_ns=0, touched_ns=stat.st_mtime_ns)
    since_ns, task, restarts = (plain.get(name) for name in ("since_ns", "task", "restarts"))
    return Holder(
        token=plain["token"],
        process=ProcessIdentity.from_plain(plain.get("process")),
        since_ns=since_ns if isinstance(since_ns, int) else 0,
        touched_ns=stat.st_mtime_ns,
        task=task if isinstance(task, str) else "",
        restarts=restarts if isinstance(restarts, int) else 0,
    )
