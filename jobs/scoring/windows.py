"""The windows that were asked about, what they cover, and what they hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s1batch.jobs.scoring.matching import Integers, Points

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """Windows, sorted by group and start.

    Attributes:
        group: The instrument (network, station, location, band) of each.
        start_ns: Its first instant.
        stop_ns: The first instant behind it.
        answered: Whether it has an answer in the schema (`ok`).
        station: For each group, the number of its station (network and station code).
    """

    group: Integers
    start_ns: Integers
    stop_ns: Integers
    answered: Mask
    station: Integers

    def __len__(self) -> int:
        return len(self.start_ns)

    def covers(self, points: Points, chosen: Mask | None = None) -> Mask:
        """Return which points lie in a window (among those chosen, else among all)."""
        found = np.zeros(len(points), bool)
        for mine, theirs in self._by_group(points):
            if chosen is not None:
                mine = mine[chosen[mine]]
            if len(mine) == 0:
                continue
            reach = np.maximum.accumulate(self.stop_ns[mine])
            before = np.searchsorted(self.start_ns[mine], points.time_ns[theirs], side="right") - 1
            found[theirs] = (before >= 0) & (reach[np.maximum(before, 0)] > points.time_ns[theirs])
        return found

    def holds(self, points: Points) -> Mask:
        """Return which windows hold a point."""
        found = np.zeros(len(self), bool)
        for mine, theirs in self._by_group(points):
            times = np.sort(points.time_ns[theirs])
            found[mine] = np.searchsorted(times, self.start_ns[mine]) < np.searchsorted(times, self.stop_ns[mine])
        return found

    def nearest(self, points: Points, times_ns: Integers, known: Mask) -> tuple[Integers, Mask]:
        """Return for each window the point inside it that is nearest to the window's own time, and where there is one.

        Args:
            points: Where to look.
            times_ns: One time for each window.
            known: Where the window has a time.
        """
        found, there = np.zeros(len(self), np.int64), np.zeros(len(self), bool)
        for mine, theirs in self._by_group(points):
            times = np.sort(points.time_ns[theirs])
            mine = mine[known[mine]]
            right = np.searchsorted(times, times_ns[mine])
            for side in (right - 1, right):
                candidate = times[np.clip(side, 0, len(times) - 1)] if len(times) else np.zeros(len(mine), np.int64)
                inside = (side >= 0) & (side < len(times))
                inside &= (candidate >= self.start_ns[mine]) & (candidate < self.stop_ns[mine])
                nearer = np.abs(candidate - times_ns[mine]) < np.abs(found[mine] - times_ns[mine])
                take = inside & (~there[mine] | nearer)
                found[mine[take]], there[mine[take]] = candidate[take], True
        return found, there

    def number_of(self, points: Points) -> Integers:
        """Return for each point the number of the window of its group that began last before it."""
        found = np.zeros(len(points), np.int64)
        for mine, theirs in self._by_group(points):
            if len(mine):
                before = np.searchsorted(self.start_ns[mine], points.time_ns[theirs], side="right") - 1
                found[theirs] = mine[np.maximum(before, 0)]
        return found

    def _by_group(self, points: Points) -> Iterator[tuple[Integers, Integers]]:
        """Yield for each group the numbers of its windows and of its points."""
        order = np.argsort(points.group, kind="stable")
        for group in range(len(self.station)):
            low, high = np.searchsorted(self.group, [group, group + 1])
            first, behind = np.searchsorted(points.group, [group, group + 1], sorter=order)
            yield np.arange(low, high), order[first:behind]
