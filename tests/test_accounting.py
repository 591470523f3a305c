"""The account splits every sample of the archive exactly as a count sample by sample does."""

from __future__ import annotations

import random
import tempfile
from fractions import Fraction
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.account_windows import RATE_TOLERANCE
from s1batch.accounting import Account, take_account
from s1batch.plan_store import PlanStore
from s1batch.records import OUTCOMES, Address, Chunk, InventoryItem, PlanEntry, Refusal, Slice
from tests.plans import MINUTE_NS, minutes, stretch, window, write_plan

REFUSAL = Refusal(outcome="refused", reason="gap_too_large", detail="too much")


def account_of(lines: list[PlanEntry | InventoryItem], rows: pl.LazyFrame | None = None) -> Account:
    with tempfile.TemporaryDirectory() as folder:
        write_plan(Path(folder), lines)
        return take_account(PlanStore(folder), rows)


def naive(items: list[InventoryItem], entries: list[PlanEntry]) -> dict[str, int]:
    """Count sample by sample, with exact halves."""
    found = {"planned": 0, "refused": 0, "missing": 0}
    for item in items:
        assert item.rate_hz is not None
        assert item.start is not None
        half = Fraction(10**9) / Fraction(item.rate_hz) / 2
        for i in range(item.count):
            t = item.start + round(i * 1e9 / item.rate_hz)
            seen = set()
            for entry in entries:
                for address in entry.chunk.inputs:
                    span = address.slices[0]
                    if address.source != item.source:
                        continue
                    rate = address.rate_hz
                    if rate is not None and abs(rate / item.rate_hz - 1) > RATE_TOLERANCE:
                        continue
                    if span.start - half <= t < span.stop - half:
                        seen.add(entry.refusal is None)
            found["planned" if True in seen else "refused" if False in seen else "missing"] += 1
    return found


rates = st.sampled_from([100.0, 3.0, 62.5, 0.1, 1000.0 / 3, 100.0000001])
sources = st.sampled_from(["A", "B"])


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[InventoryItem], list[PlanEntry]]:
    origin = draw(st.sampled_from([0, 1_700_000_000_000_000_000, -5_000_000_123]))
    items = [
        stretch(
            origin + draw(st.integers(0, 3 * 10**9)),
            draw(st.integers(0, 40)),
            source=draw(sources),
            rate_hz=draw(rates),
        )
        for _ in range(draw(st.integers(0, 4)))
    ]
    entries = []
    for _ in range(draw(st.integers(0, 8))):
        start = origin + draw(st.integers(-(10**9), 3 * 10**9))
        entries.append(
            window(
                start,
                start + draw(st.integers(0, 3 * 10**9)),
                source=draw(sources),
                rate_hz=draw(st.one_of(st.none(), rates)),
                refusal=draw(st.sampled_from([None, REFUSAL])),
            )
        )
    return items, entries


@settings(max_examples=50, deadline=None)
@given(cases())
def test_the_sweep_agrees_with_counting_sample_by_sample(case: tuple[list[InventoryItem], list[PlanEntry]]) -> None:
    items, entries = case
    account = account_of([*entries, *items])
    expected = naive(items, entries)
    for name, count in expected.items():
        assert sum(getattr(tally, name) for tally in account.tallies) == count, name
    assert sum(tally.archive for tally in account.tallies) == sum(item.count for item in items)
    assert account.balanced == (expected["missing"] == 0)


def test_overlapping_windows_count_each_sample_once() -> None:
    """A window every half minute over ten minutes leaves the archive's number of samples."""
    entries = [window(i * MINUTE_NS // 2, i * MINUTE_NS // 2 + MINUTE_NS) for i in range(19)]
    (tally,) = account_of([*entries, stretch(0, 60_000)]).tallies
    assert (tally.planned, tally.archive, tally.balanced) == (60_000, 60_000, True)


def test_a_sample_in_a_refused_and_an_asked_window_is_planned() -> None:
    entries = [window(0, 2 * MINUTE_NS, refusal=REFUSAL), window(MINUTE_NS, 3 * MINUTE_NS)]
    (tally,) = account_of([*entries, stretch(0, 18_000)]).tallies
    assert (tally.refused, tally.planned, tally.missing) == (6_000, 12_000, 0)


def test_components_offset_by_less_than_a_sample_belong_to_the_same_windows() -> None:
    """A channel that starts 4 ms early on a 10 ms grid is covered by windows on that grid."""
    (tally,) = account_of([*minutes(10), stretch(-4_000_000, 60_000)]).tallies
    assert tally.balanced
    assert tally.planned == 60_000


def test_a_dropped_tail_shows_as_missing() -> None:
    account = account_of([*minutes(10), stretch(0, 60_001)])
    assert account.missing == 1
    assert not account.balanced
    assert any("missing" in line for line in account.lines())


def test_a_window_at_another_rate_does_not_serve_a_stretch() -> None:
    account = account_of([window(0, MINUTE_NS, rate_hz=50.0), stretch(0, 6_000, rate_hz=100.0)])
    assert account.missing == 6_000


def test_jitter_of_the_recorded_rate_is_no_other_rate() -> None:
    items = [stretch(i * MINUTE_NS, 6_000, rate_hz=100.0 + i * 1e-4) for i in range(10)]
    assert account_of([*minutes(10), *items]).balanced


def test_every_status_has_its_column_and_units_stay_apart() -> None:
    other = {"root": "archive", "path": "x", "unit": "samples"}
    items = [
        stretch(0, 6_000),
        InventoryItem(**other, source="BW.RJOB..EHZ", status="duplicate", count=6_000),  # type: ignore[arg-type]
        InventoryItem(**other, source="LOG", status="not_selected", count=7),  # type: ignore[arg-type]
        InventoryItem(root="archive", path="bad", status="unreadable", reason="empty_file", unit="bytes", count=512),
    ]
    account = account_of([*minutes(1), *items])
    assert [(t.source, t.unit, t.archive) for t in account.tallies] == [
        ("", "bytes", 512),
        ("BW.RJOB..EHZ", "samples", 12_000),
        ("LOG", "samples", 7),
    ]
    totals = {tally.unit: tally for tally in account.totals}
    assert totals["samples"].archive == 12_007
    assert (totals["samples"].planned, totals["samples"].duplicate, totals["samples"].not_selected) == (6_000, 6_000, 7)
    assert totals["bytes"].unreadable == 512
    assert account.plain()["balanced"]


def test_rows_tell_planned_samples_apart_by_their_best_outcome() -> None:
    entries = [*minutes(3), window(MINUTE_NS, 3 * MINUTE_NS, part=0)]
    keys = [entry.chunk.key for entry in entries]
    rows = pl.LazyFrame({"chunk_key": keys[:2] + keys[3:], "outcome": ["ok", "failed", "unparsed"]})
    (tally,) = account_of([*entries, stretch(0, 24_000)], rows).tallies
    outcomes = {name: count for name, count in tally.outcomes if count}
    assert outcomes == {"ok": 6_000, "unparsed": 12_000}
    assert tally.missing == 6_000
    assert set(OUTCOMES) < dict(tally.outcomes).keys()


def test_samples_without_a_row_are_unfinished() -> None:
    rows = pl.LazyFrame({"chunk_key": [], "outcome": []}, schema={"chunk_key": pl.String, "outcome": pl.String})
    (tally,) = account_of([*minutes(2), stretch(0, 12_000)], rows).tallies
    assert {name: count for name, count in tally.outcomes if count} == {"unfinished": 12_000}


def text_entry(path: str, start: int | None, stop: int | None, refusal: Refusal | None = None) -> PlanEntry:
    slices = () if start is None or stop is None else (Slice(dim="chars", start=start, stop=stop),)
    return PlanEntry(chunk=Chunk(inputs=(Address(root="p", path=path, slices=slices),)), refusal=refusal, part=0)


def test_characters_are_counted_by_file() -> None:
    """Passages of one paper do not serve another, though neither names a source."""
    items = [
        InventoryItem(root="p", path=path, status="selected", unit="chars", count=100, start=0, stop=100)
        for path in ("a", "b")
    ]
    entries = [text_entry("a", 0, 60), text_entry("a", 50, 100), text_entry("b", 0, 40, REFUSAL)]
    (tally,) = account_of([*entries, *items]).tallies
    assert (tally.planned, tally.refused, tally.missing) == (100, 40, 60)


def test_data_without_a_range_count_as_a_whole() -> None:
    items = [
        InventoryItem(root="p", path=path, status="selected", unit="pixels", count=100) for path in ("a", "b", "c")
    ]
    (tally,) = account_of([text_entry("a", None, None), text_entry("b", None, None, REFUSAL), *items]).tallies
    assert (tally.planned, tally.refused, tally.missing) == (100, 100, 100)


def test_numbers_are_exact_at_large_counts() -> None:
    """A year of 1 kHz, in shuffled pieces, is counted to the last sample."""
    day = 86_400 * 10**9
    origin = 1_600_000_000_000_000_000
    entries = [window(origin + i * day, origin + (i + 1) * day, rate_hz=1000.0) for i in range(366)]
    items = [stretch(origin + i * day, 86_400_000, rate_hz=1000.0) for i in range(366)]
    random.Random(1).shuffle(items)
    (tally,) = account_of([*entries, *items]).tallies
    assert tally.planned == tally.archive == 366 * 86_400_000


@pytest.mark.parametrize("entries", [[], minutes(1)])
def test_an_empty_archive_has_an_empty_account(entries: list[PlanEntry]) -> None:
    account = account_of(list(entries))
    assert account.tallies == ()
    assert account.balanced
