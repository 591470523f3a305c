"""Anomalies of overlapping windows are merged, in any division into pieces."""

from __future__ import annotations

from itertools import pairwise

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.jobs.science import SECOND, as_rows, make_job

JOB = make_job("sensor-anomaly", merge_gap_s=1.0)


def row(number, start, stop, *intervals, source="a", core=None, timed=True, **more):
    """A window from start to stop s (or samples), with (start, stop[, channel[, kind]]) intervals."""
    unit = SECOND if timed else 1
    found = []
    for first, last, *rest in intervals:
        found.append(
            {
                "start_index": 0,
                "end_index": 0,
                "channel": rest[0] if rest else None,
                "kind": rest[1] if len(rest) > 1 else "spike",
                "reason": f"r{number}",
                "start_time": first * unit if timed else None,
                "end_time": last * unit if timed else None,
                "start_sample": 0 if timed else first,
                "end_sample": 0 if timed else last,
            }
        )
    return {
        "chunk_key": f"k{number:03d}",
        "source": source,
        "start": start * unit if timed else None,
        "end": stop * unit if timed else None,
        "span_start": None if timed else start,
        "span_end": None if timed else stop,
        "core_start_ns": None if core is None else core[0] * unit,
        "core_stop_ns": None if core is None else core[1] * unit,
        "anomalous": bool(found),
        "intervals": found,
        **more,
    }


def merged(*rows):
    frame = JOB.merge(as_rows(JOB, rows))
    unit = pl.col("start_time").cast(pl.Int64) // SECOND, pl.col("end_time").cast(pl.Int64) // SECOND
    return frame.with_columns(*unit)


def spans(frame):
    return frame.select("source", "channel", "start_time", "end_time", "count").rows()


def test_intervals_that_overlap_or_nearly_touch_are_one():
    found = merged(row(0, 0, 10, (2, 4), (8, 10, None, "step")), row(1, 5, 15, (9, 12, None, "drift"), (13, 14)))
    assert spans(found) == [("a", "", 2, 4, 1), ("a", "", 8, 14, 3)]
    assert found["kinds"].to_list() == [["spike"], ["drift", "spike", "step"]]
    assert found["source_chunk_keys"].to_list() == [["k000"], ["k000", "k001"]]
    assert found["reasons"].to_list() == [["r0"], ["r0", "r1"]]


def test_channels_and_streams_stay_apart():
    found = merged(row(0, 0, 10, (2, 4, "x"), (2, 4, "y")), row(1, 0, 10, (2, 4, "x"), source="b"))
    assert spans(found) == [("a", "x", 2, 4, 1), ("a", "y", 2, 4, 1), ("b", "x", 2, 4, 1)]


def test_an_interval_in_the_halo_gives_way_to_the_window_that_saw_it_whole():
    other = row(1, 5, 15, core=(7, 13))
    assert spans(merged(row(0, 0, 10, (8, 9), core=(0, 7)), other)) == []
    assert spans(merged(row(0, 0, 10, (6, 9), core=(0, 7)), other)) == [("a", "", 6, 9, 1)]


def test_an_unanswered_window_covers_nothing():
    rows = [row(0, 0, 10, (8, 9), core=(0, 7)), row(1, 5, 15, core=(7, 13))]
    rows = [{**rows[0], "outcome": "ok"}, {**rows[1], "outcome": "failed"}]
    assert spans(merged(*rows)) == [("a", "", 8, 9, 1)]


def test_streams_without_times_are_merged_in_samples():
    frame = JOB.merge(as_rows(JOB, [row(0, 0, 10, (2, 4), timed=False), row(1, 5, 15, (5, 6), timed=False)]))
    assert frame.select("start_sample", "end_sample", "start_time", "count").rows() == [(2, 6, None, 2)]


def test_nothing_is_a_table_without_lines():
    assert merged(row(0, 0, 10)).height == 0


INTERVALS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6), st.sampled_from([None, "x"])), max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30), INTERVALS), min_size=1, max_size=8),
    st.data(),
)
def test_pieces_make_no_difference(lines, data):
    """Every interval of the whole comes out of the pieces once, whatever their order and size."""
    rows = [
        row(
            number,
            start,
            start + 14,
            *((start + first, start + first + length, channel) for first, length, channel in found),
            source=source,
            core=(start + 3, start + 11),
        )
        for number, (source, start, found) in enumerate(lines)
    ]
    frame = as_rows(JOB, rows)
    whole = JOB.merge(frame).sort("group_id")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    edges = [0, *cuts, len(rows)]
    pieces = [frame[first:last] for first, last in pairwise(edges)]
    assert pl.concat(list(JOB.merge_pieces(pieces))).sort("group_id").equals(whole)
    keys = {key for line in whole["source_chunk_keys"] for key in line}
    assert keys <= set(frame["chunk_key"])
