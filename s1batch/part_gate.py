"""When a worker opens its next part: the engine must not run dry, and the open parts must fit in memory."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from s1batch.errors import Interrupted

READING_PARTS = 4
"""Parts that are read at once."""

OPEN_CHUNKS = 8192
"""Chunks of open parts beyond which no further part is opened beside one that is still being read."""

FEWEST_OPEN_PARTS = 32
"""Parts that may be open at once, however few requests are in flight."""

MOST_OPEN_PARTS = 1024
"""However many are: each open part has a thread that waits, and a file."""

REQUESTS_PER_OPEN_PART = 4
"""A part stays open until its slowest answer, and small parts have 128 chunks: where one answer in a hundred takes ten
times as long as the others, 1,000 requests at a time keep about 130 parts open. With 32 of them, 64 engines of 16 slots
computed in 46 % of their slots (`python -m tests.benchmarks.simulate`)."""

MOST_OPEN_CHUNKS = FEWEST_OPEN_PARTS * 4096
"""Chunks of open parts beyond which no part is opened: their rows are held until a part has its file."""

ADDRESSES_PER_CHUNK = 2
"""A part with more addresses than this for each chunk counts as more chunks: they are what is held."""

READ_AHEAD_BYTES = 16 << 20
"""Bytes that parts read ahead beyond which no further part is read beside them."""

_LOOK_EVERY_S = 0.2


def most_open_parts(asked: int | None, in_flight: int) -> int:
    """Return how many parts a worker may have open at once.

    Args:
        asked: What the job file says.
        in_flight: Requests that the worker has in flight.
    """
    return asked or min(max(FEWEST_OPEN_PARTS, in_flight // REQUESTS_PER_OPEN_PART), MOST_OPEN_PARTS)


class OpenPart:
    """A part that passed the gate; counts until it leaves."""

    def __init__(self, gate: PartGate, turn: int) -> None:
        self._gate = gate
        self.turn = turn
        self.chunks = 0
        self.read_ahead_bytes = READ_AHEAD_BYTES + 1  # not known yet: nobody else comes in meanwhile
        self.is_read = False

    def holds(self, chunks: int, read_ahead_bytes: int, addresses: int = 0) -> None:
        """Say how many chunks and addresses the part has, and about how many bytes of them are read ahead."""
        weight = max(chunks, addresses // ADDRESSES_PER_CHUNK)
        self._gate.change(self, chunks=weight, read_ahead_bytes=read_ahead_bytes)

    def read(self) -> None:
        """Say that the part is read to its end: only answers are missing, and another part may be read."""
        self._gate.change(self, is_read=True)

    def reads_again(self) -> None:
        """Say that more of the part is read, because answers called for it."""
        self._gate.change(self, is_read=False)


class PartGate:
    """Lets parts in one by one.

    A part whose last answers are slow must not keep the engine waiting, so parts that only wait for answers stay open
    beside those that are read. Where batching classes take turns, no part of a later turn is read before all of the
    earlier one are: so a class is whole before the next one begins.

    Args:
        stopped: Set when nothing new may begin.
    """

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped
        # One waiter is woken at a time: whoever comes in says what it holds, which wakes the next.
        self._changed = threading.Condition()
        self._open: set[OpenPart] = set()
        self._waiting: Counter[int] = Counter()  # by turn

    @contextmanager
    def part(self, turn: int = 0) -> Iterator[OpenPart]:
        """Wait until one more part may be read, and count it as open for the length of the block.

        Args:
            turn: Number of the turn of its batching class.

        Raises:
            Interrupted: The run is being stopped.
        """
        mine = OpenPart(self, turn)
        with self._changed:
            self._waiting[turn] += 1
            try:
                while not self._has_room(turn):
                    if self._stopped.is_set():
                        raise Interrupted("the run is being stopped")
                    self._changed.wait(_LOOK_EVERY_S)
            finally:
                self._waiting[turn] -= 1
                self._waiting += Counter()  # forget those that nobody waits for
            self._open.add(mine)
        try:
            yield mine
        finally:
            with self._changed:
                self._open.discard(mine)
                self._changed.notify()

    def has_room(self, turn: int = 0) -> bool:
        """Return whether a part of a turn would be let in now."""
        with self._changed:
            return self._has_room(turn)

    def change(self, part: OpenPart, **values: int) -> None:
        """Note what became of an open part."""
        with self._changed:
            for name, value in values.items():
                setattr(part, name, value)
            self._changed.notify()

    def _has_room(self, turn: int) -> bool:
        reading = [part for part in self._open if not part.is_read]
        if any(part.turn != turn for part in reading) or min(self._waiting, default=turn) < turn:
            return False
        chunks = sum(part.chunks for part in self._open)
        if not reading:
            return chunks <= MOST_OPEN_CHUNKS
        return (
            len(reading) < READING_PARTS
            and sum(part.read_ahead_bytes for part in reading) <= READ_AHEAD_BYTES
            and chunks <= OPEN_CHUNKS
        )
