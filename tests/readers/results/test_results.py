"""Stages chain: every row of a first run is in a question of the second one, or is said not to be."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import s1batch
from s1batch.accounting import Account
from s1batch.api import Results
from s1batch.errors import JobFileError
from s1batch.execution import RunOptions
from s1batch.readers.results.groups import RowGroups, RowPlace, sort_key
from s1batch.readers.results.reader import ResultsReader
from s1batch.readers.results.spec import ResultsSource
from s1batch.records import Fields, InventoryItem, PlanEntry
from s1batch.results.compaction import compact

ECHO = {"kind": "replay", "function": "tests.answers:echo"}
STATIONS = ["APE", "RJOB", "APE", "WET", "RJOB", "APE", "FUR", "APE", "RJOB", "APE"]
FRAME = pl.DataFrame({"station": STATIONS, "magnitude": [1.5, 2.0, 0.5, 3.0, 2.5, 4.0, 1.0, 3.5, 0.0, 2.2]})
SCHEMA = {"type": "object", "properties": {"length": {"type": "integer"}, "first": {"type": "string"}}}


def first_run(folder: Path, frame: pl.DataFrame = FRAME, **changes: Any) -> Results:
    """Ask about each row of a table; a magnitude of exactly 0 is refused by the template."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(frame.iter_slices(5)):
        path = folder / "events" / f"{number}.csv"
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            part.write_csv(path)
    job = {
        "source": {"kind": "table", "path": str(folder / "events" / "*.csv")},
        "job": {
            "kind": "ask",
            "prompt": "{{ station }} {{ 1 / (magnitude | float) }}",
            "schema": SCHEMA,
            "show_schema": False,
        },
        "engine": ECHO,
        "run": {"part_chunks": 3},
        **changes,
    }
    return s1batch.run(job, folder / "first", options=RunOptions(extend=(folder / "first").exists()))


def chained(folder: Path, **source: Any) -> dict[str, Any]:
    return {
        "source": {"kind": "results", "path": str(folder / "first"), **source},
        "job": {"kind": "ask", "prompt": "{{ rows if rows is defined else first }}"},
        "engine": ECHO,
        "run": {"part_chunks": 2},
    }


def counts(account: Account, unit: str = "rows") -> dict[str, int]:
    (total,) = [tally for tally in account.totals if tally.unit == unit]
    assert account.balanced
    return {
        name: getattr(total, name)
        for name in ("archive", "planned", "refused", "unreadable", "not_selected")
        if getattr(total, name)
    }


def planned(reader: ResultsReader) -> tuple[list[InventoryItem], list[PlanEntry]]:
    lines = list(pickle.loads(pickle.dumps(reader)).plan())
    return (
        [line for line in lines if isinstance(line, InventoryItem)],
        [line for line in lines if isinstance(line, PlanEntry)],
    )


def reader_of(folder: Path, **fields: Any) -> ResultsReader:
    return ResultsReader(ResultsSource.model_validate({"kind": "results", "path": "first", **fields}), folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    first_run(folder)
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


class TestRows:
    def test_each_row_with_a_wanted_outcome_is_one_question(self, made: Path) -> None:
        reader = reader_of(made, columns=["first", "outcome"])
        items, entries = planned(reader)
        assert sum(item.count for item in items if item.status == "selected") == len(entries) == 9
        assert [(item.reason, item.count) for item in items if item.status == "not_selected"] == [("refused", 1)]
        records = list(reader.read([entry.chunk for entry in entries]))
        first = s1batch.open_results(made / "first").scan().filter(pl.col("outcome") == "ok").collect()
        assert [key for record in records for key in record.lineage["row_keys"]] == first["chunk_key"].to_list()
        values = [record.payload.values for record in records if isinstance(record.payload, Fields)]
        assert values == first.select("first", "outcome").to_dicts()

    def test_other_outcomes_can_be_asked_about(self, made: Path) -> None:
        _, entries = planned(reader_of(made, outcomes=["refused", "unparsed"]))
        assert len(entries) == 1

    def test_a_run_over_the_rows_is_complete_and_verifies(self, made: Path, tmp_path: Path) -> None:
        results = s1batch.run(chained(made), tmp_path / "second")
        assert results.summary.outcomes == {"ok": 9}
        assert counts(results.account()) == {"archive": 10, "planned": 9, "not_selected": 1}
        assert results.verify(sources=True).complete

    def test_a_run_that_is_made_again_keeps_the_identity_of_its_rows(self, made: Path, tmp_path: Path) -> None:
        """Even when its parts are cut otherwise."""
        shutil.copytree(made / "events", tmp_path / "events")
        first_run(tmp_path, run={"part_chunks": 7})
        keys = [[entry.chunk.key for entry in planned(reader_of(folder))[1]] for folder in (made, tmp_path)]
        assert keys[0] == keys[1]
        assert len(set(keys[0])) == 9
        groups = [
            [entry.chunk.key for entry in planned(reader_of(folder, group_by="source"))[1]]
            for folder in (made, tmp_path)
        ]
        assert groups[0] == groups[1]

    def test_a_compacted_run_has_the_same_rows_with_the_same_keys(self, copied: Path, tmp_path: Path) -> None:
        keys = [entry.chunk.key for entry in planned(reader_of(copied))[1]]
        compact(copied / "first")
        assert len(list((copied / "first" / "rows").iterdir())) == 1
        assert [entry.chunk.key for entry in planned(reader_of(copied))[1]] == keys
        assert s1batch.run(chained(copied), tmp_path / "second").verify(sources=True).complete


class TestGroups:
    def test_each_group_is_one_question_in_the_order_that_is_asked_for(self, made: Path, tmp_path: Path) -> None:
        source = {"group_by": "first", "order_by": ["-row_index"], "columns": ["row_index", "source_file"]}
        results = s1batch.run(chained(made, **source), tmp_path / "second")
        rows = results.scan().collect()
        assert rows["group_first"].to_list() == ["A", "F", "R", "W"]
        assert rows["source"].to_list() == ["A", "F", "R", "W"]
        assert [len(keys) for keys in rows["row_keys"]] == [5, 1, 2, 1]
        assert counts(results.account()) == {"archive": 10, "planned": 9, "not_selected": 1}
        assert results.verify(sources=True).complete
        reader = reader_of(made, **source)
        (record,) = reader.read([planned(reader)[1][0].chunk])
        assert isinstance(record.payload, Fields)
        assert record.payload.values["n_rows"] == 5
        assert record.payload.values["first"] == "A"
        indices = [row["row_index"] for row in record.payload.values["rows"]]
        assert indices == sorted(indices, reverse=True)
        assert set(record.payload.values["rows"][0]) == {"row_index", "source_file"}

    def test_large_groups_are_cut(self, made: Path) -> None:
        reader = reader_of(made, group_by="first", max_rows=2)
        _, entries = planned(reader)
        sizes = [len(record.lineage["row_keys"]) for record in reader.read([entry.chunk for entry in entries])]
        assert sizes == [2, 2, 1, 1, 2, 1]
        assert len({entry.chunk.key for entry in entries}) == len(entries)

    @settings(max_examples=60)
    @given(
        rows=st.lists(
            st.tuples(
                st.one_of(st.none(), st.integers(-3, 3), st.text(max_size=2), st.floats()),
                st.one_of(st.none(), st.floats(), st.integers()),
            ),
            max_size=40,
        ),
        most=st.integers(1, 7),
        descending=st.booleans(),
    )
    def test_any_rows_come_out_once_with_their_equals_and_in_order(
        self, rows: list[tuple[Any, Any]], most: int, descending: bool
    ) -> None:
        with RowGroups(1, [descending]) as groups:
            for index, (group, order) in enumerate(rows):
                place = RowPlace(file=index % 3, index=index, key=str(index), nbytes=1)
                groups.add([sort_key(group)], [sort_key(order)], place)
            pieces = list(groups.pieces(most))
        assert sorted(place.index for _, places in pieces for place in places) == list(range(len(rows)))
        of_group: dict[Any, list[int]] = {}
        for (group,), places in pieces:
            assert 1 <= len(places) <= most
            assert all(sort_key(rows[place.index][0]) == group for place in places)
            of_group.setdefault(group, []).extend(place.index for place in places)
        assert len(of_group) == len({sort_key(group) for group, _ in rows})
        for indices in of_group.values():
            numbers = [rows[index][1] for index in indices if isinstance(sort_key(rows[index][1]), int | float)]
            assert numbers == sorted(numbers, reverse=descending)


class TestDamage:
    def test_an_incomplete_run_is_refused_unless_a_part_of_it_will_do(self, copied: Path, tmp_path: Path) -> None:
        (copied / "first" / "rows" / "part-000001.parquet").unlink()
        with pytest.raises(JobFileError, match=r"is not complete: 1 parts with 3 chunks .* or set source.partial"):
            s1batch.plan(chained(copied))
        results = s1batch.run(chained(copied, partial=True), tmp_path / "second")
        found = counts(results.account())
        assert found["archive"] == 10
        assert found["not_selected"] in (3, 4)
        assert results.verify(sources=True).complete

    def test_a_damaged_file_costs_its_own_rows(self, copied: Path, tmp_path: Path) -> None:
        path = copied / "first" / "rows" / "part-000000.parquet"
        path.write_bytes(b"PAR1" + path.read_bytes()[4:200])
        results = s1batch.run(chained(copied), tmp_path / "second")
        rows = results.scan().collect()
        assert rows.filter(pl.col("outcome") == "unreadable")["reason"].to_list() == ["not_readable"]
        assert counts(results.account())["planned"] == 6
        assert counts(results.account(), "bytes") == {"archive": 200, "unreadable": 200}
        assert results.verify(sources=True).complete

    def test_a_first_run_that_changed_since_the_plan_is_noticed(self, copied: Path, tmp_path: Path) -> None:
        s1batch.run(chained(copied), tmp_path / "second", options=RunOptions(limit=2))
        path = copied / "first" / "rows" / "part-000002.parquet"
        frame = pl.read_parquet(path)
        frame.reverse().write_parquet(path)
        results = s1batch.run(chained(copied), tmp_path / "second")
        changed = results.scan().filter(pl.col("outcome") == "unreadable").collect()
        assert set(changed["reason"]) == {"source_changed"}
        assert 1 <= len(changed) <= 3
        assert not results.verify(sources=True).ok

    def test_a_row_that_moved_is_noticed_by_itself(self, copied: Path) -> None:
        """Without any help of sizes and times."""
        reader = reader_of(copied)
        chunks = [entry.chunk for entry in planned(reader)[1]]
        path = copied / "first" / "rows" / "part-000000.parquet"
        pl.read_parquet(path).reverse().write_parquet(path)
        (record,) = reader.read(chunks[:1])
        assert record.refusal is not None
        assert record.refusal.reason == "source_changed"
        path.unlink()
        (record,) = reader.read(chunks[:1])
        assert record.refusal is not None
        assert record.refusal.reason == "source_missing"

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ({"path": "nowhere"}, "holds no results"),
            ({"columns": ["strength"]}, "no column strength"),
            ({"group_by": ["city"]}, "no column city"),
            ({"merged": True}, "no merged answers"),
            ({"order_by": ["source"]}, "order_by has no meaning without group_by"),
            ({"merged": True, "outcomes": ["failed"]}, "outcomes has no meaning"),
        ],
    )
    def test_a_block_that_asks_for_what_is_not_there_is_refused_in_one_line(
        self, made: Path, source: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(JobFileError, match=message) as caught:
            s1batch.plan(chained(made, **source))
        assert "\n" not in str(caught.value)


def test_an_extended_first_run_extends_the_second_one(tmp_path: Path) -> None:
    """Rows that are new, and groups that grew, are new questions; nothing is asked twice, and all adds up."""
    first_run(tmp_path)
    rows, groups = chained(tmp_path), chained(tmp_path, group_by="first")
    s1batch.run(rows, tmp_path / "rows")
    s1batch.run(groups, tmp_path / "groups")
    pl.DataFrame({"station": ["APE", "GRA"], "magnitude": [1.0, 2.0]}).write_csv(tmp_path / "events" / "9.csv")
    first_run(tmp_path)
    said: list[str] = []
    s1batch.run(rows, tmp_path / "rows", say=said.append)
    assert any("1 new file is not in the plan" in line for line in said)
    again = s1batch.run(rows, tmp_path / "rows", options=RunOptions(extend=True))
    assert again.scan().select(pl.len()).collect().item() == 11
    assert counts(again.account()) == {"archive": 12, "planned": 11, "not_selected": 1}
    assert again.verify(sources=True).complete
    grown = s1batch.run(groups, tmp_path / "groups", options=RunOptions(extend=True))
    assert sorted(grown.scan().collect()["group_first"]) == ["A", "A", "F", "G", "R", "W"]
    assert counts(grown.account()) == {"archive": 12, "planned": 11, "not_selected": 1}
    assert grown.verify(sources=True).complete


def test_merged_answers_are_a_source_too(tmp_path: Path, archive: Callable[[Path], Path]) -> None:
    job = {
        "source": {"kind": "seismic", "paths": [f"{archive(tmp_path)}/*"]},
        "window": {"length": "20s", "overlap": "50%"},
        "job": {"kind": "seismic-pick"},
        "engine": {"kind": "replay", "function": "tests.answers:loudest"},
    }
    first = s1batch.run(job, tmp_path / "first")
    merged = first.merged().collect()
    results = s1batch.run(chained(tmp_path, merged=True, group_by="station", order_by="time"), tmp_path / "second")
    rows = results.scan().collect()
    assert sum(len(keys) for keys in rows["row_keys"]) == len(merged) > 0
    assert set(rows["group_station"]) == set(merged["station"])
    assert counts(results.account()) == {"archive": len(merged), "planned": len(merged)}
    assert results.verify(sources=True).complete


@pytest.fixture
def archive() -> Callable[[Path], Path]:
    from tests.archives import write_archive

    return lambda folder: write_archive(folder / "archive", seconds=60.0)
