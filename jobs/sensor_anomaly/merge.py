"""One interval for each anomaly, from windows that overlap.

Intervals of one channel of a stream that overlap, or are not farther apart than a gap, are one. An interval that lies
wholly in the halo of its window (outside its core) is dropped when the core of another answered window holds its
middle: that window saw the place in better context, and what it says, or does not say, counts.

Rows come in pieces and are gone through twice. First it is noted how early each piece begins in each stream; then every
merged interval is final that ends before the beginning of all rows still to come, and only what reaches beyond is kept.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import polars as pl

MERGE_COLUMNS = frozenset(
    [
        *("chunk_key", "outcome", "source", "start", "end", "span_start", "span_end"),
        *("core_start_ns", "core_stop_ns", "variable", "intervals"),
    ]
)
"""The columns of results that merging looks at."""


class Stream(NamedTuple):
    """What one axis of time, or of samples, belongs to."""

    source: str
    variable: str
    timed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An interval as a window names it, in nanoseconds or samples of the archive."""

    channel: str
    start: int
    stop: int
    kind: str
    reason: str
    chunk_key: str
    core: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """Intervals that are one."""

    channel: str
    start: int
    stop: int
    members: tuple[Found, ...]


@dataclass(slots=True)
class _Open:
    """What of a stream is not final yet."""

    cores: list[tuple[int, int]] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)


def merge_anomaly_pieces(pieces: Iterable[pl.DataFrame], gap_s: float) -> Iterator[pl.DataFrame]:
    """Merge the intervals of rows that come in pieces.

    Args:
        pieces: Rows of a `sensor-anomaly` job with `MERGE_COLUMNS`, as far as there are any; gone through twice.
        gap_s: Intervals at most this far apart are one: seconds, or samples where a stream has no times.

    Yields:
        Lines with `group_id`, `source`, `variable`, `channel` (empty: all of them), `start_time` and `end_time` (UTC,
        null without times), `start_sample` and `end_sample` (null with times), `kinds`, `reasons`, `count` (intervals
        that were merged) and `source_chunk_keys`; each once.
    """
    begins: dict[Stream, list[tuple[int, int]]] = defaultdict(list)
    for number, rows in enumerate(pieces):
        for stream, begin in _beginnings(rows).items():
            begins[stream].append((number, begin))
    to_come = {stream: _suffix_minima(found) for stream, found in begins.items()}
    opened: dict[Stream, _Open] = defaultdict(_Open)
    for number, rows in enumerate(pieces):
        _take(rows, opened)
        lines: list[dict[str, Any]] = []
        for stream in sorted(opened):
            gap = round(gap_s * 1e9) if stream.timed else round(gap_s)
            state = opened[stream]
            until = next((begin for piece, begin in to_come[stream] if piece > number), None)
            merged = merge_intervals(state.found, state.cores, gap)
            until = _before_straddling(merged, until, gap)
            lines += [_line(stream, one) for one in merged if until is None or one.start < until]
            if until is None:
                del opened[stream]
            else:
                state.found = [one for one in state.found if one.start >= until]
                state.cores = [core for core in state.cores if core[1] > until]
        yield _frame(lines)


def merge_intervals(found: list[Found], cores: list[tuple[int, int]], gap: int) -> list[Merged]:
    """Merge the intervals of one stream.

    Args:
        found: The intervals.
        cores: The cores of all answered windows of the stream.
        gap: Intervals at most this far apart are one.

    Returns:
        The merged intervals, by channel and start.
    """
    cores = sorted(cores)
    starts = [core[0] for core in cores]
    reach = list(accumulate((core[1] for core in cores), max))

    def stays(one: Found) -> bool:
        if one.start < one.core[1] and one.stop > one.core[0]:
            return True
        middle = (one.start + one.stop) // 2
        before = bisect_right(starts, middle) - 1
        return before < 0 or reach[before] <= middle

    merged: list[Merged] = []
    chain: list[Found] = []
    for one in sorted(filter(stays, found), key=lambda one: (one.channel, one.start, one.stop, one.chunk_key)):
        stop = max((each.stop for each in chain), default=0)
        if chain and (one.channel != chain[0].channel or one.start > stop + gap):
            merged.append(_merged(chain))
            chain = []
        chain.append(one)
    if chain:
        merged.append(_merged(chain))
    return merged


def _merged(chain: list[Found]) -> Merged:
    return Merged(
        channel=chain[0].channel,
        start=chain[0].start,
        stop=max(one.stop for one in chain),
        members=tuple(chain),
    )


def _before_straddling(merged: list[Merged], until: int | None, gap: int) -> int | None:
    """Move the end of what is final back to where no merged interval straddles it, or can be joined by a later one."""
    if until is None:
        return None
    while True:
        straddling = [one.start for one in merged if one.start < until <= one.stop + gap]
        if not straddling:
            return until
        until = min(straddling)


def _windows(rows: pl.DataFrame) -> Iterator[tuple[Stream, tuple[int, int], Mapping[str, Any]]]:
    """Yield each answered window with its stream and its core, in the units of the stream."""
    import polars as pl

    answered = rows.filter(pl.col("outcome") == "ok")
    times = [name for name in ("start", "end") if name in answered.columns]
    answered = answered.with_columns(pl.col(times).dt.cast_time_unit("ns").cast(pl.Int64))
    if "intervals" in answered.columns:
        answered = answered.with_columns(_as_numbers(answered["intervals"]))
    for row in answered.iter_rows(named=True):
        timed = row.get("start") is not None
        start, stop = (row.get("start"), row.get("end")) if timed else (row.get("span_start"), row.get("span_end"))
        if timed and row.get("core_start_ns") is not None and row.get("core_stop_ns") is not None:
            start, stop = row["core_start_ns"], row["core_stop_ns"]
        if start is None or stop is None:
            continue
        stream = Stream(row.get("source") or "", row.get("variable") or "", timed)
        yield stream, (start, stop), row


def _as_numbers(intervals: pl.Series) -> pl.Series:
    """Return intervals with their times as nanoseconds: Python's times hold no nanoseconds."""
    import polars as pl

    item = pl.element().struct
    times = [item.field(name).dt.cast_time_unit("ns").cast(pl.Int64) for name in ("start_time", "end_time")]
    frame = intervals.to_frame()
    return frame.select(pl.col(intervals.name).list.eval(item.with_fields(*times)))[intervals.name]


def _take(rows: pl.DataFrame, opened: dict[Stream, _Open]) -> None:
    for stream, core, row in _windows(rows):
        state = opened[stream]
        state.cores.append(core)
        state.found += _found(stream, core, row)


def _found(stream: Stream, core: tuple[int, int], row: Mapping[str, Any]) -> list[Found]:
    unit = "time" if stream.timed else "sample"
    return [
        Found(
            channel=interval["channel"] or "",
            start=interval[f"start_{unit}"],
            stop=interval[f"end_{unit}"],
            kind=interval["kind"] or "",
            reason=interval["reason"] or "",
            chunk_key=row["chunk_key"],
            core=core,
        )
        for interval in row["intervals"] or ()
        if interval[f"start_{unit}"] is not None and interval[f"end_{unit}"] is not None
    ]


def _beginnings(rows: pl.DataFrame) -> dict[Stream, int]:
    begins: dict[Stream, int] = {}
    for stream, core, row in _windows(rows):
        earliest = min([core[0], *(one.start for one in _found(stream, core, row))])
        begins[stream] = min(earliest, begins.get(stream, earliest))
    return begins


def _suffix_minima(found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return for each piece the earliest beginning of it and all later ones."""
    lows = list(accumulate((begin for _, begin in reversed(found)), min))[::-1]
    return [(piece, low) for (piece, _), low in zip(found, lows, strict=True)]


def _line(stream: Stream, one: Merged) -> dict[str, Any]:
    keys = [member.chunk_key for member in one.members]
    where = (*stream, one.channel, one.start, one.stop, *keys)
    start, stop = one.start, one.stop
    return {
        "group_id": hashlib.sha256(repr(where).encode()).hexdigest()[:32],
        "source": stream.source,
        "variable": stream.variable,
        "channel": one.channel,
        "start_time": start if stream.timed else None,
        "end_time": stop if stream.timed else None,
        "start_sample": None if stream.timed else start,
        "end_sample": None if stream.timed else stop,
        "kinds": sorted({member.kind for member in one.members}),
        "reasons": list(dict.fromkeys(member.reason for member in one.members)),
        "count": len(one.members),
        "source_chunk_keys": list(dict.fromkeys(keys)),
    }


def _frame(lines: list[dict[str, Any]]) -> pl.DataFrame:
    import polars as pl

    texts = pl.List(pl.String)
    schema: dict[str, Any] = {
        **dict.fromkeys(("group_id", "source", "variable", "channel"), pl.String),
        **dict.fromkeys(("start_time", "end_time", "start_sample", "end_sample"), pl.Int64),
        "kinds": texts,
        "reasons": texts,
        "count": pl.Int64,
        "source_chunk_keys": texts,
    }
    lines.sort(key=lambda line: (line["source"], line["variable"], line["channel"]))
    utc = pl.Datetime("ns", "UTC")
    return pl.DataFrame(lines, schema=schema).with_columns(pl.col("start_time", "end_time").cast(utc))
