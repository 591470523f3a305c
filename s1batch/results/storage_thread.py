"""Short writes for event loops that must not wait for the disk, done in one thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_Work = tuple[Callable[[], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]
_Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]


class StorageThread:
    """Does things in the order in which they are asked for; what has piled up is done and reported at once.

    Args:
        call: Entered around whatever is done.
    """

    def __init__(self, call: Callable[[], AbstractContextManager[None]]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._waiting: dict[asyncio.Future[Any], asyncio.AbstractEventLoop] = {}
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """How many things are not done yet."""
        return len(self._waiting)

    async def do(self, what: Callable[[], T]) -> T:
        """Do something, and return what it returns; who is cancelled meanwhile is so when it is done.

        Raises:
            BaseException: What it raises, or what `give_up` was told.
        """
        try:
            return await self._done(what)
        except asyncio.CancelledError:
            # An answer that is here is stored, although its part ends. What comes later is done later.
            with suppress(Exception):
                await self._done(lambda: None)
            raise

    async def _done(self, what: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        with self._lock:
            self._waiting[done] = loop
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="s1batch-storage", daemon=True)
                self._thread.start()
        self._queue.put((what, done, loop))
        try:
            return await done
        finally:
            self._waiting.pop(done, None)

    def give_up(self, error: Callable[[], Exception]) -> None:
        """Let nobody wait any more for what is not done; called by another thread."""
        with self._lock:
            waiting = dict(self._waiting)
        for done, loop in waiting.items():
            with suppress(RuntimeError):  # the loop has ended
                outcomes: list[_Outcome] = [(done, None, error())]
                loop.call_soon_threadsafe(_settle, outcomes)

    def close(self) -> None:
        """End the thread when everything is done."""
        self._queue.put(None)

    def _run(self) -> None:
        while True:
            piled: list[_Work | None] = [self._queue.get()]
            with suppress(Empty):
                while True:
                    piled.append(self._queue.get_nowait())
            outcomes: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
            for work in piled:
                if work is None:
                    continue
                what, done, loop = work
                outcomes.setdefault(loop, []).append((done, *self._outcome(what)))
            for loop, settled in outcomes.items():
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(_settle, settled)
            if None in piled:
                return

    def _outcome(self, what: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        try:
            with self._call():
                return what(), None
        except BaseException as error:  # noqa: BLE001  (whoever waits for it gets it)
            return None, error


def _settle(outcomes: list[_Outcome]) -> None:
    for done, value, error in outcomes:
        if done.done():
            continue
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)
