"""When engines are down: drawn as far as they are asked for, the same for the simulation and its oracle."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping

import numpy as np

Outage = tuple[float, float]
"""From when to when, in seconds."""


class Outages:
    """Failures that come at random, and others at times that are given.

    Args:
        engines: How many there are.
        fail_every_s: Mean time between two failures of all engines together; None: none fails.
        each_fails_every_s: Mean time for which one engine works before it fails; None likewise.
        repair_s: How long an engine is down.
        given: Further outages by engine; an end of infinity means for good. An engine that has such does not fail at
            random.
        seed: Of what is drawn.
    """

    def __init__(
        self,
        engines: int,
        *,
        fail_every_s: float | None = None,
        each_fails_every_s: float | None = None,
        repair_s: float = 600.0,
        given: Mapping[int, list[Outage]] | None = None,
        seed: int = 0,
    ) -> None:
        self._each: list[list[Outage]] = [sorted((given or {}).get(number, [])) for number in range(engines)]
        self._random = np.random.default_rng((seed, 1))
        self._repair_s = repair_s
        self._all_every_s = fail_every_s or math.inf
        able = [number for number in range(engines) if not self._each[number]]
        # The next failures to come, by time; -1 stands for the stream of failures that any engine may have.
        self._next: list[tuple[float, int]] = []
        self._every_s = {number: each_fails_every_s for number in able if each_fails_every_s is not None}
        self._able = able
        for number, every_s in self._every_s.items():
            heapq.heappush(self._next, (float(self._random.exponential(every_s)), number))
        if fail_every_s is not None and able:
            heapq.heappush(self._next, (float(self._random.exponential(fail_every_s)), -1))

    def of(self, engine: int, until_s: float) -> list[Outage]:
        """Return the outages of an engine that begin before a time, in order."""
        self._draw(until_s)
        return [outage for outage in self._each[engine] if outage[0] < until_s]

    def after(self, engine: int, now_s: float) -> Outage:
        """Return the next outage of an engine that begins after a time; at infinity when there is none."""
        horizon = now_s + 3600.0
        while True:
            later = [outage for outage in self.of(engine, horizon) if outage[0] > now_s]
            if later:
                return later[0]
            if not self._next:
                return math.inf, math.inf
            horizon = now_s + 2 * (horizon - now_s)

    def live_s(self, engine: int, until_s: float) -> float:
        """Return for how long an engine works before a time."""
        return until_s - sum(min(end, until_s) - begin for begin, end in self.of(engine, until_s))

    def _draw(self, until_s: float) -> None:
        while self._next and self._next[0][0] < until_s:
            now, number = heapq.heappop(self._next)
            if number >= 0:
                self._fail(number, now)
                again = now + self._repair_s + float(self._random.exponential(self._every_s[number]))
                heapq.heappush(self._next, (again, number))
                continue
            up = [each for each in self._able if not self._each[each] or self._each[each][-1][1] <= now]
            if up:
                self._fail(int(self._random.choice(up)), now)
            heapq.heappush(self._next, (now + float(self._random.exponential(self._all_every_s)), -1))

    def _fail(self, number: int, now: float) -> None:
        if not self._each[number] or self._each[number][-1][1] <= now:
            self._each[number].append((now, now + self._repair_s))
