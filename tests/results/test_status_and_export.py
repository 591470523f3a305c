"""What people see of results: how far a run is, and its rows in other formats."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from s1batch.columns import Column
from s1batch.errors import ResultsError
from s1batch.records import Row
from s1batch.results.export import Format, export_rows
from s1batch.results.merged import write_merged
from s1batch.results.schema import UTC_NS, RowSchema
from s1batch.results.status import status
from s1batch.results.store import ResultsStore
from tests.plans import MINUTE_NS, SCHEMA, minutes, row, stretch, write_plan

PLANNED = minutes(12)


def test_status_of_a_run_in_progress(tmp_path: Path) -> None:
    write_plan(tmp_path, [*PLANNED, stretch(0, 72_000)])
    before = status(tmp_path)
    assert (before.chunks, before.parts, before.rows, before.last_ns, before.rows_per_s) == (12, 3, 0, None, None)
    with ResultsStore(tmp_path, SCHEMA) as store:
        with store.open_part(0) as part:
            for entry in PLANNED[:4]:
                part.append(row(entry))
            part.finish([entry.chunk.key for entry in PLANNED[:4]])
        with store.open_part(1) as part:
            part.append(row(PLANNED[4], outcome="failed", reason="connection"))
            part.append(row(PLANNED[5], outcome="failed", reason="connection", prompt_tokens=None))
            part.append(row(PLANNED[6]))
            now = status(tmp_path)
    assert (now.finished, now.begun, now.leased, now.complete) == (1, 1, 1, False)
    assert str(now.holders[0]).startswith("process ")
    assert (now.rows, now.journal_rows) == (7, 3)
    assert now.outcomes == (("ok", "", 5), ("failed", "connection", 2))
    assert (now.prompt_tokens, now.cached_tokens, now.output_tokens) == (60, 0, 14)
    assert now.last_ns is not None
    assert now.last_ns >= now.planned_ns
    assert now.rows_per_s is None or now.rows_per_s > 0
    assert status(tmp_path).leased == 0


def test_a_process_with_several_parts_open_is_at_work_once(tmp_path: Path) -> None:
    write_plan(tmp_path, [*PLANNED, stretch(0, 72_000)])
    with ResultsStore(tmp_path, SCHEMA) as store, store.open_part(0), store.open_part(1):
        now = status(tmp_path)
    assert (now.leased, len(now.holders)) == (2, 1)


def test_status_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="holds no plan"):
        status(tmp_path)


NASTY = RowSchema(
    (),
    (
        Column(name="words", type=pa.list_(pa.string()), doc=""),
        Column(name="picks", type=pa.list_(pa.struct([("at", UTC_NS), ("x", pa.float64())])), doc=""),
        Column(name="flag", type=pa.bool_(), doc=""),
        Column(name="raw", type=pa.binary(), doc=""),
        Column(name="number", type=pa.float64(), doc=""),
    ),
)


@pytest.fixture
def rows() -> pl.LazyFrame:
    texts = ["=cmd()", "+1", "-1", "@x", "\tx", "\rx", 'plain, "quoted"\nline', ""]
    made = [
        NASTY.fit(
            Row(
                chunk_key=f"k{number}",
                part=0,
                source="s",
                outcome="ok",
                start_ns=MINUTE_NS + number,
                text=text,
                answer={
                    "words": ["é", None, "=x"],
                    "picks": [{"at": number, "x": -1.5}, None],
                    "flag": number % 2 == 0,
                    "raw": b"\xff\x00",
                    "number": -1.5,
                },
            )
        )
        for number, text in enumerate(texts)
    ]
    frame = pl.DataFrame(NASTY.to_table(made))
    return frame.lazy()


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_runs_nothing_in_a_spreadsheet_and_nests_as_json(rows: pl.LazyFrame, tmp_path: Path) -> None:
    assert export_rows(rows, tmp_path / "x.csv", "csv") == 8
    lines = read_csv(tmp_path / "x.csv")
    given = rows.collect()["text"].to_list()
    assert [line["text"] for line in lines] == [f"'{text}" for text in given[:6]] + given[6:]
    assert json.loads(lines[0]["words"]) == ["é", None, "=x"]
    assert json.loads(lines[3]["picks"]) == [{"at": "1970-01-01T00:00:00.000000003Z", "x": -1.5}, None]
    assert (lines[0]["number"], lines[0]["flag"], lines[0]["raw"]) == ("-1.5", "true", "ff00")
    assert lines[7]["start"] == "1970-01-01T00:01:00.000000007Z"
    assert lines[0]["end"] == ""


def test_raw_csv_keeps_text_as_it_is(rows: pl.LazyFrame, tmp_path: Path) -> None:
    export_rows(rows, tmp_path / "x.csv", "csv", raw=True)
    assert [line["text"] for line in read_csv(tmp_path / "x.csv")] == rows.collect()["text"].to_list()


def test_json_lines_keep_every_value(rows: pl.LazyFrame, tmp_path: Path) -> None:
    export_rows(rows, tmp_path / "x.jsonl", "jsonl")
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == rows.collect()["text"].to_list()
    assert lines[2]["picks"][0] == {"at": "1970-01-01T00:00:00.000000002Z", "x": -1.5}
    assert list(lines[0]) == rows.collect_schema().names()


def test_parquet_is_one_equal_table(rows: pl.LazyFrame, tmp_path: Path) -> None:
    export_rows(rows, tmp_path / "x.parquet", "parquet")
    assert pl.read_parquet(tmp_path / "x.parquet").equals(rows.collect())


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_no_rows_make_a_whole_file(rows: pl.LazyFrame, tmp_path: Path, kind: Format) -> None:
    assert export_rows(rows.head(0), tmp_path / "new" / "x", kind) == 0
    assert (tmp_path / "new" / "x").exists()


def test_merged_answers_replace_earlier_ones(tmp_path: Path) -> None:
    for keys in (["a"], ["b", "c"]):
        frame = pl.DataFrame({"group_id": keys, "source_chunk_keys": [[key] for key in keys]})
        path = write_merged(tmp_path, frame)
    assert path == tmp_path / "merged" / "part-0000.parquet"
    assert pl.read_parquet(path).equals(frame)
    with pytest.raises(ValueError, match="source_chunk_keys"):
        write_merged(tmp_path, pl.DataFrame({"group_id": ["a"]}))
