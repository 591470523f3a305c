"""Each row of a table becomes one record, and whatever is broken costs its own row only."""

from __future__ import annotations

import csv
import datetime as dt
import os
import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from s1batch.errors import JobFileError
from s1batch.jobs.template import render_value
from s1batch.paths import encode_path
from s1batch.readers.tables import formats as table_formats
from s1batch.readers.tables.reader import TableReader
from s1batch.readers.tables.spec import TableSource
from s1batch.records import Chunk, Fields, InventoryItem, PlanEntry, Record

FRAME = pl.DataFrame({"id": [f"a{i}" for i in range(10)], "text": [f"line {i}" for i in range(10)]})


def make_reader(folder: Path, *path: str, **fields: Any) -> TableReader:
    reader = TableReader(TableSource.model_validate({"kind": "table", "path": path, **fields}), folder)
    copy: TableReader = pickle.loads(pickle.dumps(reader))
    return copy


def planned(reader: TableReader) -> tuple[list[InventoryItem], list[PlanEntry]]:
    lines = list(reader.plan())
    return (
        [line for line in lines if isinstance(line, InventoryItem)],
        [line for line in lines if isinstance(line, PlanEntry)],
    )


def chunks_of(reader: TableReader) -> list[Chunk]:
    return [entry.chunk for entry in planned(reader)[1]]


def fields_of(record: Record) -> dict[str, Any] | str:
    if record.refusal is not None:
        return record.refusal.reason
    assert isinstance(record.payload, Fields)
    return dict(record.payload.values)


def read_all(reader: TableReader) -> list[dict[str, Any] | str]:
    return [fields_of(record) for record in reader.read(chunks_of(reader))]


def write_batches(frame: pl.DataFrame, path: Path, *, stream: bool = False, **options: Any) -> Path:
    """Write Arrow IPC in record batches of four rows."""
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    opened = pa.ipc.new_stream if stream else pa.ipc.new_file
    with opened(path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=4)
    return path


def write(frame: pl.DataFrame, path: Path) -> Path:
    match path.suffix:
        case ".parquet":
            frame.write_parquet(path, row_group_size=4)
        case ".jsonl":
            frame.write_ndjson(path)
        case ".arrow":
            frame.write_ipc(path, compression="zstd")
        case ".ipc":
            write_batches(frame, path, stream=True)
        case ".tsv":
            frame.write_csv(path, separator="\t")
        case _:
            frame.write_csv(path)
    return path


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "jsonl", "arrow", "ipc"])
def test_every_row_is_planned_once_and_reads_back(tmp_path: Path, ending: str) -> None:
    path = write(FRAME, tmp_path / f"a.{ending}")
    reader = make_reader(tmp_path, f"a.{ending}")
    [item], entries = planned(reader)
    assert (item.status, item.unit, item.count, item.start, item.stop) == ("selected", "rows", 10, 0, 10)
    assert (item.path, item.size, item.mtime_ns) == (path.name, path.stat().st_size, path.stat().st_mtime_ns)
    first = entries[3].chunk.inputs[0]
    assert (first.root, first.path) == ("archive", path.name)
    assert (first.slices[0].dim, first.slices[0].start, first.slices[0].stop) == ("rows", 3, 4)
    assert len({entry.chunk.key for entry in entries}) == 10
    records = list(reader.read([entry.chunk for entry in entries]))
    assert [fields_of(record) for record in records] == FRAME.to_dicts()
    assert [record.lineage for record in records] == [{"source_file": path.name, "row_index": i} for i in range(10)]
    assert [column.name for column in reader.lineage] == ["source_file", "row_index"]


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "arrow", "ipc"])
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(picked=st.lists(st.integers(0, 19), max_size=25))
def test_any_chunks_in_any_order_give_their_own_rows(tmp_path: Path, ending: str, picked: list[int]) -> None:
    for name in ("a", "b"):
        write(FRAME.with_columns(pl.lit(name).alias("file")), tmp_path / f"{name}.{ending}")
    reader = make_reader(tmp_path, f"*.{ending}")
    chunks = chunks_of(reader)
    found = [fields_of(record) for record in reader.read([chunks[number] for number in picked])]
    assert found == [{**FRAME.row(number % 10, named=True), "file": "ab"[number // 10]} for number in picked]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)] * 2),
        max_size=8,
    )
)
def test_text_of_any_kind_survives_csv_and_jsonl(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    expected = [{"x": x, "größe, cm": y} for x, y in rows]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["x", "größe, cm"], quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writeheader()
        writer.writerows(expected)
    assert read_all(make_reader(tmp_path, "a.csv")) == expected
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(orjson.dumps(row) for row in expected))
    assert read_all(make_reader(tmp_path, "a.jsonl")) == (expected if expected else read_all_empty())


def read_all_empty() -> list[str]:
    return []


def test_a_broken_line_is_one_unreadable_row_and_nothing_else_is_lost(tmp_path: Path) -> None:
    lines = [b'{"a": 1}', b'{"a": ', b"", b"[1]", b"\xff\xfe", b'{"a": NaN}', b'{"a": "\x00"}', b'{"a": 2}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    reader = make_reader(tmp_path, "a.jsonl")
    [item], entries = planned(reader)
    assert item.count == len(entries) == 7
    broken = ["decode_error"] * 5
    assert read_all(reader) == [{"a": 1}, *broken, {"a": 2}]
    detail = next(iter(reader.read([entries[1].chunk]))).refusal
    assert detail is not None
    assert detail.outcome == "unreadable"
    assert detail.detail.startswith("a.jsonl, row 1: the line is no JSON")


def test_a_broken_csv_row_does_not_swallow_its_neighbours(tmp_path: Path) -> None:
    text = b'a,b\n1,2\n3,"four\n5,6\n\n7\n8,9,10\n\xff,1\n11,"twelve\nlines"\n13,"x"y\n14,15'
    (tmp_path / "a.csv").write_bytes(text)
    assert read_all(make_reader(tmp_path, "a.csv")) == [
        {"a": "1", "b": "2"},
        "decode_error",
        {"a": "5", "b": "6"},
        "decode_error",
        "decode_error",
        "decode_error",
        {"a": "11", "b": "twelve\nlines"},
        "decode_error",
        {"a": "14", "b": "15"},
    ]


def test_a_row_too_long_for_memory_is_refused_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_formats, "LONGEST_ROW", 64)
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n{"a": "' + b"x" * 1000 + b'"}\n{"a": 2}\n')
    assert read_all(make_reader(tmp_path, "a.jsonl")) == [{"a": 1}, "not_readable", {"a": 2}]


@pytest.mark.parametrize(
    ("name", "content", "reason", "says"),
    [
        ("a.parquet", b"", "empty_file", "empty"),
        ("a.parquet", b"PAR1 but no more", "not_readable", "no readable Parquet"),
        ("a.csv", b"\xff\xfea\0,\0b\0\n\0", "decode_error", "no UTF-8"),
        ("a.csv", b"\n1,2\n", "decode_error", "does not begin with a line of column names"),
        ("a.csv", b"a,a\n1,2\n", "not_readable", "'a' stands twice"),
        ("a.csv", b'"a,b\n1,2\n', "decode_error", "the header is no CSV"),
        ("a.arrow", b"ARROW1\0\0 but no more", "not_readable", "its end is missing"),
        ("a.feather", b"FEA1 of the first version", "not_readable", "no readable Arrow file"),
        ("a.ipc", b"\xff\xff\xff\xff\x08\0\0\0", "not_readable", "no readable Arrow file"),
        ("a.xlsx", b"PK", "unknown_format", ".xlsx is none of"),
    ],
)
def test_an_unreadable_file_counts_in_bytes_and_becomes_one_row(
    tmp_path: Path, name: str, content: bytes, reason: str, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    write(FRAME, tmp_path / "z.jsonl")
    reader = make_reader(tmp_path, "*.*")
    items, entries = planned(reader)
    assert [(item.status, item.reason, item.unit, item.count) for item in items] == [
        ("unreadable", reason, "bytes", len(content)),
        ("selected", "", "rows", 10),
    ]
    refusal = entries[0].refusal
    assert refusal is not None
    assert (refusal.outcome, refusal.reason) == ("unreadable", reason)
    assert says in refusal.detail
    assert len(entries) == 11
    assert fields_of(next(iter(reader.read([entries[0].chunk])))) == "not_readable"


def test_chosen_columns_are_all_that_a_prompt_sees(tmp_path: Path) -> None:
    for ending in ("parquet", "csv", "jsonl", "arrow", "ipc"):
        write(FRAME, tmp_path / f"a.{ending}")
        assert read_all(make_reader(tmp_path, f"a.{ending}", columns=["text"]))[0] == {"text": "line 0"}
    for ending in ("parquet", "csv", "arrow", "ipc"):
        [item], [entry] = planned(make_reader(tmp_path, f"a.{ending}", columns=["text", "smiles"]))
        assert item.status == "unreadable"
        assert entry.refusal is not None
        assert "no column smiles; the columns are id, text" in entry.refusal.detail
    assert read_all(make_reader(tmp_path, "a.jsonl", columns=["smiles"]))[0] == {"smiles": None}


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "arrow", "ipc"])
def test_a_file_that_changed_since_the_plan_is_noticed(tmp_path: Path, ending: str) -> None:
    path = write(FRAME, tmp_path / f"a.{ending}")
    reader = make_reader(tmp_path, path.name)
    chunks = chunks_of(reader)
    write(FRAME.head(2).with_columns(id=pl.lit("a much longer first field")), path)
    assert fields_of(list(reader.read(chunks))[-1]) == "source_changed"
    path.unlink()
    assert [fields_of(record) for record in reader.read(chunks)] == ["source_missing"] * 10


def test_rows_that_are_appended_change_no_key(tmp_path: Path) -> None:
    for ending in ("csv", "jsonl", "parquet"):
        path = write(FRAME.head(5), tmp_path / f"a.{ending}")
        reader = make_reader(tmp_path, path.name)
        before = [chunk.key for chunk in chunks_of(reader)]
        write(FRAME, path)
        write(FRAME, tmp_path / f"b.{ending}")
        assert [chunk.key for chunk in chunks_of(make_reader(tmp_path, path.name))][:5] == before


def test_values_of_every_arrow_type_arrive(tmp_path: Path) -> None:
    when = dt.datetime(2020, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    table = pa.table(
        {
            "us": pa.array([when, None], pa.timestamp("us", tz="UTC")),
            "ns": pa.array([1_600_000_000_000_000_001, None], pa.timestamp("ns", tz="UTC")),
            "nested": pa.array(
                [{"when": [int(when.timestamp()) * 10**9 + 7], "took": 1999}, None],
                pa.struct(
                    [("when", pa.list_(pa.timestamp("ns", tz="UTC"))), ("took", pa.duration("ns"))],
                ),
            ),
            "date": pa.array([when.date(), None]),
            "decimal": pa.array([Decimal("1.50"), None]),
            "binary": pa.array([b"\x00\xff", None]),
            "list": pa.array([[1, 2], None]),
            "struct": pa.array([{"a": 1.5, "b": None}, None]),
            "kind": pa.array(["x", None]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = read_all(make_reader(tmp_path, "a.parquet"))
    assert isinstance(first, dict)
    assert first["us"] == when
    assert first["ns"].isoformat() == "2020-09-13T12:26:40.000000001+00:00"
    assert pickle.loads(pickle.dumps(first["ns"])).isoformat() == first["ns"].isoformat()
    assert render_value(first["ns"]) == "2020-09-13T12:26:40.000000001Z"
    assert type(first["ns"]).__module__ == "s1batch.readers.tables.nanoseconds"
    assert first["nested"] == {"when": [when], "took": dt.timedelta(microseconds=1)}
    assert (first["date"], first["decimal"], first["binary"]) == (when.date(), Decimal("1.50"), b"\x00\xff")
    assert (first["list"], first["struct"], first["kind"]) == ([1, 2], {"a": 1.5, "b": None}, "x")
    assert second == dict.fromkeys(table.column_names)


def test_a_value_that_python_cannot_hold_costs_its_own_row(tmp_path: Path) -> None:
    far = pa.array([0, 10**15, 1], pa.timestamp("ms"))
    bad_text = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"ab\xff")]
    )
    pq.write_table(pa.table({"t": far, "s": bad_text}), tmp_path / "a.parquet")
    found = read_all(make_reader(tmp_path, "a.parquet"))
    assert found[0] == {"t": dt.datetime(1970, 1, 1), "s": "a"}
    assert found[1:] == ["decode_error", "decode_error"]


def test_a_damaged_row_group_costs_its_own_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    noise = FRAME.with_columns(text=pl.Series([os.urandom(200).hex() for _ in range(10)]))
    noise.write_parquet(path, row_group_size=4, compression="zstd")
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(1).column(1)
        start, size = column.dictionary_page_offset or column.data_page_offset, column.total_compressed_size
    content = bytearray(path.read_bytes())
    content[start : start + size] = b"\xff" * size
    path.write_bytes(bytes(content))
    found = read_all(make_reader(tmp_path, "a.parquet"))
    assert found == [*noise.to_dicts()[:4], *["decode_error"] * 4, *noise.to_dicts()[8:]]


def test_keys_do_not_depend_on_where_the_archive_lies_or_on_the_pattern(tmp_path: Path) -> None:
    for machine in ("one", "two"):
        (tmp_path / machine / "data" / "2020").mkdir(parents=True)
        write(FRAME, tmp_path / machine / "data" / "2020" / "a.csv")
    by_glob = make_reader(tmp_path / "one", "data/**/*.csv")
    elsewhere = make_reader(tmp_path / "two", "data/*/a.csv")
    absolute = make_reader(tmp_path, str(tmp_path / "one" / "data" / "*" / "a.csv"))
    keys = [[chunk.key for chunk in chunks_of(reader)] for reader in (by_glob, elsewhere, absolute)]
    assert keys[0] == keys[1] == keys[2]
    rooted = make_reader(tmp_path, "two/data/2020/a.csv", root="two/data")
    assert [chunk.key for chunk in chunks_of(rooted)] == keys[0]


def test_files_come_once_each_and_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.csv", "a[1].csv", "c.csv"):
        write(FRAME.head(1), tmp_path / name)
    items, _ = planned(make_reader(tmp_path, "c.csv", "*.csv", "a[1].csv"))
    assert [item.path for item in items] == ["a[1].csv", "b.csv", "c.csv"]
    assert len(read_all(make_reader(tmp_path, "*.csv"))) == 3


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "arrow", "ipc"])
def test_a_name_that_is_no_text_is_read_and_recorded_without_loss(tmp_path: Path, ending: str) -> None:
    name = os.fsdecode(b"\xff." + ending.encode())
    write(FRAME, tmp_path / f"a.{ending}").rename(tmp_path / name)
    reader = make_reader(tmp_path, f"*.{ending}")
    [item], entries = planned(reader)
    assert item.path == encode_path(name)
    entries[0].label.encode("utf-8")
    assert read_all(reader) == FRAME.to_dicts()


def test_a_path_that_matches_nothing_is_an_error_of_the_job_file(tmp_path: Path) -> None:
    write(FRAME, tmp_path / "a.csv")
    with pytest.raises(JobFileError, match=r"'b\*\.csv' matches no file"):
        list(make_reader(tmp_path, "a.csv", "b*.csv").plan())
    with pytest.raises(JobFileError, match="does not lie below"):
        list(make_reader(tmp_path, "a.csv", root="sub").plan())
    with pytest.raises(ValidationError):
        make_reader(tmp_path)
    assert TableSource.model_validate({"kind": "table", "path": "a.csv"}).path == ("a.csv",)
