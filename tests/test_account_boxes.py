"""Pixels are counted by the boxes that were planned of their page, each once, by the best outcome."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import s1batch.accounting
from s1batch.accounting import Account, take_account
from s1batch.outcome_ranks import BEST_FIRST, UNFINISHED
from s1batch.plan_store import PlanStore
from s1batch.records import OUTCOMES, Address, Chunk, InventoryItem, PlanEntry, Refusal, Slice
from tests.plans import MINUTE_NS, stretch, window, write_plan

REFUSAL = Refusal(outcome="refused", reason="too_many_pixels", detail="too large")
SIDE = 16


def page(name: str, width: int = SIDE, height: int = SIDE, source: str = "", **changes: str) -> InventoryItem:
    about = {"status": "selected", "unit": "pixels", **changes}
    return InventoryItem(root="archive", path=name, source=source, count=width * height, **about)  # type: ignore[arg-type]


def tile(
    name: str,
    box: tuple[int, int, int, int],
    *,
    source: str = "",
    refusal: Refusal | None = None,
    overview: bool = False,
    mark: int = 0,
) -> PlanEntry:
    """A chunk of one box (top, bottom, left, right); `mark` tells equal boxes apart."""
    top, bottom, left, right = box
    slices = [Slice(dim="y", start=top, stop=bottom), Slice(dim="x", start=left, stop=right)]
    if overview:
        slices.append(Slice(dim="overview", start=0, stop=1))
    beside = (Address(root="archive", path=f"note {mark}"),) if mark else ()
    address = Address(root="archive", path=name, source=source, slices=tuple(slices))
    return PlanEntry(chunk=Chunk(inputs=(address, *beside)), refusal=refusal, part=0)


def account_of(lines: list[PlanEntry | InventoryItem], rows: pl.LazyFrame | None = None) -> Account:
    with tempfile.TemporaryDirectory() as folder:
        write_plan(Path(folder), lines)
        return take_account(PlanStore(folder), rows)


coordinates = st.tuples(st.integers(0, SIDE), st.integers(0, SIDE)).map(lambda pair: tuple(sorted(pair)))
cases = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from(["", "page 1"]),
        coordinates,
        coordinates,
        st.sampled_from([*OUTCOMES, None, REFUSAL]),
    ),
    max_size=10,
)


@settings(max_examples=25, deadline=None)
@given(cases, st.sampled_from([1_000_000, 3]))
def test_pixels_are_counted_by_their_best_outcome_as_in_a_mask(cases, at_once: int) -> None:
    """Of any boxes with any outcomes; also where the pages are gone through in shares."""
    entries, keys, outcomes = [], [], []
    best = {(name, source): np.full((SIDE, SIDE), len(BEST_FIRST)) for name in "ab" for source in ("", "page 1")}
    for number, (name, source, (top, bottom), (left, right), end) in enumerate(cases, start=1):
        refusal = end if isinstance(end, Refusal) else None
        entry = tile(name, (top, bottom, left, right), source=source, refusal=refusal, mark=number)
        entries.append(entry)
        if refusal is None and end is not None:
            keys.append(entry.chunk.key)
            outcomes.append(end)
        rank = len(BEST_FIRST) - 1 if refusal else BEST_FIRST.index(end or UNFINISHED)
        part = best[name, source][top:bottom, left:right]
        np.minimum(part, rank, out=part)
    items = [page(name, source=source) for name, source in best]
    rows = pl.LazyFrame({"chunk_key": keys, "outcome": outcomes}, schema={"chunk_key": pl.String, "outcome": pl.String})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s1batch.accounting, "BOXES_AT_ONCE", at_once)
        account = account_of([*entries, *items], rows)
    ranks = np.concatenate([mask.ravel() for mask in best.values()])
    total = next(tally for tally in account.totals if tally.unit == "pixels")
    assert total.archive == 4 * SIDE * SIDE
    assert dict(total.outcomes) == {name: int((ranks == rank).sum()) for rank, name in enumerate(BEST_FIRST[:-1])}
    assert total.refused == (ranks == len(BEST_FIRST) - 1).sum()
    assert total.missing == (ranks == len(BEST_FIRST)).sum()


def test_an_overview_answers_for_no_pixel() -> None:
    """Where one tile has no row, its pixels are unfinished, though the overview shows them."""
    tiles = [tile("a", (0, SIDE, 0, 10)), tile("a", (0, SIDE, 8, SIDE))]
    overview = tile("a", (0, SIDE, 0, SIDE), overview=True)
    rows = pl.LazyFrame({"chunk_key": [tiles[0].chunk.key, overview.chunk.key], "outcome": ["ok", "ok"]})
    (tally,) = account_of([overview, *tiles, page("a")], rows).tallies
    assert {name: count for name, count in tally.outcomes if count} == {"ok": SIDE * 10, "unfinished": SIDE * 6}
    assert tally.balanced


def test_a_strip_that_no_tile_shows_is_missing() -> None:
    account = account_of([tile("a", (0, SIDE, 0, SIDE - 1)), page("a")])
    assert account.missing == SIDE
    assert not account.balanced


def test_a_box_beyond_its_page_does_not_balance() -> None:
    assert not account_of([tile("a", (0, SIDE, 0, SIDE + 1)), page("a")]).balanced


def test_pixels_series_and_pages_without_boxes_stay_apart() -> None:
    """A plan may hold them all; pages that are not selected keep their status."""
    lines: list[PlanEntry | InventoryItem] = [
        tile("a", (0, SIDE, 0, SIDE)),
        page("a"),
        page("a", source="page 1", status="not_selected"),
        page("b", status="duplicate"),
        PlanEntry(chunk=Chunk(inputs=(Address(root="archive", path="whole"),)), part=0),
        page("whole"),
        window(0, MINUTE_NS),
        stretch(0, 6_000),
    ]
    totals = {tally.unit: tally for tally in account_of(lines).totals}
    assert totals["samples"].planned == totals["samples"].archive == 6_000
    pixels, each = totals["pixels"], SIDE * SIDE
    assert (pixels.planned, pixels.not_selected, pixels.duplicate) == (2 * each, each, each)
    assert pixels.balanced
