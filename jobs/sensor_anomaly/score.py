"""How good anomalies are: point by point, event by event, window by window, beside trivial baselines.

A stream's windows, the anomalies said and the true ones lie on one axis: nanoseconds, or samples where there are no
times. Anomalies said are merged over overlapping windows; true ones that overlap are one. Channels are not
compared.

    points    precision = said and true / said, recall = said and true / true; in extent, not in numbers of events.
              There is no point adjustment: an event that is hit once is not counted as found as a whole.
    events    any overlap: an event said is right when it overlaps a true one, a true one is found when it overlaps one
              said. IoU >= 0.5: pairs of one said and one true event whose intersection over union is so large, each in
              one pair at most.
    windows   those that were said to hold an anomaly, and those that overlap a true one.

F1 = 2 P R / (P + R). Truth counts where it lies in an answered window; "recall over all" counts all windows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from s1batch.errors import UsageError
from s1batch.jobs.scoring.answer_scores import Answers, Measured, ScoreLine, ScoreTable
from s1batch.jobs.scoring.bootstrap import Estimate, Resampling
from s1batch.jobs.scoring.intervals import Interval, common, extent, iou_matches, overlaps, united
from s1batch.jobs.scoring.shares import by_unit, precision_recall
from s1batch.jobs.sensor_anomaly.merge import MERGE_COLUMNS
from s1batch.jobs.sensor_anomaly.robust_z import LIMIT, flagged_runs
from s1batch.jobs.sensor_anomaly.truth import StreamWindows, axis, stream_names, true_events, windows_of
from s1batch.jobs.sent_series import SentSeries
from s1batch.jobs.template import series_of

BASELINES = ("all", "none", "robust_z")
LEAST_IOU = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one way of finding anomalies says.

    Attributes:
        name: What tables call it.
        windows: For each row, whether its window was said to hold an anomaly.
        events: The anomalies of each stream.
    """

    name: str
    windows: Sequence[bool]
    events: dict[str, list[Interval]]


@dataclass(frozen=True, slots=True)
class AnomalyMetrics:
    """The metrics of `sensor-anomaly`."""

    needs_truth: bool = True
    unit: str = "streams"
    valid_baselines: tuple[str, ...] = BASELINES

    @property
    def columns(self) -> frozenset[str]:
        """What merging looks at, the windows' own answers and their recorded rate."""
        return MERGE_COLUMNS | {"anomalous", "rate_hz"}

    def labels(self, rows: pl.DataFrame) -> list[str]:
        """Return the stream of each row."""
        return stream_names(rows)

    def measure(self, answers: Answers) -> Measured:
        """Return the scores of the answers, and of the baselines on the same windows."""
        streams = windows_of(answers.rows)
        if not streams:
            raise UsageError("the results have no windows that could hold an anomaly")
        if answers.truth is None:
            raise UsageError("anomalies are scored against truth")
        truth, elsewhere = true_events(answers.truth, answers.rows, streams)
        notes = [f"truth: {elsewhere:,} lines are of streams that the results do not have"] if elsewhere else []
        names = BASELINES if answers.baselines is None else answers.baselines
        said = [_own(answers, streams)]
        if "all" in names:
            said.append(_everything(answers.rows.height, streams))
        if "none" in names:
            said.append(Said(name="flag none", windows=[False] * answers.rows.height, events={}))
        if "robust_z" in names:
            found, unread = _robust_z(answers, streams)
            if unread:
                notes.append(f"robust z-score: {unread:,} answered windows cannot be read any more; none flagged there")
            said.append(found)
        judges = [Judged.of(answers.resampling, streams, truth, one) for one in said]
        tables = (
            ScoreTable(title="points: extent of what is anomalous", of="true events", lines=_lines(judges, "points")),
            ScoreTable(title="events: any overlap", of="true events", lines=_lines(judges, "any")),
            ScoreTable(title=f"events: IoU >= {LEAST_IOU:g}", of="true events", lines=_lines(judges, "iou")),
            ScoreTable(title="windows that hold an anomaly", of="answered windows", lines=_lines(judges, "windows")),
        )
        return Measured(tables=tables, notes=tuple(notes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The scores of one way of finding anomalies, by table."""

    name: str
    tables: dict[str, tuple[int, dict[str, int], dict[str, Estimate]]]

    @classmethod
    def of(
        cls,
        resampling: Resampling,
        streams: dict[str, StreamWindows],
        truth: dict[str, list[Interval]],
        said: Said,
    ) -> Judged:
        """Compare what was said with the truth."""
        units: dict[str, list[int]] = {name: [] for name in ("said", "true", "all")}
        amounts: dict[str, list[float]] = {
            name: []
            for name in (
                *("said", "said_right", "said_any", "said_iou"),
                *("true", "true_right", "true_any", "true_iou"),
                *("all", "all_right", "all_any", "all_iou"),
            )
        }
        for name, windows in streams.items():
            answered = united(
                span for span, is_answered in zip(windows.spans, windows.answered, strict=True) if is_answered
            )
            mine = _clipped(said.events.get(name, []), answered)
            everywhere = _clipped(truth.get(name, []), united(windows.spans))
            theirs = _clipped(truth.get(name, []), answered)
            hit = common(mine, theirs)
            pairs = iou_matches(mine, theirs, LEAST_IOU)
            paired = {number for number, _ in pairs}, {place for _, place in pairs}
            for kind, events, others, matched in (
                ("said", mine, theirs, paired[0]),
                ("true", theirs, mine, paired[1]),
            ):
                for number, event in enumerate(events):
                    units[kind].append(_unit(resampling, windows, event))
                    amounts[kind].append(extent([event]))
                    amounts[f"{kind}_right"].append(extent(common([event], hit)))
                    amounts[f"{kind}_any"].append(overlaps(event, others))
                    amounts[f"{kind}_iou"].append(number in matched)
            matched_all = {place for _, place in iou_matches(mine, everywhere, LEAST_IOU)}
            for number, event in enumerate(everywhere):
                units["all"].append(_unit(resampling, windows, event))
                amounts["all"].append(extent([event]))
                amounts["all_right"].append(extent(common([event], mine)))
                amounts["all_any"].append(overlaps(event, mine))
                amounts["all_iou"].append(number in matched_all)

        def pair(kind: str, right: str, whole: str | None) -> tuple[np.ndarray, np.ndarray]:
            sums = by_unit(resampling, units[kind], amounts[f"{kind}_{right}"])
            return sums, by_unit(resampling, units[kind], None if whole is None else amounts[whole])

        n_true, n_said = len(units["true"]), len(units["said"])
        tables: dict[str, tuple[int, dict[str, int], dict[str, Estimate]]] = {}
        for table in ("points", "any", "iou"):
            right = "right" if table == "points" else table
            found = [pair(kind, right, kind if table == "points" else None) for kind in ("said", "true", "all")]
            estimates = precision_recall(resampling, found[0], found[1], found[2])
            tables[table] = (n_true, {"said": n_said}, estimates)
        tables["windows"] = _window_scores(resampling, streams, truth, said)
        return cls(name=said.name, tables=tables)


def _own(answers: Answers, streams: dict[str, StreamWindows]) -> Said:
    merged = answers.job.merge(answers.rows)
    events: dict[str, list[Interval]] = {}
    if merged is not None:
        starts, stops = axis(merged, "start_time", "start_sample"), axis(merged, "end_time", "end_sample")
        for name, start, stop in zip(stream_names(merged), starts, stops, strict=True):
            if start is not None and stop is not None:
                events.setdefault(name, []).append((start, stop))
    said = answers.rows["anomalous"].fill_null(False).to_list()
    return Said(name=answers.name, windows=said, events={name: united(found) for name, found in events.items()})


def _everything(height: int, streams: dict[str, StreamWindows]) -> Said:
    return Said(
        name="flag all",
        windows=[True] * height,
        events={name: united(windows.spans) for name, windows in streams.items()},
    )


def _robust_z(answers: Answers, streams: dict[str, StreamWindows]) -> tuple[Said, int]:
    """Return what the robust z-score flags in the answered windows, and how many of them cannot be read."""
    place = {
        answers.rows["chunk_key"][row]: (name, row)
        for name, windows in streams.items()
        for row, is_answered in zip(windows.rows, windows.answered, strict=True)
        if is_answered
    }
    answers.say(f"reading {len(place):,} windows again for robust_z (--baseline none leaves this out)")
    flags = [False] * answers.rows.height
    events: dict[str, list[Interval]] = {}
    unread = set(place)
    for record in answers.read_again(list(place)):
        series = series_of(record)
        if len(series) != 1:
            continue
        unread.discard(record.chunk.key)
        name, row = place[record.chunk.key]
        window = SentSeries.of(record)
        for start, stop in flagged_runs(series[0].values_TC[: window.data_steps]):
            events.setdefault(name, []).append((window.place(start), window.place(stop)))
            flags[row] = True
    found = {name: united(spans) for name, spans in events.items()}
    return Said(name=f"robust z > {LIMIT:g}", windows=flags, events=found), len(unread)


def _clipped(events: Sequence[Interval], spans: Sequence[Interval]) -> list[Interval]:
    """Return events as far as they lie in spans; an event that a gap between spans parts stays one event."""
    found = []
    for event in events:
        pieces = common([event], spans)
        if pieces:
            found.append((pieces[0][0], pieces[-1][1]))
    return found


def _unit(resampling: Resampling, windows: StreamWindows, event: Interval) -> int:
    """Return the unit of an event: that of the window that began last before it."""
    before = bisect_right(windows.spans, event[0], key=lambda span: span[0]) - 1
    return int(resampling.of_window[windows.rows[max(before, 0)]])


def _window_scores(
    resampling: Resampling, streams: dict[str, StreamWindows], truth: dict[str, list[Interval]], said: Said
) -> tuple[int, dict[str, int], dict[str, Estimate]]:
    units: list[int] = []
    table: list[tuple[bool, bool, bool]] = []
    for name, windows in streams.items():
        for span, is_answered, row in zip(windows.spans, windows.answered, windows.rows, strict=True):
            units.append(int(resampling.of_window[row]))
            table.append((is_answered, overlaps(span, truth.get(name, [])), bool(said.windows[row])))
    answered, true, flagged = (np.array(column, bool) for column in zip(*table, strict=True))
    flagged &= answered

    def count(mask: np.ndarray) -> np.ndarray:
        return by_unit(resampling, np.array(units)[mask].tolist())

    hits = count(true & flagged)
    estimates = precision_recall(
        resampling, (hits, count(flagged)), (hits, count(true & answered)), (hits, count(true))
    )
    counts = {"true": int((true & answered).sum()), "said": int(flagged.sum()), "right": int((true & flagged).sum())}
    return int(answered.sum()), counts, estimates


def _lines(judges: Sequence[Judged], table: str) -> tuple[ScoreLine, ...]:
    return tuple(
        ScoreLine(name=one.name, n=one.tables[table][0], counts=one.tables[table][1], estimates=one.tables[table][2])
        for one in judges
    )
