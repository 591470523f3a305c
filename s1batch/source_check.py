"""Whether the files are still those that were planned."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Self

from s1batch.errors import SourceError
from s1batch.plan_store import PlanStore
from s1batch.readers.base import HoldsReaders, LooksAtSources, Reader
from s1batch.records import InventoryItem, Record, Refusal


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """Size in bytes and modification time (ns) of files when they were planned, by encoded path.

    Compared with the lineage columns `source_files`, `source_sizes` and `source_mtimes_ns` that a reader fills with
    what it found when it opened the files.
    """

    planned: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, plan: PlanStore, paths: Collection[str]) -> Self:
        """Look files up in the inventory of a plan."""
        import polars as pl

        wanted = pl.col("path").is_in(list(paths))
        items = plan.inventory().filter(wanted).select("path", "size", "mtime_ns").unique("path").collect()
        return cls({path: (size, mtime_ns) for path, size, mtime_ns in items.iter_rows()})

    def changed(self, record: Record) -> Refusal | None:
        """Return a refusal when a file of the record is not the planned one any more."""
        lineage = record.lineage
        found = zip(
            lineage.get("source_files") or (),
            lineage.get("source_sizes") or (),
            lineage.get("source_mtimes_ns") or (),
            strict=False,
        )
        for path, size, mtime_ns in found:
            planned = self.planned.get(path)
            if planned is not None and size is not None and (what := _difference(planned, (size, mtime_ns))):
                detail = f"{path} changed since the plan: {what}"
                return Refusal(outcome="unreadable", reason="source_changed", detail=detail)
        return None


def check_item(reader: Reader, item: InventoryItem) -> str | None:
    """Look at the file of an inventory item again.

    Returns:
        What differs from the plan, in words; None when nothing does. The content is compared when a hash was recorded.
    """
    if item.status == "unreadable" and not item.mtime_ns:
        return None  # the plan could not look at it either: it was missing, or its name leads out of the archive
    if isinstance(reader, HoldsReaders):
        reader, path_there = reader.reader_of(item.path)
        return check_item(reader, replace(item, path=path_there))
    if isinstance(reader, LooksAtSources):
        try:
            return _difference((item.size, item.mtime_ns), reader.look_at(item.path))
        except SourceError as error:
            return f"it cannot be read any more: {error.detail}"
    path = reader.locate(item.path)
    try:
        stat = path.stat()
        if what := _difference((item.size, item.mtime_ns), (stat.st_size, stat.st_mtime_ns)):
            return what
        if item.sha256:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != item.sha256:
                    return "its content is another one, at the same size and time"
    except OSError as error:
        return f"it cannot be read any more: {error.strerror}"
    return None


def _difference(planned: tuple[int, int], found: tuple[int, int]) -> str | None:
    if planned == found:
        return None
    return f"{planned[0]:,} bytes then, {found[0]:,} now" if planned[0] != found[0] else "it was written again"
