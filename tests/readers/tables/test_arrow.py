"""Arrow files and streams: torn ones are noticed, and a damaged batch costs its own rows."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.readers.tables.test_tables import FRAME, fields_of, make_reader, planned, read_all, write_batches


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("arrow")
    write_batches(FRAME, path / "file.arrow")
    write_batches(FRAME, path / "stream.ipc", stream=True)
    return path


@settings(max_examples=120)
@given(data=st.data())
def test_a_file_cut_anywhere_is_one_unreadable_row(folder: Path, data: st.DataObject) -> None:
    content = (folder / "file.arrow").read_bytes()
    cut = data.draw(st.integers(1, len(content) - 1))
    (folder / "cut.arrow").write_bytes(content[:cut])
    items, entries = planned(make_reader(folder, "cut.arrow"))
    assert [(item.status, item.count) for item in items] == [("unreadable", cut)]
    assert [entry.refusal.reason for entry in entries if entry.refusal] == ["not_readable"]


@settings(max_examples=120)
@given(data=st.data())
def test_a_stream_cut_anywhere_keeps_its_whole_batches_and_says_that_it_is_torn(
    folder: Path, data: st.DataObject
) -> None:
    content = (folder / "stream.ipc").read_bytes()
    cut = data.draw(st.integers(1, len(content) - 1))
    (folder / "cut.ipc").write_bytes(content[:cut])
    reader = make_reader(folder, "cut.ipc")
    items, entries = planned(reader)
    rows = [entry for entry in entries if entry.refusal is None]
    assert sum(item.count for item in items if item.status == "selected") == len(rows)
    assert len(rows) in (0, 4, 8, 10)
    (torn,) = [item for item in items if item.status == "unreadable"]
    assert 0 < torn.count <= cut or len(rows) == 10
    assert len(entries) == len(rows) + 1
    assert [fields_of(record) for record in reader.read([entry.chunk for entry in rows])] == (
        FRAME.to_dicts()[: len(rows)]
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_a_damaged_batch_costs_its_own_rows(tmp_path: Path, stream: bool, compression: Any) -> None:
    path = write_batches(FRAME, tmp_path / "a.arrow", stream=stream, compression=compression)
    content = bytearray(path.read_bytes())
    # The ids "a4" to "a7" are the text of the second batch; before it stand its offsets, 0, 2, 4, 6, 8.
    if compression is None:
        place = content.index(struct.pack("<5q", 0, 2, 4, 6, 8), content.index(b"a0a1a2a3"))
        content[place : place + 40] = struct.pack("<5q", 0, 2**30, 4, 6, 8)
    else:
        magic = {"zstd": b"\x28\xb5\x2f\xfd", "lz4": b"\x04\x22\x4d\x18"}[compression]
        places = [place for place in range(len(content)) if content.startswith(magic, place)]
        assert places, "nothing of the file is compressed"
        content[places[len(places) // 2]] ^= 0xFF
    path.write_bytes(content)
    found = read_all(make_reader(tmp_path, path.name))
    broken = [index for index, row in enumerate(found) if row == "decode_error"]
    assert broken in ([4, 5, 6, 7], [0, 1, 2, 3], [8, 9])
    assert [row for row in found if row != "decode_error"] == [
        row for index, row in enumerate(FRAME.to_dicts()) if index not in broken
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_dictionaries_and_nested_columns_are_read(tmp_path: Path, stream: bool) -> None:
    frame = FRAME.with_columns(
        kind=pl.Series(["quartz", "mica"] * 5, dtype=pl.Categorical),
        numbers=pl.Series([[float(i)] * (i % 3) for i in range(10)]),
        place=pl.Series([{"lat": 1.5, "lon": i} for i in range(10)]),
    )
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    opened = pa.ipc.new_stream if stream else pa.ipc.new_file
    with opened(tmp_path / "a.arrow", table.schema) as writer:
        for batch in table.to_batches(max_chunksize=3):
            writer.write_batch(batch)
    reader = make_reader(tmp_path, "a.arrow")
    assert read_all(reader) == frame.to_dicts()
    chunks = [entry.chunk for entry in planned(reader)[1]]
    (last,) = reader.read(chunks[9:])
    assert last.payload is not None


def test_a_header_that_promises_a_billion_rows_is_not_believed(tmp_path: Path) -> None:
    path = write_batches(FRAME.select("id"), tmp_path / "a.arrow")
    content = bytearray(path.read_bytes())
    # The number of rows of a batch is the only 4 of 64 bits in its header before the body.
    place = content.index(struct.pack("<q", 4), content.index(b"id"))
    content[place : place + 8] = struct.pack("<q", 10**9)
    path.write_bytes(content)
    items, entries = planned(make_reader(tmp_path, path.name))
    assert len(entries) < 20
    assert any(item.status == "unreadable" for item in items) or len(entries) == 10


def test_a_file_without_rows_has_no_rows(tmp_path: Path) -> None:
    write_batches(FRAME.head(0), tmp_path / "a.arrow")
    [item], entries = planned(make_reader(tmp_path, "a.arrow"))
    assert (item.status, item.count, entries) == ("selected", 0, [])
