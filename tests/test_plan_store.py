"""A plan comes back from disk exactly as it was planned."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch import plan_store
from s1batch.errors import ConflictError, ResultsError
from s1batch.plan_store import PlanStore, PlanWriter
from s1batch.records import (
    OUTCOMES,
    REASONS,
    Address,
    Chunk,
    InventoryItem,
    InventoryStatus,
    PlanEntry,
    Refusal,
    SeriesShape,
    Slice,
)
from tests.plans import MINUTE_NS, minutes, stretch, window, write_plan

int64s = st.integers(-(2**63) + 1, 2**63 - 1)
texts = st.text(max_size=12)
floats = st.floats(allow_nan=False, allow_infinity=False)
slices = st.builds(Slice, dim=st.sampled_from(["time_ns", "chars", "x"]), start=int64s, stop=int64s)
addresses = st.builds(
    Address,
    source=texts,
    root=texts,
    path=texts,
    slices=st.lists(slices, max_size=3).map(tuple),
    rate_hz=st.none() | floats,
)
entries = st.builds(
    PlanEntry,
    chunk=st.builds(
        Chunk, inputs=st.lists(addresses, max_size=3).map(tuple), core=st.none() | st.tuples(int64s, int64s)
    ),
    label=texts,
    series=st.none()
    | st.builds(SeriesShape, steps=st.integers(0, 2**40), channels=st.integers(0, 1000), rate_hz=floats),
    text_chars=st.integers(0, 2**40),
    images=st.integers(0, 2**31 - 1),
    nbytes=st.integers(0, 2**60),
    gap_frac=st.floats(0, 1),
    refusal=st.none()
    | st.builds(Refusal, outcome=st.sampled_from(OUTCOMES), reason=st.sampled_from(REASONS), detail=texts),
    prompt_tokens=st.integers(0, 2**40),
    part=st.just(0),
)
items = st.builds(
    InventoryItem,
    root=texts,
    path=texts,
    source=texts,
    status=st.sampled_from(get_args(InventoryStatus)),
    reason=texts,
    unit=texts,
    count=st.integers(0, 2**60),
    start=st.none() | int64s,
    stop=st.none() | int64s,
    rate_hz=st.none() | floats,
    size=st.integers(0, 2**60),
    mtime_ns=int64s,
    sha256=texts,
)


@settings(deadline=None, max_examples=40)
@given(st.lists(entries, min_size=1, max_size=5), st.lists(items, max_size=5))
def test_entries_and_items_come_back_unchanged(planned: list[PlanEntry], found: list[InventoryItem]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_plan(Path(folder), [*planned, *found])
        plan = PlanStore(folder)
        assert plan.entries(0) == planned
        assert plan.keys(0) == [entry.chunk.key for entry in planned]
        assert [InventoryItem(**line) for line in plan.inventory().collect().iter_rows(named=True)] == found


def test_every_part_is_read_alone(tmp_path: Path) -> None:
    planned = minutes(25, per_part=4)
    write_plan(tmp_path, planned)
    plan = PlanStore(tmp_path)
    assert (plan.parts(), plan.chunks()) == (7, 25)
    for part in reversed(range(7)):
        assert plan.entries(part) == [entry for entry in planned if entry.part == part]
        assert plan.keys(part) == [entry.chunk.key for entry in planned if entry.part == part]
    for part in (-1, 7):
        with pytest.raises(ResultsError, match=f"has no part {part}; parts are 0 to 6"):
            plan.entries(part)


def test_row_groups_end_where_parts_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small parts share a row group, a huge one is spread over several, and both are read whole."""
    monkeypatch.setattr(plan_store, "GROUP_ROWS", 10)
    monkeypatch.setattr(plan_store, "MAX_GROUP_ROWS", 30)
    sizes = [4, 4, 4, 100, 1, 29, 4]
    planned = [
        window(number * MINUTE_NS + part, (number + 1) * MINUTE_NS, part=part)
        for part, size in enumerate(sizes)
        for number in range(size)
    ]
    write_plan(tmp_path, planned)
    metadata = pq.read_metadata(tmp_path / "plan.parquet")
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [
        12,
        30,
        30,
        30,
        10,
        30,
        4,
    ]
    plan = PlanStore(tmp_path)
    for part in range(len(sizes)):
        assert plan.entries(part) == [entry for entry in planned if entry.part == part]
    assert sum(table.num_rows for table in plan.tables(["part"])) == sum(sizes)


def test_entries_of_many_addresses_make_smaller_row_groups_and_come_back_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_store, "GROUP_ADDRESSES", 12)
    monkeypatch.setattr(plan_store, "BLOCK_ADDRESSES", 5)
    planned = []
    for number in range(12):
        rows = [Slice(dim="rows", start=10 * place, stop=10 * place + 1) for place in range(number % 5)]
        inputs = tuple(Address(root="results", path=f"rows/{row.start % 3}", slices=(row, row)) for row in rows)
        planned.append(PlanEntry(chunk=Chunk.planned(f"{number:024x}", inputs, None), label="", part=number // 3))
    write_plan(tmp_path, planned)
    metadata = pq.read_metadata(tmp_path / "plan.parquet")
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [9, 3]
    plan = PlanStore(tmp_path)
    assert [entry for part in range(4) for entry in plan.entries(part)] == planned


def test_columns_are_readable_with_plain_polars(tmp_path: Path) -> None:
    refusal = Refusal(outcome="refused", reason="gap_too_large", detail="60 % filled")
    text = PlanEntry(
        chunk=Chunk(inputs=(Address(root="p", path="a.txt", slices=(Slice(dim="chars", start=3, stop=9),)),))
    )
    write_plan(tmp_path, [window(0, MINUTE_NS), window(1, 2, refusal=refusal), PlanEntry(chunk=text.chunk, part=0)])
    frame = pl.read_parquet(tmp_path / "plan.parquet")
    assert frame.columns[:7] == ["chunk_key", "part", "label", "start", "end", "span_start", "span_end"]
    assert frame["start"].dtype == pl.Datetime("ns", "UTC")
    assert frame["end"].dt.timestamp("ns").to_list() == [MINUTE_NS, 2, None]
    assert frame["span_start"].to_list() == [None, None, 3]
    assert frame["admission"].to_list() == [None, "refused", None]
    sources = frame.select(pl.col("inputs").list.first().struct.field("source")).to_series()
    assert sources.to_list() == ["BW.RJOB..EHZ", "BW.RJOB..EHZ", ""]
    assert pq.read_metadata(tmp_path / "plan.parquet").metadata[b"n_chunks"] == b"3"


def test_text_that_utf8_does_not_hold_is_escaped(tmp_path: Path) -> None:
    entry = PlanEntry(chunk=minutes(1)[0].chunk, label="bad \udcff name", part=0)
    item = InventoryItem(root="r", path="p", source="\ud800", status="unreadable", unit="bytes", count=1)
    write_plan(tmp_path, [entry, item])
    assert PlanStore(tmp_path).entries(0)[0].label == "bad \\udcff name"
    assert PlanStore(tmp_path).inventory().collect()["source"].to_list() == ["\\ud800"]


def test_an_extension_appends_parts_and_leaves_old_files_alone(tmp_path: Path) -> None:
    write_plan(tmp_path, [*minutes(8), stretch(0, 48_000)])
    before = (tmp_path / "plan.parquet").read_bytes()
    with PlanStore(tmp_path).extend() as writer:
        writer.add(window(8 * MINUTE_NS, 9 * MINUTE_NS, part=2))
        writer.add(stretch(0, 54_000))
    with PlanStore(tmp_path).extend() as writer:
        writer.add(stretch(0, 54_000))
    with PlanStore(tmp_path).extend() as writer:
        writer.add(window(9 * MINUTE_NS, 10 * MINUTE_NS, part=3))
        writer.add(stretch(0, 60_000))
    plan = PlanStore(tmp_path)
    assert (tmp_path / "plan.parquet").read_bytes() == before
    assert (plan.parts(), plan.chunks()) == (4, 10)
    assert [entry.chunk.start for part in range(4) for entry in plan.entries(part)] == [
        i * MINUTE_NS for i in range(10)
    ]
    assert plan.scan().collect().height == 10
    assert plan.inventory().collect()["count"].to_list() == [60_000], "the last look at the archive counts"


def test_an_inventory_without_its_plan_is_no_extension(tmp_path: Path) -> None:
    """Killed between the two renames: the extension is not there, and can be made again."""
    write_plan(tmp_path, [*minutes(4), stretch(0, 24_000)])
    (tmp_path / "inventory-0001.parquet").write_bytes((tmp_path / "inventory.parquet").read_bytes())
    assert PlanStore(tmp_path).inventory().collect().height == 1
    with PlanStore(tmp_path).extend() as writer:
        writer.add(stretch(0, 7))
    assert PlanStore(tmp_path).inventory().collect()["count"].to_list() == [7]


def test_nothing_is_left_of_a_plan_that_failed(tmp_path: Path) -> None:
    def lines() -> Iterator[PlanEntry]:
        yield minutes(1)[0]
        raise RuntimeError("the reader failed")

    with pytest.raises(RuntimeError, match="the reader failed"):
        write_plan(tmp_path, lines())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ResultsError, match=r"plan\.parquet is not there"):
        PlanStore(tmp_path)


def test_a_plan_is_never_overwritten(tmp_path: Path) -> None:
    write_plan(tmp_path, minutes(1))
    with pytest.raises(ConflictError, match="a plan is frozen"):
        PlanWriter(tmp_path)


@pytest.mark.parametrize("parts", [(1,), (0, 2), (0, 1, 0), (-1,)])
def test_parts_come_in_order_without_holes(tmp_path: Path, parts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="follows part"):
        write_plan(tmp_path, [window(number, number + 1, part=part) for number, part in enumerate(parts)])


def test_a_damaged_plan_is_a_results_error(tmp_path: Path) -> None:
    write_plan(tmp_path, minutes(40))
    file = tmp_path / "plan.parquet"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(ResultsError, match=r"plan\.parquet is damaged"):
        PlanStore(tmp_path)
    file.write_bytes(data[:200] + bytes(byte ^ 0xFF for byte in data[200:260]) + data[260:])
    with pytest.raises(ResultsError, match=r"plan\.parquet is damaged"):
        [PlanStore(tmp_path).entries(part) for part in range(10)]


def test_a_store_pickles(tmp_path: Path) -> None:
    import pickle

    write_plan(tmp_path, minutes(3))
    plan = pickle.loads(pickle.dumps(PlanStore(tmp_path)))
    assert plan.entries(0) == minutes(3)
