"""Small waveform files for tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import obspy

from s1batch.readers.seismic.planner import plan_seismic
from s1batch.readers.seismic.spec import SeismicSource
from s1batch.records import InventoryItem, PlanEntry
from s1batch.windows import WindowSpec

OBSPY_IO = Path(obspy.__file__).parent / "io"
DAY_NS = 86_400 * 10**9
T0_NS = 1_700_006_400 * 10**9  # 2023-11-15T00:00:00

Segment = tuple[str, int, float, int]
"""Channel id, start in ns, rate in Hz, samples."""


def mseed_bytes(segments: Iterable[Segment], version: int = 3, record_bytes: int = 512) -> bytes:
    """Return MiniSEED with the segments in the order given, ascending numbers as samples."""
    from pymseed import DataEncoding, MS3Record, nslc2sourceid

    def records() -> Iterator[bytes]:
        for channel, start_ns, rate_hz, samples in segments:
            record = MS3Record(reclen=record_bytes, encoding=DataEncoding.STEIM2)
            record.formatversion = version
            record.sourceid = nslc2sourceid(*channel.split("."))
            record.starttime = start_ns
            record.samprate = rate_hz
            yield from record.generate(np.arange(samples, dtype=np.int32) % 1000, sample_type="i")

    return b"".join(bytes(record) for record in records())


def write_mseed(path: Path, segments: Iterable[Segment], version: int = 3) -> Path:
    """Write a MiniSEED file, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mseed_bytes(segments, version))
    return path


def plan(
    base_dir: Path, *, window: dict[str, object] | None = None, **source: object
) -> tuple[list[InventoryItem], list[PlanEntry]]:
    """Plan all `*.mseed` below a folder, or what `source` says; return the items and the entries."""
    if not {"paths", "sds", "manifest"} & set(source):
        source["paths"] = ("**/*.mseed",)
    spec = SeismicSource.model_validate({"kind": "seismic", **source})
    items: list[InventoryItem] = []
    entries: list[PlanEntry] = []
    for thing in plan_seismic(spec, WindowSpec.model_validate({"length": 100, **(window or {})}), base_dir):
        if isinstance(thing, InventoryItem):
            items.append(thing)
        else:
            entries.append(thing)
    return items, entries


def samples(items: Iterable[InventoryItem], *status: str) -> int:
    """Return how many samples have one of the statuses (all, when none is given)."""
    return sum(item.count for item in items if item.unit == "samples" and (not status or item.status in status))
