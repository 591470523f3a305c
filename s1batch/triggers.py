"""Which of the windows behind a scan are asked: decided from the scan's stored row and nothing else.

So a run that goes on after an interruption decides as it did before, and so does every worker. A scan without a usable
answer says nothing about its windows, and all of them are asked.
"""

from __future__ import annotations

from s1batch.jobs.base import Job
from s1batch.records import Chunk, PlanEntry, Refusal, Row

_NS = 1_000_000_000


class Triggers:
    """Decides about conditional windows; remembers what the scans said, so it belongs to one part.

    Args:
        job: Says which places an answer names.
        margin_s: How far from such a place a window may be; the scan's resolution is added.
    """

    def __init__(self, job: Job, margin_s: float) -> None:
        self._job = job
        self._margin_s = margin_s
        self._reaches: dict[str, list[tuple[int, int]] | None] = {}

    def refusal(self, entry: PlanEntry, scan: Row) -> Refusal | None:
        """Return why a conditional window is not asked; None when it is.

        Args:
            entry: Its line of the plan.
            scan: The row of its scan, as stored.
        """
        if scan.chunk_key not in self._reaches:
            self._reaches[scan.chunk_key] = self._reach(scan)
        reach = self._reaches[scan.chunk_key]
        start, stop = _extent(entry.chunk)
        if reach is None or start is None or stop is None:
            return None
        if any(low < stop and high >= start for low, high in reach):
            return None
        found = f"found {len(reach)} places, none of them here" if reach else "found nothing"
        return Refusal(outcome="skipped", reason="not_triggered", detail=f"the scan {scan.chunk_key} {found}")

    def _reach(self, scan: Row) -> list[tuple[int, int]] | None:
        """Return the ranges around the places that a scan found; None for everywhere."""
        rate_hz = scan.lineage.get("rate_sent_hz")
        if scan.outcome != "ok" or not rate_hz:
            return None
        places = self._job.places(scan.answer)
        if places is None:
            return None
        # Without times, places are counted in samples.
        per_second = _NS if scan.start_ns is not None else scan.lineage.get("rate_hz") or rate_hz
        margin = round((self._margin_s + 1 / rate_hz) * per_second)
        ranges = [place if isinstance(place, tuple) else (place, place) for place in places]
        return [(start - margin, stop + margin) for start, stop in ranges]


def _extent(chunk: Chunk) -> tuple[int | None, int | None]:
    """Return a chunk's times, wherever in its address they stand; where it has none, its first slice."""
    for part in chunk.inputs[0].slices if chunk.inputs else ():
        if part.dim == "time_ns":
            return part.start, part.stop
    return chunk.start, chunk.stop
