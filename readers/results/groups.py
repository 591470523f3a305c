"""Rows gathered by group, in bounded memory: the keys are sorted on the disk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from s1batch.readers.sorted_lines import DiskLines

_LINES_AT_ONCE = 4096

SortKey = str | int | float | bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlace:
    """Where a row is.

    Attributes:
        file: Number of its file, in the order of the files.
        index: Its number in the file, from 0.
        key: What identifies it in its run.
        nbytes: About the bytes that are read for it.
    """

    file: int
    index: int
    key: str
    nbytes: int


class RowGroups:
    """Sorts rows into groups; a context manager.

    Args:
        groups: How many columns tell groups apart.
        descending: For each column that orders the rows of a group, whether the largest value comes first.
    """

    def __init__(self, groups: int, descending: Sequence[bool]) -> None:
        self._groups = groups
        self._descending = tuple(descending)
        names = [f"g{number}" for number in range(groups)] + [f"o{number}" for number in range(len(descending))]
        self._lines = DiskLines(", ".join([*names, "file", "row", "key", "nbytes"]))
        self._waiting: list[tuple[Any, ...]] = []

    def __enter__(self) -> RowGroups:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._lines.__exit__(*exc_info)

    def add(self, group: Sequence[SortKey], order: Sequence[SortKey], place: RowPlace) -> None:
        """Add a row."""
        self._waiting.append((*group, *order, place.file, place.index, place.key, place.nbytes))
        if len(self._waiting) >= _LINES_AT_ONCE:
            self._flush()

    def pieces(self, most: int) -> Iterator[tuple[tuple[SortKey, ...], list[RowPlace]]]:
        """Yield the groups in the order of their values, each in pieces of at most so many rows."""
        self._flush()
        self._lines.end()
        ways = [f"g{number}" for number in range(self._groups)]
        ways += [f"o{number} {'DESC' if turned else 'ASC'}" for number, turned in enumerate(self._descending)]
        current: tuple[SortKey, ...] = ()
        rows: list[RowPlace] = []
        for line in self._lines.select(f"SELECT * FROM lines ORDER BY {', '.join([*ways, 'file', 'row'])}"):
            group, (file, index, key, nbytes) = line[: self._groups], line[-4:]
            if rows and (group != current or len(rows) >= most):
                yield current, rows
                rows = []
            current = group
            rows.append(RowPlace(file=file, index=index, key=key, nbytes=nbytes))
        if rows:
            yield current, rows

    def _flush(self) -> None:
        self._lines.add(self._waiting)
        self._waiting.clear()


def sort_key(value: Any) -> SortKey:
    """Return a value as one that sorts and compares as it does: numbers and text as they are, the rest as text."""
    if value is None or isinstance(value, (str, bytes)):
        return value
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        # SQLite holds 64 bits with a sign; what lies outside sorts behind all numbers.
        return value if -(2**63) <= value < 2**63 else f"{value:+040d}"
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value
    return repr(value)
