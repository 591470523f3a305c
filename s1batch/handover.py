"""From a reading thread to the event loop: many items in one wake-up, bounded in number and in bytes."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Room:
    """Places that are given to whoever has waited longest; how many there are may change. On one event loop.

    Args:
        size: How many may be taken at once.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._too_many = 0
        self._waiting: deque[asyncio.Future[bool]] = deque()

    def enter(self) -> asyncio.Future[bool] | None:
        """Take a place; where none is free, return a future, true once there is one for the caller.

        Whoever wants it no more sets the future to false. A place that was given and is not used is released.
        """
        if self._free:
            self._free -= 1
            return None
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        return place

    def release(self) -> None:
        """Give a place back; while there are too many, it goes."""
        if self._too_many:
            self._too_many -= 1
            return
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(True)
                return
        self._free += 1

    def resize(self, size: int) -> None:
        """Change the size; when it shrinks, free places go at once, the others as they are given back."""
        change = size - self._size
        self._size = size
        if change < 0:
            gone = min(self._free, -change)
            self._free -= gone
            self._too_many += -change - gone
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
    """A queue with one thread that puts, and an event loop that takes.

    Args:
        loop: The event loop.
        room: Most items that wait to be taken, and as many are taken at once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, room: int) -> None:
        self._loop = loop
        self._room = room
        self._changed = threading.Condition()
        self._items: list[Item] = []
        self._taken: list[Item] = []  # the event loop's, the next one last
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

    async def arrive(self) -> bool:
        """Wait until there is an item to pop; False when nothing more comes. For one coroutine at a time."""
        while not self._taken:
            with self._changed:
                if self._items:
                    return True
                if self._ended:
                    return False
                self._is_awaited = True
                self._arrived.clear()
            await self._arrived.wait()
        return True

    def pop(self) -> Item | None:
        """Return the next item; None when there is none now."""
        if not self._taken:
            with self._changed:
                if not self._items:
                    return None
                self._taken, self._items = self._items, []
                self._changed.notify()
            self._taken.reverse()
            if len(self._taken) > 1:
                self._arrived.set()  # others than the caller have something to do
        return self._taken.pop()

    @property
    def is_over(self) -> bool:
        """Whether every item is popped, and nothing more comes."""
        if self._taken:
            return False
        with self._changed:
            return self._ended and not self._items

    def abandon(self) -> list[Item]:
        """Take no more items, and let the thread go; return those that wait."""
        with self._changed:
            self._abandoned = True
            items, self._items, self._taken = [*self._taken[::-1], *self._items], [], []
            self._changed.notify()
            return items

    def _wake(self) -> None:
        if self._is_awaited:
            self._is_awaited = False
            self._loop.call_soon_threadsafe(self._arrived.set)
