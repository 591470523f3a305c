"""Small files of rows to few large ones, so that a table of millions of rows opens at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s1batch.errors import ResultsError
from s1batch.plan_store import PlanStore
from s1batch.results.part_files import PartFiles, RowsFile
from s1batch.results.rearranging import Parts, rearrange
from s1batch.results.store import ResultsStore

ROWS_PER_FILE = 1_000_000
"""Most rows of a file that a compaction makes."""

BYTES_PER_FILE = 1 << 30
"""A file gets no further parts when the files that it is made of have so many bytes together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """What a compaction did.

    Attributes:
        before: Files of rows before.
        after: Files of rows now.
        parts: Finished parts.
        rows: Their rows, as planned.
        kept: Folder of the old files, when they were kept.
    """

    before: int
    after: int
    parts: int
    rows: int
    kept: Path | None = None


def compact(path: str | os.PathLike[str], *, rows_per_file: int = ROWS_PER_FILE, keep: bool = False) -> Compaction:
    """Join the files of neighbouring finished parts; what is large already stays as it is.

    Readers see the old files until all new ones are written and checked, and then the new ones, at once. Killed at any
    moment, one or the other counts, and the next command cleans up.

    Args:
        path: The results directory.
        rows_per_file: Most rows of a file.
        keep: Move the old files to `originals` instead of removing them.

    Raises:
        LockedError: A run is at work on these results.
        ResultsError: Rows are damaged or not those of the plan, or cannot be written; everything is as before.
    """
    if rows_per_file < 1:
        raise ValueError("a file holds at least one row")
    plan = PlanStore(path)
    with ResultsStore(path, None) as store, store.gate() as lease:
        store.settle()
        with store.alone():
            files = PartFiles(store.layout)
            doubled = files.doubled()
            if doubled:
                raise ResultsError(
                    f"{store.layout.rows}: part {doubled[0]} lies in two files; move the one away that was copied there"
                )
            sizes = plan.sizes()
            parts = sorted(files.finished)
            if parts and parts[-1] >= len(sizes):
                raise ResultsError(f"{store.layout.rows}: part {parts[-1]} is not in the plan; see `s1batch verify`")
            targets = arrangement(files.files, sizes, rows_per_file)
            changes = targets != [(file.first, file.last) for file in files.files]
            kept = None
            if changes:
                before = _folders(store.layout.originals)
                rearrange(files, store.schema, targets, lease, plan=plan, keep=keep)
                kept = next(iter(_folders(store.layout.originals) - before), None)
    return Compaction(
        before=len(files.files), after=len(targets), parts=len(parts), rows=int(sizes[parts].sum()), kept=kept
    )


def arrangement(files: list[RowsFile], sizes: np.ndarray[Any, np.dtype[np.int64]], rows_per_file: int) -> list[Parts]:
    """Return which parts go into one file: neighbours, in their order, as long as there is room.

    A file that has half of the rows or bytes stays as it is.

    Args:
        files: What is there, in the order of the plan.
        sizes: Rows of each part.
        rows_per_file: Most rows of a file; a single part may have more.
    """
    found: list[Parts] = []
    rows = size = 0
    for file in files:
        own_rows = int(sizes[file.first : file.last + 1].sum())
        own_size = file.path.stat().st_size
        full = rows + own_rows > rows_per_file or size + own_size > BYTES_PER_FILE
        large = 2 * own_rows >= rows_per_file or 2 * own_size >= BYTES_PER_FILE
        if found and file.first == found[-1][1] + 1 and not full and not large:
            found[-1] = (found[-1][0], file.last)
            rows, size = rows + own_rows, size + own_size
        else:
            found.append((file.first, file.last))
            rows, size = own_rows, own_size
            if large:
                # Nothing is joined to it, or it would be written again and again as a run goes on.
                rows = rows_per_file
    return found


def _folders(folder: Path) -> set[Path]:
    return set(folder.iterdir()) if folder.is_dir() else set()
