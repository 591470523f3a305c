"""What a results folder holds, by its published layout: the plan, the files of rows, and the merged answers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from s1batch.errors import JobFileError

PLAN = "plan.parquet"

_PART = re.compile(r"part-(\d{6,})(?:-(\d{6,})\.[0-9a-f]+)?\.parquet")
"""A file of one part, or after `s1batch compact` one of all parts from the first number to the second."""

_EXTENSION = re.compile(r"plan-(\d{4,})\.parquet")
_LINES_AT_ONCE = 65536


@dataclass(frozen=True)
class ResultsFolder:
    """A results folder of another run, as it is now.

    Attributes:
        path: The folder.
        merged: Whether the merged answers are meant, and not the rows.
    """

    path: Path
    merged: bool = False

    def files(self) -> list[Path]:
        """Return the files that hold the rows, in their order.

        Raises:
            JobFileError: There is no such folder, or nothing is merged.
        """
        if not (self.path / PLAN).is_file():
            raise JobFileError(f"source.path: {self.path} holds no results; give the folder that a run wrote to")
        folder = self.path / ("merged" if self.merged else "rows")
        found = sorted((int(match[1]), path) for path in _entries(folder) if (match := _PART.fullmatch(path.name)))
        if self.merged:
            found = [(number, path) for number, path in enumerate(sorted(folder.glob("*.parquet")))]
            if not found:
                raise JobFileError(f"source.merged: {self.path} has no merged answers; `s1batch merge` makes them")
        return [path for _, path in found]

    def unfinished(self) -> Counter[int]:
        """Return how many chunks are planned in each part that has no file of rows yet."""
        import pyarrow.parquet as pq

        done: set[int] = set()
        for path in _entries(self.path / "rows"):
            if match := _PART.fullmatch(path.name):
                done.update(range(int(match[1]), int(match[2] or match[1]) + 1))
        waiting: Counter[int] = Counter()
        for path in self._plans():
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=_LINES_AT_ONCE, columns=["part"]):
                    waiting.update(batch.column("part").to_pylist())
        return Counter({part: count for part, count in waiting.items() if part not in done})

    @cached_property
    def schema(self) -> Any:
        """The Arrow schema of the rows.

        Raises:
            JobFileError: There are none.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        files = self.files()
        path = files[0] if self.merged else self.path / "schema.parquet"
        try:
            return pq.read_schema(path)
        except (OSError, pa.ArrowException) as error:
            raise JobFileError(f"source.path: {path} cannot be read: {error}") from error

    def _plans(self) -> Iterator[Path]:
        yield self.path / PLAN
        yield from sorted(path for path in _entries(self.path) if _EXTENSION.fullmatch(path.name))


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
