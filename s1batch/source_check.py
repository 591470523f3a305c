"""Whether the files are still those that were planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from s1batch.records import Record, Refusal


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """Size in bytes and modification time (ns) of files when they were planned, by encoded path.

    Compared with the lineage columns `source_files`, `source_sizes` and `source_mtimes_ns` that a reader fills with
    what it found when it opened the files.
    """

    planned: Mapping[str, tuple[int, int]]

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
            if planned is not None and planned != (size, mtime_ns):
                what = f"{planned[0]} bytes then, {size} now" if planned[0] != size else "it was written again"
                return Refusal(
                    outcome="unreadable", reason="source_changed", detail=f"{path} changed since the plan: {what}"
                )
        return None
