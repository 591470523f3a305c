"""Processes that are killed in the middle of what they do: really killed, with SIGKILL.

A child is forked from a small server that has the modules loaded. `kill_at` ends it before its n-th operation on files
(open, rename, remove, truncate), counted from the moment the action begins; so every state between two steps is met.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from s1batch.errors import LockedError, ResultsError
from s1batch.records import Row
from s1batch.results import switching
from s1batch.results.compaction import compact as compact_rows
from s1batch.results.lease import LeaseKeeper
from s1batch.results.store import ResultsStore
from tests.plans import SCHEMA, minutes, row

_STEPS = ("open", "os.rename", "os.remove", "os.truncate", "os.utime", "os.link", "os.mkdir", "os.rmdir")


def context() -> ForkServerContext:
    """The context that children come from."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.results.victim"])
    return found


def start(action: Callable[..., None], *args: Any, kill_at: int | None = None) -> ForkServerProcess:
    """Start an action in a child."""
    child = context().Process(target=_run, args=(action, args, kill_at))
    child.start()
    return child


def was_killed(action: Callable[..., None], *args: Any, kill_at: int) -> bool:
    """Run an action to its end or its death, and return whether it was killed."""
    child = start(action, *args, kill_at=kill_at)
    child.join()
    if child.exitcode not in (0, -signal.SIGKILL):
        raise AssertionError(f"the child ended with {child.exitcode}")
    return child.exitcode != 0


def _run(action: Callable[..., None], args: Sequence[Any], kill_at: int | None) -> None:
    if kill_at is not None:
        seen = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            # Only what happens in the results counts, not the modules that are loaded meanwhile.
            if event in _STEPS and str(args[0]) in str(arguments[0]):
                seen += 1
                if seen == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
    action(*args)


# ------------------------------------------------------------------------------------------------ actions


def make_rows(count: int) -> list[Row]:
    """Rows of part 0, every third one failed."""
    entries = minutes(count, per_part=count)
    return [
        row(entry, outcome="failed", reason="connection", answer={}, text=f"{number}")
        if number % 3 == 0
        else row(entry, text=f"{number} é\0")
        for number, entry in enumerate(entries)
    ]


def append_all(path: Path, count: int, acknowledged: Path, pause_at: int | None = None) -> None:
    """Append rows, saying so after each, and finish the part; or stay alive behind one of them and do no more."""
    rows = make_rows(count)
    said = os.open(acknowledged, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    with ResultsStore(path, SCHEMA) as store, store.open_part(0) as part:
        for number, each in enumerate(rows):
            part.append(each)
            os.write(said, f"{each.chunk_key}\n".encode())
            if number == pause_at:
                signal.pause()
        part.finish([each.chunk_key for each in rows])


def supersede(path: Path) -> None:
    """Ask failed rows again."""
    with ResultsStore(path, SCHEMA) as store:
        store.supersede(0, ["failed"])


def tidy(path: Path) -> None:
    """Clean up."""
    with ResultsStore(path, SCHEMA) as store:
        store.tidy()


def compact(path: Path, keep: bool, exchanges: bool) -> None:
    """Compact, on a file system that exchanges folders or not."""
    if not exchanges:
        switching.exchange = _cannot_exchange
    compact_rows(path, keep=keep)


def ask_again(path: Path, exchanges: bool) -> None:
    """Take failed rows out of large files and supersede them, as a run with `--retry failed` begins."""
    if not exchanges:
        switching.exchange = _cannot_exchange
    with ResultsStore(path, SCHEMA) as store:
        with store.gate() as gate:
            store.settle()
            store.take_out(store.large_parts_with(["failed"]), gate)
        for part in sorted(store.finished() | store.begun()):
            store.supersede(part, ["failed"])


def _cannot_exchange(one: Path, other: Path) -> bool:
    return False


def take_lease(path: Path, name: str) -> None:
    """Take a lease and give it back."""
    with LeaseKeeper(path).lease(name):
        pass


def die_with_lease(path: Path, names: Sequence[str]) -> None:
    """Take leases and be killed."""
    keeper = LeaseKeeper(path)
    for name in names:
        keeper.acquire(name)
    os.kill(os.getpid(), signal.SIGKILL)


def race(path: Path, names: Sequence[str], barrier: Any, won: Path) -> None:
    """Try to take one lease after the other, each at the same time as other processes."""
    wins = []
    with LeaseKeeper(path) as keeper:
        for name in names:
            barrier.wait()
            try:
                lease = keeper.acquire(name)
            except LockedError:
                barrier.wait()
                continue
            wins.append(name)
            barrier.wait()
            keeper.release(lease)
    won.write_text(json.dumps(wins))


def append_until_full(path: Path, limit_bytes: int, report: Path) -> None:
    """Append rows under a limit of file size until it is refused, then without the limit; report both."""
    rows = make_rows(40)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    refused = []
    with ResultsStore(path, SCHEMA) as store, store.open_part(0) as part:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
        for each in rows:
            try:
                part.append(each)
            except ResultsError as error:
                refused.append((each.chunk_key, str(error)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        kept = list(part.rows)
        last = rows[-1].chunk_key if rows[-1].chunk_key in kept else part.append(rows[-1]).chunk_key
    report.write_text(json.dumps({"refused": refused, "kept": kept, "last": last}))


# What Arrow imports at its first conversion is loaded once, in the server that children are forked from.
_WARMED = SCHEMA.to_table([SCHEMA.fit(each) for each in make_rows(3)]).num_rows
