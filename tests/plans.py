"""Small plans, inventories and rows for the tests of what is on disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from s1batch.columns import Column
from s1batch.plan_store import PlanWriter
from s1batch.records import Address, Chunk, InventoryItem, PlanEntry, Refusal, Row, SeriesShape, Slice
from s1batch.results.schema import UTC_NS, RowSchema

LINEAGE = (Column(name="station", type=pa.string(), doc="station"),)
ANSWER = (
    Column(name="contain", type=pa.bool_(), doc="whether there is an event"),
    Column(name="p_index", type=pa.int32(), doc="sample of the P onset"),
    Column(name="p_time", type=UTC_NS, doc="time of the P onset"),
    Column(name="score", type=pa.float64(), doc="a number"),
)
SCHEMA = RowSchema(LINEAGE, ANSWER)
MINUTE_NS = 60_000_000_000


def window(
    start_ns: int,
    stop_ns: int,
    *,
    source: str = "BW.RJOB..EHZ",
    rate_hz: float | None = 100.0,
    refusal: Refusal | None = None,
    part: int = 0,
) -> PlanEntry:
    """A window of one channel."""
    address = Address(
        source=source,
        root="archive",
        path=f"{source}.mseed",
        slices=(Slice(dim="time_ns", start=start_ns, stop=stop_ns),),
        rate_hz=rate_hz,
    )
    series = None if refusal else SeriesShape(steps=6000, channels=1, rate_hz=rate_hz or 1.0)
    return PlanEntry(chunk=Chunk(inputs=(address,)), label=source, series=series, refusal=refusal, part=part)


def minutes(count: int, per_part: int = 4) -> list[PlanEntry]:
    """Windows of one minute, one after the other."""
    return [window(i * MINUTE_NS, (i + 1) * MINUTE_NS, part=i // per_part) for i in range(count)]


def stretch(start_ns: int, count: int, *, source: str = "BW.RJOB..EHZ", rate_hz: float = 100.0) -> InventoryItem:
    """A selected stretch of samples."""
    return InventoryItem(
        root="archive",
        path=f"{source}.mseed",
        source=source,
        status="selected",
        unit="samples",
        count=count,
        start=start_ns,
        stop=start_ns + round(count * 1e9 / rate_hz),
        rate_hz=rate_hz,
    )


def write_plan(path: Path, lines: Iterable[PlanEntry | InventoryItem]) -> None:
    """Write a plan and its inventory."""
    with PlanWriter(path) as writer:
        for line in lines:
            writer.add(line)


def row(entry: PlanEntry, **changes: object) -> Row:
    """An `ok` row for a plan entry."""
    values: dict[str, object] = {
        "chunk_key": entry.chunk.key,
        "part": entry.part,
        "source": entry.chunk.inputs[0].source,
        "start_ns": entry.chunk.start,
        "stop_ns": entry.chunk.stop,
        "outcome": "ok",
        "text": "yes",
        "prompt_tokens": 10,
        "output_tokens": 2,
        "lineage": {"station": "RJOB"},
        "answer": {"contain": True, "p_index": 7, "p_time": entry.chunk.start, "score": 0.5},
        **changes,
    }
    return Row(**values)  # type: ignore[arg-type]
