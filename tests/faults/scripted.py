"""An engine that answers, fails and dies as a test says; for runs in the test's own process."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s1batch.errors import EngineError, EngineUnavailable
from s1batch.records import Request
from tests.answers import loudest


@dataclass(kw_only=True)
class Script:
    """What goes wrong in one run; numbers count from 0, None never comes.

    Attributes:
        failing: Requests whose fingerprint modulo 5 is one of these fail.
        dies_at: The engine is gone from this request on.
        stop_at: Somebody stops the run at this request.
        full_at: The disk is full at this write to a journal, once.
        stuck_at: A file of rows cannot be renamed at this time, once.
        salt: Decides the order of completion.
    """

    failing: frozenset[int] = frozenset()
    dies_at: int | None = None
    stop_at: int | None = None
    full_at: int | None = None
    stuck_at: int | None = None
    salt: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)


_current: list[Script] = []


async def answer(request: Request) -> str:
    """Answer as the present script says."""
    script = _current[-1]
    number = len(script.asked)
    script.asked.append(request.fingerprint)
    if number == script.stop_at:
        script.stop.set()
    if script.dies_at is not None and number >= script.dies_at:
        raise EngineUnavailable("engine_unavailable", "the engine has died")
    value = int(request.fingerprint, 16)
    await asyncio.sleep((value ^ script.salt) % 7 / 2000)
    if value % 5 in script.failing:
        raise EngineError("server_error", "out of order")
    return loudest(request)


@contextmanager
def acting(script: Script) -> Iterator[None]:
    """Let a script act on the engine and on the disk."""
    write, replace = os.write, os.replace
    lock = threading.Lock()
    counts = {"write": 0, "replace": 0}

    def due(name: str, at: int | None) -> bool:
        with lock:
            counts[name] += 1
            return counts[name] - 1 == at

    def writing(handle: int, data: Any, /) -> int:
        if os.readlink(f"/proc/self/fd/{handle}").endswith(".journal") and due("write", script.full_at):
            write(handle, bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data)

    def replacing(source: Any, target: Any, **more: Any) -> None:
        if Path(target).parent.name == "rows" and due("replace", script.stuck_at):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(target))
        replace(source, target, **more)

    _current.append(script)
    # The system's calls, not ours.
    os.write, os.replace = writing, replacing  # type: ignore[assignment]
    try:
        yield
    finally:
        os.write, os.replace = write, replace
        _current.pop()
