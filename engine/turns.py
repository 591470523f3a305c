"""Whose turn it is: batching classes that must not meet in one engine take turns; the rest goes with everybody.

Some engines corrupt answers when requests of different kinds (series of different shapes) are computed together. Such
requests carry a batching class. One class at a time has the turn; requests without a class fill the slots whenever
they are the oldest, also while a class runs out before a change of turn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """Waiting items in order of arrival, grouped so that two classes never run at the same time.

    The turn of a class closes, and another class that waits gets the next one, as soon as one of these holds:

    - it took `switch_after_requests` items while another class waited;
    - the class that waits longest for its turn has waited `switch_after_s`, all items that came before it began to wait
      are taken, and at least `slots` were taken meanwhile (so that a long queue of classes still fills the engine once
      per turn), or nothing is left to take;
    - it has nothing left to take and at most half of the slots are in use.

    A closed turn takes nothing more, and ends when what runs has ended. Classes get their turns in the order in which
    they began to wait; one whose turn closed goes to the end. So before a waiting class gets its turn, each other
    class takes at most `switch_after_requests` items, whatever arrives; and where items come class by class, a class
    ends before the next one begins, because what came first is not put off for what came later. Within a class, and
    between a class and the items without one, the order is that of arrival. Every operation is O(1).

    Args:
        slots: How many items run at a time, at most; the caller counts them.
        switch_after_requests: Most items of one turn while another class waits.
        switch_after_s: Longest wait for a turn that does not close the current one to items that come later.
    """

    def __init__(self, *, slots: int, switch_after_requests: int, switch_after_s: float) -> None:
        self._slots = slots
        self._switch_after_requests = switch_after_requests
        self._switch_after_s = switch_after_s
        self._free: OrderedDict[str, tuple[int, Item]] = OrderedDict()
        self._queues: dict[Hashable, OrderedDict[str, tuple[int, Item]]] = {}  # no empty ones
        # Waiting classes without the turn: since when, and how many items had arrived by then.
        self._rotation: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        self._current: Hashable | None = None
        self._last: Hashable | None = None  # the class that had the turn before
        self._running = 0  # of the current class
        self._taken = 0  # by the current turn, while another class waited
        self._closing = False
        self._arrivals = 0
        self._waiting = 0
        self._switches = 0

    def resize(self, slots: int) -> None:
        """Change how many items run at a time."""
        self._slots = slots

    def __len__(self) -> int:
        """How many items wait."""
        return self._waiting

    @property
    def switches(self) -> int:
        """How often the turn went from one class to another."""
        return self._switches

    def add(self, key: str, item: Item, batch_class: Hashable | None, now: float) -> None:
        """Put an item at the end of its class; `key` is unique among the waiting ones, `now` is in seconds."""
        self._arrivals += 1
        self._waiting += 1
        if batch_class is None:
            self._free[key] = (self._arrivals, item)
            return
        queue = self._queues.get(batch_class)
        if queue is None:
            queue = self._queues[batch_class] = OrderedDict()
            if batch_class != self._current:
                self._wait_in_turn(batch_class, now)
        queue[key] = (self._arrivals, item)

    def remove(self, key: str, batch_class: Hashable | None) -> None:
        """Forget a waiting item."""
        self._waiting -= 1
        if batch_class is None:
            del self._free[key]
            return
        del self._queues[batch_class][key]
        self._forget_if_empty(batch_class)

    def take(self, now: float) -> Item | None:
        """Return the next item that may run beside those that do, or None; the caller has a free slot for it."""
        own = self._open_queue(now)
        head = next(iter(own.values()))[0] if own else None
        free = next(iter(self._free.values()))[0] if self._free else None
        if free is not None and (head is None or free < head):
            self._waiting -= 1
            return self._free.popitem(last=False)[1][1]
        if own is None or head is None:
            return None
        self._waiting -= 1
        self._taken += 1
        self._running += 1
        item = own.popitem(last=False)[1][1]
        if not own:
            del self._queues[self._current]
        return item

    def ended(self, batch_class: Hashable | None) -> None:
        """Tell that an item that was taken has ended."""
        if batch_class is not None:
            self._running -= 1

    def clear(self) -> list[Item]:
        """Take out all waiting items, in no particular order."""
        waiting = [item for queue in (self._free, *self._queues.values()) for _, item in queue.values()]
        self._free.clear()
        self._queues.clear()
        self._rotation.clear()
        self._waiting = 0
        return waiting

    def _open_queue(self, now: float) -> OrderedDict[str, tuple[int, Item]] | None:
        """Return the queue of the class that may take now, after a change of turn where one is due."""
        own = self._queues.get(self._current) if self._current is not None else None
        closed = self._is_closing(own is not None, now)
        if self._running == 0 and (closed or own is None):
            if self._current is not None and own is not None:
                self._wait_in_turn(self._current, now)
            self._current = None
            if self._rotation:
                self._current, _ = self._rotation.popitem(last=False)
                self._switches += self._last is not None and self._last != self._current
                self._last = self._current
            self._taken = 0
            self._closing = False
            return self._queues.get(self._current) if self._current is not None else None
        return None if closed else own

    def _is_closing(self, has_more: bool, now: float) -> bool:
        if not self._rotation:
            self._closing = False
        elif not self._closing:
            since, arrivals = next(iter(self._rotation.values()))
            overdue = now - since >= self._switch_after_s
            self._closing = (
                self._taken >= self._switch_after_requests
                or (overdue and (not has_more or (self._taken >= self._slots and self._head() > arrivals)))
                or (not has_more and self._running <= self._slots // 2)
            )
        return self._closing

    def _head(self) -> int:
        """Return which arrival the next item of the current class was."""
        return next(iter(self._queues[self._current].values()))[0]

    def _wait_in_turn(self, batch_class: Hashable, now: float) -> None:
        if not self._rotation:
            self._taken = 0
        self._rotation[batch_class] = (now, self._arrivals)

    def _forget_if_empty(self, batch_class: Hashable) -> None:
        if not self._queues[batch_class]:
            del self._queues[batch_class]
            self._rotation.pop(batch_class, None)
