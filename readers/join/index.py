"""The pieces of partners, found by key and time; on the disk, so that memory does not grow with their number."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

from s1batch.readers.join.rules import Place
from s1batch.readers.sorted_lines import DiskLines
from s1batch.records import PlanEntry

_LINES_AT_ONCE = 1024


class PartnerIndex:
    """Keeps entries of partners until their primary pieces come; a context manager.

    Args:
        tolerance_ns: How far apart times may be that belong together.
    """

    def __init__(self, tolerance_ns: int) -> None:
        self._tolerance_ns = tolerance_ns
        self._lines = DiskLines("alias TEXT, key TEXT, start INTEGER, stop INTEGER, entry BLOB", "alias, key, start")
        self._waiting: list[tuple[Any, ...]] = []
        self._longest_ns: dict[str, int] = {}

    def __enter__(self) -> PartnerIndex:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._lines.__exit__(*exc_info)

    def add(self, alias: str, place: Place, entry: PlanEntry) -> None:
        """Keep an entry; one without a key is nobody's partner."""
        if place.key is None:
            return
        start, stop = place.start_ns, place.stop_ns
        if start is not None and stop is not None:
            self._longest_ns[alias] = max(self._longest_ns.get(alias, 0), stop - start)
        self._waiting.append((alias, place.key, start, stop, pickle.dumps(entry)))
        if len(self._waiting) >= _LINES_AT_ONCE:
            self._flush()

    def end(self) -> None:
        """Say that all entries are there."""
        self._flush()
        self._lines.end()

    def find(self, alias: str, place: Place, *, many: bool) -> list[PlanEntry]:
        """Return the partners of a piece, in the order of their times and of their plan; the best one unless `many`.

        The best is the one with the smallest gap between the times, then the one that begins nearest, then the first.
        """
        if place.key is None:
            return []
        if place.start_ns is None or place.stop_ns is None:
            limit = "" if many else " LIMIT 1"
            query = f"SELECT entry FROM lines WHERE alias = ? AND key = ? ORDER BY rowid{limit}"
            return [pickle.loads(entry) for (entry,) in self._lines.select(query, (alias, place.key))]
        found = list(self._near(alias, place.key, place.start_ns, place.stop_ns))
        if not many and found:
            start, stop = place.start_ns, place.stop_ns
            found = [min(found, key=lambda line: (max(line[0] - stop, start - line[1], -1), abs(line[0] - start)))]
        return [pickle.loads(entry) for _, _, entry in found]

    def _near(self, alias: str, key: str, start: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield what overlaps [start, stop), widened by the tolerance."""
        low, high = start - self._tolerance_ns, stop + self._tolerance_ns
        query = (
            "SELECT start, stop, entry FROM lines "
            "WHERE alias = ? AND key = ? AND start > ? AND start < ? AND stop > ? ORDER BY start, rowid"
        )
        earliest = low - self._longest_ns.get(alias, 0)
        yield from self._lines.select(query, (alias, key, earliest, high, low))

    def _flush(self) -> None:
        self._lines.add(self._waiting)
        self._waiting.clear()
