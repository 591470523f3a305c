"""Sets of half-open intervals of integers, sorted and disjoint."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

Interval = tuple[int, int]


def _stop(interval: Interval) -> int:
    return interval[1]


def united(intervals: Iterable[Interval]) -> list[Interval]:
    """Return the union of intervals; those that touch become one."""
    found: list[Interval] = []
    for start, stop in sorted(intervals):
        if stop <= start:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        else:
            found.append((start, stop))
    return found


def common(one: Sequence[Interval], other: Sequence[Interval]) -> list[Interval]:
    """Return where two sets overlap, in pieces."""
    found: list[Interval] = []
    for start, stop in one:
        place = bisect_right(other, start, key=_stop)
        while place < len(other) and other[place][0] < stop:
            found.append((max(start, other[place][0]), min(stop, other[place][1])))
            place += 1
    return found


def extent(intervals: Iterable[Interval]) -> int:
    """Return how long intervals are together."""
    return sum(stop - start for start, stop in intervals)


def overlaps(interval: Interval, others: Sequence[Interval]) -> bool:
    """Return whether an interval overlaps one of a set."""
    place = bisect_right(others, interval[0], key=_stop)
    return place < len(others) and others[place][0] < interval[1]


def iou_matches(one: Sequence[Interval], other: Sequence[Interval], least: float) -> list[tuple[int, int]]:
    """Return pairs (number in one, number in other) whose intersection over union is at least `least`.

    Each interval is in one pair at most. With disjoint intervals on both sides and `least` from 0.5 on, no other choice
    gives more pairs: two intervals can reach it with the same third one only where each covers exactly half of it.
    """
    starts = [start for start, _ in other]
    stops = [stop for _, stop in other]
    pairs: list[tuple[int, int]] = []
    taken: set[int] = set()
    for number, (start, stop) in enumerate(one):
        best, best_iou = None, 0.0
        for place in range(bisect_right(stops, start), bisect_left(starts, stop)):
            shared = min(stop, stops[place]) - max(start, starts[place])
            union = max(stop, stops[place]) - min(start, starts[place])
            if place not in taken and shared / union >= max(least, best_iou):
                best, best_iou = place, shared / union
        if best is not None:
            taken.add(best)
            pairs.append((number, best))
    return pairs
