"""Asks whether a window of measurements holds an anomaly, and places what the model names in the archive.

The answer is `{"anomalous": bool, "intervals": [{start_index, end_index, channel, kind, reason}]}`. Both indices are
samples of the interval, from 0 at the start of the window at the rate that was sent; times and samples of the archive
are half-open: an interval ends at the sample behind its last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from s1batch.columns import Column
from s1batch.jobs.answers import interpret_json
from s1batch.jobs.question import Question
from s1batch.jobs.question_job import QuestionJob
from s1batch.jobs.question_spec import closed_object
from s1batch.jobs.sensor_anomaly.merge import MERGE_COLUMNS, merge_anomaly_pieces
from s1batch.jobs.sent_series import SentSeries, series_names, the_series
from s1batch.records import Answer, Record, Request, Response

if TYPE_CHECKING:
    import polars as pl

    from s1batch.jobs.base import Settings

TAKEN = (
    *("start_index", "end_index", "channel", "kind", "reason"),
    *("start_time", "end_time", "start_sample", "end_sample"),
)
"""The fields of an interval."""


@dataclass(frozen=True, kw_only=True)
class SensorAnomalyJob(QuestionJob):
    """Asks for anomalous intervals in windows of measurements.

    Attributes:
        question: Templates, schema and how the answer is asked for.
        kinds: Kinds of anomalies.
        max_intervals: Most intervals of one answer.
        fields: Further fields of an interval, with their JSON Schemas.
        merge_gap_s: Intervals of one channel this close are merged.
    """

    question: Question
    kinds: tuple[str, ...]
    max_intervals: int
    fields: Mapping[str, Any] = field(default_factory=dict)
    merge_gap_s: float = 0.0

    @property
    def columns(self) -> tuple[Column, ...]:
        """`anomalous`, and `intervals` with their places in the archive."""
        import pyarrow as pa

        answered = {column.name: column.type for column in self.schema.columns}
        time = pa.timestamp("ns", tz="UTC")
        placed = [("start_time", time), ("end_time", time), ("start_sample", pa.int64()), ("end_sample", pa.int64())]
        interval = pa.struct([*answered["intervals"].value_type, *(pa.field(name, kind) for name, kind in placed)])
        doc = (
            "anomalous intervals: first and last sample as answered (start_index, end_index), channel (null: all), "
            "kind, reason; [start_time, end_time) in UTC; [start_sample, end_sample) in samples of the archive"
        )
        return (
            Column(name="anomalous", type=pa.bool_(), doc="whether the window holds an anomaly"),
            Column(name="intervals", type=pa.list_(interval), doc=doc),
        )

    def prepare(self, record: Record, settings: Settings) -> Request:
        """Build the request; its schema is bounded by the window's own steps and channels.

        Raises:
            SourceError: The record holds no series, or several, or a template fails on it.
        """
        series = the_series(record, "sensor-anomaly")
        steps, channels = series.values_TC.shape[0], SentSeries.of(record).channels
        schema = anomaly_schema(self.kinds, self.max_intervals, self.fields, steps, channels)
        more = series_names(record, series, self.question.names)
        return self.question.request(record, settings, schema=schema, more=more)

    @property
    def checks_values(self) -> bool:
        """True: a row of a table says in its values how long its series is."""
        return True

    def interpret(self, record: Record, response: Response) -> Answer:
        """Turn a response into intervals with their places.

        An index outside the window makes the answer `unparsed`, `out_of_range`, and so does an interval that lies in
        the padding: such a model did not see what it answers about. One that reaches into the padding ends with the
        data. Intervals beside `"anomalous": false` are dropped unseen, because `anomalous` is what was asked first.
        """
        answer = interpret_json(response, self.schema)
        if answer.outcome != "ok":
            return answer
        window = SentSeries.of(record)
        notes = [answer.detail] if answer.detail else []
        said = answer.fields["intervals"]
        if said and not answer.fields["anomalous"]:
            notes.append(f"{len(said)} intervals dropped: anomalous is false")
            said = []
        intervals = []
        for number, interval in enumerate(said):
            wrong = _misplaced(window, interval)
            if wrong is not None:
                return Answer(outcome="unparsed", reason="out_of_range", detail=f"interval {number}: {wrong}")
            intervals.append(_placed(window, interval))
        fields = {"anomalous": answer.fields["anomalous"], "intervals": intervals}
        return Answer(outcome="ok", detail="; ".join(notes), fields=fields)

    def repair(self, request: Request, response: Response, answer: Answer) -> Request | None:
        """Return the question that asks for an answer that fits.

        None for an interval in the padding: a model that is pressed would name another one just to please.
        """
        if answer.reason == "out_of_range" and _IN_PADDING in answer.detail:
            return None
        return self.question.repair(request, response, answer)

    def places(self, fields: Mapping[str, Any]) -> tuple[tuple[int, int], ...] | None:
        """Return the intervals; everywhere when there is an anomaly without one."""
        if not fields.get("anomalous"):
            return ()
        found = []
        for interval in fields.get("intervals") or ():
            unit = "sample" if interval["start_time"] is None else "time"
            found.append((int(interval[f"start_{unit}"]), int(interval[f"end_{unit}"])))
        return tuple(found) or None

    @property
    def merge_columns(self) -> frozenset[str]:
        """What says where intervals are, and how their windows lie."""
        return MERGE_COLUMNS

    def merge(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return one line for each anomalous interval of a stream's channel, merged over overlapping windows."""
        import polars as pl

        return pl.concat(list(merge_anomaly_pieces([rows], self.merge_gap_s)))

    def merge_pieces(self, pieces: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Yield the same for rows that come in pieces, in memory that does not grow with the archive."""
        return merge_anomaly_pieces(pieces, self.merge_gap_s)


def anomaly_schema(
    kinds: Sequence[str],
    max_intervals: int,
    fields: Mapping[str, Any],
    steps: int | None = None,
    channels: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the schema of the answer; with steps and channels, one in which all intervals lie in the window."""
    index: dict[str, Any] = {"type": "integer", "minimum": 0}
    if steps is not None:
        index["maximum"] = max(steps - 1, 0)
    names = list(dict.fromkeys(name for name in channels if name))
    channel: dict[str, Any] = {"type": ["string", "null"]}
    if names:
        channel = {"enum": [*names, None]}
    interval = {
        "start_index": {**index, "description": "first sample"},
        "end_index": {**index, "description": "last sample"},
        "channel": channel,
        "kind": {"type": "string", "enum": list(kinds)},
        "reason": {"type": "string", "maxLength": 300},
        **fields,
    }
    return closed_object(
        {
            "anomalous": {"type": "boolean"},
            "intervals": {"type": "array", "maxItems": max_intervals, "items": closed_object(interval)},
        }
    )


_IN_PADDING = "lies in the padding"


def _misplaced(window: SentSeries, interval: Mapping[str, Any]) -> str | None:
    """Return why an interval does not lie in the window; None when it does."""
    start, end = interval["start_index"], interval["end_index"]
    if end < start:
        return f"end_index {end} lies before start_index {start}"
    if window.steps is not None and end >= window.steps:
        return f"end_index {end} lies outside: the window has samples 0 to {window.steps - 1}"
    if window.data_steps is not None and start >= window.data_steps:
        return f"start_index {start} {_IN_PADDING}: the window has data at 0 to {window.data_steps - 1}"
    if interval["channel"] is not None and window.channels and interval["channel"] not in window.channels:
        return f"channel {interval['channel'][:80]!r} is none of {', '.join(window.channels)[:200]}"
    return None


def _placed(window: SentSeries, interval: Mapping[str, Any]) -> dict[str, Any]:
    start, stop = interval["start_index"], interval["end_index"] + 1
    if window.data_steps is not None:
        stop = min(stop, window.data_steps)
    return {
        **interval,
        "start_time": window.time_ns(start),
        "end_time": window.time_ns(stop),
        "start_sample": window.sample(start),
        "end_sample": window.sample(stop),
    }
