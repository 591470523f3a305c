"""From a reading thread to the event loop: many items in one wake-up, bounded in number and in bytes."""

from __future__ import annotations

import asyncio
import threading
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Room(asyncio.Semaphore):
    """A semaphore whose size may change while it is in use.

    Args:
        size: How many may hold it at once.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._size = size
        self._too_many = 0

    def release(self) -> None:
        """Give a place back; while there are too many, it goes."""
        if self._too_many:
            self._too_many -= 1
        else:
            super().release()

    def resize(self, size: int) -> None:
        """Change the size; when it shrinks, places go as they are given back."""
        change = size - self._size
        self._size = size
        if change < 0:
            self._too_many -= change
        for _ in range(change):
            self.release()


class ByteBudget:
    """Bytes that all items of a worker may take at once; one item alone may be larger.

    Args:
        limit: Most bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._waiting = 0
        self._changed = threading.Condition(threading.Lock())

    def take(self, nbytes: int, abandoned: threading.Event) -> bool:
        """Wait until there is room and take it; False, and nothing taken, once `abandoned` is set."""
        with self._changed:
            while self._held and self._held + nbytes > self._limit:
                if abandoned.is_set():
                    return False
                self._waiting += 1
                try:
                    self._changed.wait()
                finally:
                    self._waiting -= 1
            self._held += nbytes
            return True

    def give_back(self, nbytes: int) -> None:
        """Make room."""
        with self._changed:
            self._held -= nbytes
            if self._waiting:
                self._changed.notify_all()

    def wake(self) -> None:
        """Let waiting threads look whether they were abandoned."""
        with self._changed:
            self._changed.notify_all()


class Handover(Generic[Item]):
    """A queue with one thread that puts and one coroutine that takes all there is.

    Args:
        loop: The event loop of the coroutine.
        room: Most items that wait.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, room: int) -> None:
        self._loop = loop
        self._room = room
        self._changed = threading.Condition()
        self._items: list[Item] = []
        self._ended = False
        self._abandoned = False
        self._is_awaited = False
        self._arrived = asyncio.Event()

    def put(self, item: Item) -> bool:
        """Add an item, in the thread, when there is room; False when nobody takes items any more."""
        with self._changed:
            while len(self._items) >= self._room and not self._abandoned:
                self._changed.wait()
            if self._abandoned:
                return False
            self._items.append(item)
            self._wake()
            return True

    def end(self) -> None:
        """Say, in the thread, that nothing more comes."""
        with self._changed:
            self._ended = True
            self._wake()

    async def take(self) -> list[Item]:
        """Return the items that wait, at least one; none when nothing more comes."""
        while True:
            with self._changed:
                if self._items or self._ended:
                    items, self._items = self._items, []
                    self._changed.notify()
                    return items
                self._is_awaited = True
                self._arrived.clear()
            await self._arrived.wait()

    def abandon(self) -> list[Item]:
        """Take no more items, and let the thread go; return those that wait."""
        with self._changed:
            self._abandoned = True
            items, self._items = self._items, []
            self._changed.notify()
            return items

    def _wake(self) -> None:
        if self._is_awaited:
            self._is_awaited = False
            self._loop.call_soon_threadsafe(self._arrived.set)
