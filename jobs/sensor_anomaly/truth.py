"""The windows of a run and the true anomalies in them, on the axis of each stream.

A line of truth says in which stream an anomaly is (`source`, or `stream`; not needed where there is one), where it
begins and where it ends: as times (`start`, `end`, half-open; an instant is one sample), or as samples (`start_index`,
`end_index`, the last one inside). Where a stream has times, samples count from its first window at its recorded rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from s1batch.errors import UsageError
from s1batch.jobs.scoring.intervals import Interval, united
from s1batch.jobs.scoring.truth_lines import TruthLines


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamWindows:
    """The windows of one stream, sorted by their start.

    Attributes:
        spans: Where each lies.
        answered: Whether each has an answer.
        rows: The number of each one's row.
    """

    spans: tuple[Interval, ...]
    answered: tuple[bool, ...]
    rows: tuple[int, ...]


def windows_of(rows: pl.DataFrame) -> dict[str, StreamWindows]:
    """Return the windows of each stream."""
    starts, stops = axis(rows, "start", "span_start"), axis(rows, "end", "span_end")
    answered = (rows["outcome"] == "ok").to_list()
    found: dict[str, list[tuple[int, int, int]]] = {}
    for number, (name, start, stop) in enumerate(zip(stream_names(rows), starts, stops, strict=True)):
        if start is not None and stop is not None:
            found.setdefault(name, []).append((start, stop, number))
    return {
        name: StreamWindows(
            spans=tuple((start, stop) for start, stop, _ in sorted(windows)),
            answered=tuple(answered[number] for _, _, number in sorted(windows)),
            rows=tuple(number for _, _, number in sorted(windows)),
        )
        for name, windows in sorted(found.items())
    }


def stream_names(rows: pl.DataFrame) -> list[str]:
    """Return the stream of each row: its source, and the variable where the source does not end with it."""
    variables = rows["variable"].to_list() if "variable" in rows.columns else [None] * rows.height
    return [
        source if not variable or source.endswith(variable) else f"{source} {variable}"
        for source, variable in zip(rows["source"].to_list(), variables, strict=True)
    ]


def stream_aliases(rows: pl.DataFrame) -> dict[str, set[str]]:
    """Return what a table of truth may call each stream: its name, its source, its variable."""
    aliases: dict[str, set[str]] = {}
    named = [name for name in ("source", "variable") if name in rows.columns]
    for stream, others in zip(stream_names(rows), rows.select(named).iter_rows(), strict=True):
        aliases.setdefault(stream, {stream}).update(filter(None, others))
    return aliases


def axis(rows: pl.DataFrame, time: str, span: str) -> list[int | None]:
    """Return a place of each row: a time in ns, else an index."""
    found = [
        rows[name].dt.cast_time_unit("ns").cast(pl.Int64) if name == time else rows[name]
        for name in (time, span)
        if name in rows.columns
    ]
    return pl.DataFrame(found).select(pl.coalesce(pl.all())).to_series().to_list()


def true_events(
    truth: TruthLines, rows: pl.DataFrame, streams: dict[str, StreamWindows]
) -> tuple[dict[str, list[Interval]], int]:
    """Return the true anomalies of each stream, and how many lines are of others."""
    source = truth.find("source", "stream", "series", "variable")
    if source is None and len(streams) > 1:
        truth.need("which stream an anomaly is in", "source", "stream", "series", "variable")
    start = truth.need("where an anomaly begins", "start", "start_time", "start_index", "start_sample")
    stop = truth.find("end", "end_time", "stop", "end_index", "end_sample")
    counts_samples = start in ("start_index", "start_sample")
    timed = "start" in rows.columns and rows["start"].is_not_null().any()
    rates, aliases = _rates(rows), stream_aliases(rows)
    events: dict[str, list[Interval]] = {}
    elsewhere = 0
    for number in range(len(truth.lines)):
        name = truth.value(number, source) if source is not None else next(iter(streams))
        names = [stream for stream in streams if name in aliases[stream]]
        elsewhere += not names
        for stream in names:
            rate_hz = rates.get(stream)
            if timed and not counts_samples:
                first = truth.time_ns(number, start)
                last = truth.time_ns(number, stop)
                step = round(1e9 / rate_hz) if rate_hz else 1
                # An instant is one sample.
                end = None if first is None else max(first + step, last if last is not None else 0)
            else:
                first, end = _samples(truth, number, start, stop)
                if timed and first is not None and end is not None:
                    first, end = _sample_times(truth, number, streams[stream].spans[0][0], rate_hz, first, end)
            if first is not None and end is not None:
                events.setdefault(stream, []).append((first, end))
    return {name: united(found) for name, found in events.items()}, elsewhere


def _samples(truth: TruthLines, number: int, start: str, stop: str | None) -> tuple[int | None, int | None]:
    """Return an interval of samples, half-open; the last sample is inside."""
    first, last = truth.number(number, start), truth.number(number, stop)
    if first is None:
        return None, None
    return int(first), int(first if last is None else last) + 1


def _sample_times(
    truth: TruthLines, number: int, begin_ns: int, rate_hz: float | None, first: int, stop: int
) -> tuple[int, int]:
    """Return the times of samples that count from the first window of a stream, at its recorded rate."""
    if not rate_hz:
        raise UsageError(f"{truth.where(number)}: samples need the rate of the stream, which the results do not have")
    return begin_ns + round(first * 1e9 / rate_hz), begin_ns + round(stop * 1e9 / rate_hz)


def _rates(rows: pl.DataFrame) -> dict[str, float]:
    if "rate_hz" not in rows.columns:
        return {}
    pairs = zip(stream_names(rows), rows["rate_hz"].to_list(), strict=True)
    return {name: float(rate) for name, rate in pairs if rate}
