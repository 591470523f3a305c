"""No question is asked whose answer would come after the end of the allocation, as far as one can tell.

What is in flight then is answered again in the next allocation, which costs the engine's work twice.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from s1batch.asking import EngineInFront
from s1batch.deadline import Deadline
from s1batch.engine.base import Engine
from s1batch.errors import OutOfTime
from s1batch.records import Request, Response

REMEMBERED = 128
"""Calls whose durations are looked at, the last ones."""

QUANTILE = 0.9
"""Share of them that were not slower than what the next call is expected to take: one straggler in a hundred must not
end every allocation early."""


class Pace:
    """How long calls take, and whether one that begins now would end in time.

    Args:
        deadline: By when the last answer must have come.
        clock: The present time, likewise.
    """

    def __init__(self, deadline: Deadline, clock: Callable[[], float] = time.time) -> None:
        self._deadline = deadline
        self._clock = clock
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)
        self._running: dict[int, float] = {}  # in order of their beginning
        self._next = 0

    @property
    def expected_s(self) -> float:
        """How long the next call will take: the 90th percentile of the last ones.

        Before any has ended, as long as the oldest that is on its way already takes.
        """
        if self._seconds:
            return sorted(self._seconds)[math.ceil(QUANTILE * len(self._seconds)) - 1]
        oldest = next(iter(self._running.values()), None)
        return 0.0 if oldest is None else self._clock() - oldest

    def fits(self) -> bool:
        """Whether a call that begins now is expected to end in time."""
        return self._clock() + self.expected_s < self._deadline.at

    def begin(self) -> int:
        """Note that a call begins; return its number."""
        self._next += 1
        self._running[self._next] = self._clock()
        return self._next

    def end(self, number: int, *, answered: bool) -> None:
        """Note that a call has ended; one that was cancelled or failed says nothing about the pace."""
        began = self._running.pop(number)
        if answered:
            self._seconds.append(self._clock() - began)


class PacedEngine(EngineInFront):
    """An engine that is asked as long as there is time.

    Args:
        engine: The engine.
        pace: Its pace.
        on_late: Called when a request comes too late.
    """

    def __init__(self, engine: Engine, pace: Pace, on_late: Callable[[], None]) -> None:
        super().__init__(engine)
        self._pace = pace
        self._on_late = on_late

    async def answer(self, request: Request) -> Response:
        """Return the engine's answer.

        Raises:
            OutOfTime: It would come too late; nothing was asked.
        """
        if not self._pace.fits():
            self._on_late()
            raise OutOfTime
        call = self._pace.begin()
        answered = False
        try:
            response = await self._engine.answer(request)
            answered = response.error is None
            return response
        finally:
            self._pace.end(call, answered=answered)
