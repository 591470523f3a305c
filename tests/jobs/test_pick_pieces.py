"""Picks that are merged a piece at a time are those that are merged all at once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.jobs.pick_merge import merge_picks
from s1batch.jobs.pick_pieces import merge_pieces
from tests.jobs.test_pick_merge import rows_of

PLACE = st.integers(0, 30).map(float)


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """A window of ten seconds with picks anywhere in it, and a core or none."""
    start = draw(PLACE)
    within = st.none() | st.integers(0, 100).map(lambda tenths: start + tenths / 10)
    core = draw(st.sampled_from([(None, None), (start + 2, start + 8), (start, start + 5), (start + 5, start + 10)]))
    return {
        "start": start,
        "end": start + 10,
        "core": core,
        "p": draw(within),
        "s": draw(within),
        "station": draw(st.sampled_from(["A", "A", "A", "B"])),
        "outcome": draw(st.sampled_from(["ok", "ok", "ok", "failed"])),
    }


def in_pieces(rows: pl.DataFrame, ends: list[int], tolerance_s: float) -> pl.DataFrame:
    bounds = [0, *sorted(min(end, rows.height) for end in ends), rows.height]
    pieces = [rows[begin:end] for begin, end in pairwise(bounds)]
    return pl.concat(merge_pieces(pieces, tolerance_s))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(windows(), max_size=16),
    st.lists(st.integers(0, 16), max_size=5),
    st.sampled_from([0.0, 0.3, 1.0, 4.0]),
    st.booleans(),
)
def test_the_pieces_and_their_order_make_no_difference(
    windows: list[dict[str, Any]], ends: list[int], tolerance_s: float, in_order: bool
) -> None:
    if in_order:
        windows = sorted(windows, key=lambda window: (window["station"], window["start"]))
    rows = rows_of(*windows)
    order = ["network", "station", "location", "band", "phase", "time"]
    found = in_pieces(rows, ends, tolerance_s)
    assert found.sort(order).equals(merge_picks(rows, tolerance_s).sort(order))


def test_what_is_final_does_not_wait_for_the_last_piece() -> None:
    rows = rows_of(
        *({"p": 60.0 * number + 5, "start": 60.0 * number, "end": 60.0 * number + 60} for number in range(9))
    )
    sizes = [piece.height for piece in merge_pieces([rows[number : number + 3] for number in (0, 3, 6)], 0.5)]
    assert sizes == [3, 3, 3]


def test_a_chain_that_spans_every_piece_is_one_merged_pick() -> None:
    rows = rows_of(*({"p": number / 4, "start": number / 4, "end": number / 4 + 60} for number in range(12)))
    merged = in_pieces(rows, [3, 6, 9], 0.5)
    assert merged["count"].to_list() == [12]
    assert merged.equals(merge_picks(rows, 0.5))
