"""Lines that are looked up and sorted on the disk, so that memory does not grow with their number."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

_CACHE_KB = 8192


class DiskLines:
    """A table in a temporary file; a context manager, and gone when it ends.

    Args:
        columns: What SQLite calls its columns.
        index: Columns by which lines are found.
    """

    def __init__(self, columns: str, index: str = "") -> None:
        self._folder = TemporaryDirectory(prefix="s1batch-lines-")
        self._store = sqlite3.connect(Path(self._folder.name) / "lines.sqlite", isolation_level=None)
        for setting in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE_KB}", "temp_store=FILE"):
            self._store.execute(f"PRAGMA {setting}").fetchall()
        self._store.execute(f"CREATE TABLE lines ({columns})")
        self._marks = ",".join("?" * len(columns.split(",")))
        self._index = index
        self._store.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.close()
        self._folder.cleanup()

    def add(self, lines: Iterable[Sequence[Any]]) -> None:
        """Append lines."""
        self._store.executemany(f"INSERT INTO lines VALUES ({self._marks})", lines)

    def end(self) -> None:
        """Say that all lines are there; they may be looked for from now on."""
        if self._index:
            self._store.execute(f"CREATE INDEX found ON lines ({self._index})")
        self._store.execute("COMMIT")

    def select(self, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield what a query of the table `lines` finds."""
        yield from self._store.execute(query, values)
