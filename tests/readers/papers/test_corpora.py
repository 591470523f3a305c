"""Corpora in JSON Lines and Parquet: every record is planned once, and what is broken costs itself only."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s1batch.paths import encode_path
from s1batch.readers.papers import corpus, streams
from s1batch.readers.papers import paper as paper_module
from tests.readers.papers.making import lines_of, make_reader, one, paper, planned, records_of, texts, values_of

ROWS = [paper(number) for number in range(10)]
WHOLE: dict[str, Any] = {"passages": "whole"}


def zst(content: bytes, *, frames: int = 1) -> bytes:
    step = -(-len(content) // frames)
    parts = [content[start : start + step] for start in range(0, len(content), step)]
    return b"".join(zstandard.ZstdCompressor().compress(part) for part in parts)


def gz(content: bytes, *, frames: int = 1) -> bytes:
    step = -(-len(content) // frames)
    return b"".join(gzip.compress(content[start : start + step]) for start in range(0, len(content), step))


PACKERS = {".gz": gz, ".zst": zst}


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def test_every_record_is_one_row_with_its_text_and_what_it_says(tmp_path: Path, ending: str) -> None:
    rows = [{**row, "year": 2000 + n, "doi": f"10.1/{n}", "fields": ["geology"]} for n, row in enumerate(ROWS)]
    path = tmp_path / f"a.{ending}"
    if ending == "parquet":
        pl.DataFrame(rows).write_parquet(path, row_group_size=4)
    else:
        path.write_bytes(PACKERS.get(path.suffix, bytes)(lines_of(rows)))
    reader = make_reader(tmp_path, "*.*", **WHOLE)
    items, entries = planned(reader)
    assert [(item.source, item.unit, item.count) for item in items] == [
        (row["id"], "chars", len(row["text"])) for row in rows
    ]
    assert len({entry.chunk.key for entry in entries}) == 10
    for row, record in zip(rows, records_of(reader), strict=True):
        values = values_of(record)
        assert (values["text"], values["paper_id"], values["title"]) == (row["text"], row["id"], row["title"])
        assert (values["year"], values["doi"], values["passage"]) == (row["year"], row["doi"], 0)
        assert values["metadata"] == {"id": row["id"], "fields": ["geology"]}
        assert record.lineage["source_files"] == [path.name]
        assert record.lineage["source_mtimes_ns"] == [path.stat().st_mtime_ns]
        assert set(record.lineage) == {column.name for column in reader.lineage}


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(picked=st.lists(st.integers(0, 19), max_size=12))
def test_any_passages_in_any_order_give_their_own_text(tmp_path: Path, ending: str, picked: list[int]) -> None:
    for name in "ab":
        path = tmp_path / f"{name}.{ending}"
        rows = [{**row, "text": name + row["text"]} for row in ROWS]
        if ending == "parquet":
            pl.DataFrame(rows).write_parquet(path, row_group_size=4)
        else:
            path.write_bytes(PACKERS.get(path.suffix, bytes)(lines_of(rows)))
    reader = make_reader(tmp_path, f"*.{ending}", **WHOLE)
    chunks = [entry.chunk for entry in planned(reader)[1]]
    found = texts(reader.read([chunks[number] for number in picked]))
    assert found == ["ab"[number // 10] + ROWS[number % 10]["text"] for number in picked]


def test_a_broken_line_is_one_row_and_nothing_else_is_lost(tmp_path: Path) -> None:
    broken = [b'{"id": ', b"[1]", b"\xff\xfe", b'{"id": 1, "text": NaN}', b'{"id": 2, "text": ""}', b'{"id": 3}']
    good = orjson.dumps(paper(7))
    (tmp_path / "a.jsonl").write_bytes(
        b"\xef\xbb\xbf" + b"\n".join([good, *broken, b"", b"  ", orjson.dumps(paper(8))])
    )
    reader = make_reader(tmp_path, "a.jsonl", **WHOLE)
    items, entries = planned(reader)
    assert [item.status for item in items] == ["selected", *["unreadable"] * 6, "selected"]
    assert [item.count for item in items[1:-1]] == [len(line) + 1 for line in broken]
    assert {item.unit for item in items[1:-1]} == {"bytes"}
    reasons = [entry.refusal.reason for entry in entries if entry.refusal]
    assert reasons == ["decode_error"] * 4 + ["not_readable"] * 2
    assert "its fields are id" in str(entries[-2].refusal)
    assert texts(reader.read([entry.chunk for entry in entries])) == [
        paper(7)["text"],
        *reasons,
        paper(8)["text"],
    ]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
def test_a_truncated_file_keeps_what_stands_before_the_cut_and_says_so(
    tmp_path: Path, ending: str, frames: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BLOCK_BYTES", 2**16)
    monkeypatch.setattr(streams, "_SMALLER", (2**16, 4096, 64, 1))
    rows = [{"id": str(n), "text": os.urandom(3000).hex()} for n in range(60)]
    whole = PACKERS[ending](lines_of(rows), frames=frames)
    (tmp_path / f"a.jsonl{ending}").write_bytes(whole[: int(len(whole) * share)])
    reader = make_reader(tmp_path, f"a.jsonl{ending}", **WHOLE)
    items, entries = planned(reader)
    kept = len(items) - 1
    assert [item.status for item in items] == [*["selected"] * kept, "unreadable"]
    assert abs(kept - 60 * share) < 25
    assert items[-1].reason == "decode_error"
    assert "damaged behind byte" in str(entries[-1].refusal)
    found = texts(reader.read([entry.chunk for entry in entries[:-1]]))
    assert found == [row["text"] for row in rows[:kept]]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_no_byte_that_can_be_decompressed_is_given_up(tmp_path: Path, ending: str) -> None:
    content = lines_of(ROWS)
    damaged = PACKERS[ending](content)[: -4 if ending == ".zst" else -8]
    if ending == ".zst":
        damaged = zstandard.ZstdCompressor(write_checksum=True).compress(content)[:-4]
    (tmp_path / f"a.jsonl{ending}").write_bytes(damaged)
    items, entries = planned(make_reader(tmp_path, "a.*", **WHOLE))
    assert [item.status for item in items] == [*["selected"] * 10, "unreadable"]
    assert len(entries) == 11


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_file_cut_between_two_frames_shows_by_its_last_line(tmp_path: Path, ending: str) -> None:
    pack, content = PACKERS[ending], lines_of(ROWS)
    half = len(content) // 2 + 20
    (tmp_path / f"a.jsonl{ending}").write_bytes(pack(content[:half]))
    items, entries = planned(make_reader(tmp_path, "a.*", **WHOLE))
    assert [item.status for item in items][-1] == "unreadable"
    assert "the line is no JSON" in str(entries[-1].refusal)
    assert sum(item.count for item in items if item.status == "selected") > 0


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_what_follows_the_compressed_data_is_a_loss_of_its_own(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"a.jsonl{ending}").write_bytes(PACKERS[ending](lines_of(ROWS)) + b"trailing garbage")
    items, _ = planned(make_reader(tmp_path, "a.*", **WHOLE))
    assert [item.status for item in items] == [*["selected"] * 10, "unreadable"]


def test_a_line_of_a_gigabyte_is_refused_without_being_held(tmp_path: Path) -> None:
    compressor = zstandard.ZstdCompressor().compressobj()
    with (tmp_path / "a.jsonl.zst").open("wb") as file:
        file.write(compressor.compress(orjson.dumps(paper(1)) + b'\n{"id": "x", "text": "'))
        for _ in range(64):
            file.write(compressor.compress(b"x" * 2**24))
        file.write(compressor.compress(b'"}\n' + orjson.dumps(paper(2)) + b"\n") + compressor.flush())
    program = f"""
import resource
from pathlib import Path
from typing import Any
from tests.readers.papers.making import make_reader, planned
reader = make_reader(Path({str(tmp_path)!r}), "a.jsonl.zst", passages="whole")
list(reader.files())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
items, entries = planned(reader)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print([item.status for item in items], items[1].count, entries[1].refusal.reason, grown < 400)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    count = 2**30 + len(b'{"id": "x", "text": ""}\n')
    assert done.stdout.split("\n")[0] == f"['selected', 'unreadable', 'selected'] {count} not_readable True"


def test_a_line_that_is_too_long_hides_none_of_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (streams, paper_module):
        monkeypatch.setattr(module, "LONGEST_RECORD", 5000)
    monkeypatch.setattr(streams, "_SMALLER", (700, 64, 1))
    long = {"id": "long", "text": "x" * 9000}
    (tmp_path / "a.jsonl").write_bytes(lines_of([paper(1), long, paper(2), long])[:-1])
    items, _ = planned(make_reader(tmp_path, "a.jsonl", **WHOLE))
    assert [(item.source, item.status) for item in items] == [
        ("p1", "selected"),
        ("", "unreadable"),
        ("p2", "selected"),
        ("", "unreadable"),
    ]


@settings(deadline=None, max_examples=60)
@given(content=st.binary(max_size=400).map(lambda raw: raw.replace(b"a", b"\n")), block=st.integers(1, 50))
def test_lines_join_to_the_content_whatever_the_blocks(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, block: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "_SMALLER", (block, 1))
        found = list(streams.ContentStream(path).lines())
    assert b"".join(line or b"" for _, line, _ in found) == content
    assert [line for _, line, _ in found] == content.splitlines(keepends=True) or b"\r" in content or b"\x0b" in content
    assert [(start, stop) for start, _, stop in found] == list(
        zip([0, *(stop for _, _, stop in found)], (stop for _, _, stop in found), strict=False)
    )


def test_papers_of_one_identity_keep_their_own_rows_and_it_is_recorded(tmp_path: Path) -> None:
    rows = [paper(1), paper(2), {**paper(1), "text": "Another text."}, {**paper(1), "text": "A third one."}]
    (tmp_path / "a.jsonl").write_bytes(lines_of(rows))
    reader = make_reader(tmp_path, "a.jsonl", **WHOLE)
    items, entries = planned(reader)
    assert len({item.source for item in items}) == len({entry.chunk.key for entry in entries}) == 4
    assert [item.reason for item in items] == ["", "", "repeated_id", "repeated_id"]
    records = records_of(reader)
    assert [record.lineage["paper_id"] for record in records] == ["p1", "p2", "p1", "p1"]
    assert texts(records) == [row["text"] for row in rows]


def test_a_record_without_identity_is_named_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines_of([{"text": "One."}, {"text": "Two.", "id": None}]))
    items, _ = planned(make_reader(tmp_path, "a.jsonl", **WHOLE))
    assert [item.source for item in items] == ["a.jsonl#0", "a.jsonl#16"]


def test_a_json_file_holds_lines_or_one_paper(tmp_path: Path) -> None:
    (tmp_path / "lines.json.gz").write_bytes(gzip.compress(b"\n" + lines_of(ROWS)))
    paper_of_cord = {
        "paper_id": "abc",
        "metadata": {"title": "On viruses"},
        "abstract": [{"text": "Brief.", "section": "Abstract"}],
        "body_text": [{"text": "Long.", "section": "Introduction"}],
    }
    (tmp_path / "one.json").write_bytes(orjson.dumps(paper_of_cord, option=orjson.OPT_INDENT_2))
    (tmp_path / "torn.json").write_bytes(orjson.dumps(paper_of_cord, option=orjson.OPT_INDENT_2)[:-9])
    (tmp_path / "list.json").write_bytes(b"[\n{}\n]")
    reader = make_reader(tmp_path, "*", cache="cache", **WHOLE)
    assert list(reader.plan()) == list(reader.plan())
    items, entries = planned(reader)
    assert [(item.path, item.status) for item in items] == [
        *[("lines.json.gz", "selected")] * 10,
        ("list.json", "unreadable"),
        ("one.json", "selected"),
        ("torn.json", "unreadable"),
    ]
    values = values_of(list(reader.read([entry.chunk for entry in entries]))[11])
    assert (values["paper_id"], values["title"]) == ("abc", "On viruses")
    assert values["text"] == "Abstract\n\nBrief.\n\nIntroduction\n\nLong."


def test_parquet_of_many_rows_loses_none_between_its_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "ROWS_AT_ONCE", 3)
    pl.DataFrame(ROWS).write_parquet(tmp_path / "a.parquet", row_group_size=4)
    items, _ = planned(make_reader(tmp_path, "a.parquet", **WHOLE))
    assert [item.source for item in items] == [row["id"] for row in ROWS]


def test_s2orc_keeps_its_sections(tmp_path: Path) -> None:
    text = "A Title\nIntroduction\nWe saw waves.\nMethods\nWe looked."
    headers = [{"start": 8, "end": 20, "attributes": {"n": "1"}}, {"start": 35, "end": 42}]
    record = {
        "corpusid": 12345,
        "externalids": {"DOI": "10.1000/x"},
        "content": {
            "source": {"pdfurls": None},
            "text": text,
            "annotations": {"sectionheader": orjson.dumps(headers).decode(), "title": '[{"start":0,"end":7}]'},
        },
    }
    (tmp_path / "a.jsonl").write_bytes(lines_of([record]))
    reader = make_reader(tmp_path, "a.jsonl", passages={"tokens": 16, "overlap": 0, "join_sections": False})
    records = records_of(reader)
    assert "".join(texts(records)) == text
    assert [record.lineage["section"] for record in records] == ["", "Introduction", "Methods"]
    first = values_of(records[0])
    assert (first["paper_id"], first["title"], first["doi"]) == ("12345", "A Title", "10.1000/x")
    assert set(first["metadata"]) == {"corpusid", "externalids"}


@pytest.mark.parametrize("annotations", [None, "no JSON", '{"start": 1}', '[{"start": "a", "end": 4}, {"end": 2}, 7]'])
def test_annotations_that_are_not_as_they_should_be_are_left_out(tmp_path: Path, annotations: str | None) -> None:
    record = {"corpusid": 1, "content": {"text": "Some text.", "annotations": {"sectionheader": annotations}}}
    (tmp_path / "a.jsonl").write_bytes(lines_of([record]))
    assert one(make_reader(tmp_path, "a.jsonl", **WHOLE))["section"] == ""


def test_old_s2orc_is_put_together_from_its_paragraphs(tmp_path: Path) -> None:
    body = [
        {"section": "Intro", "text": "One."},
        {"section": "Intro", "text": "Two."},
        {"section": "End", "text": "Three."},
    ]
    record = {
        "paper_id": "77",
        "pdf_parse": {"abstract": [{"section": "Abstract", "text": "Brief."}], "body_text": body},
    }
    (tmp_path / "a.jsonl").write_bytes(lines_of([record]))
    assert one(make_reader(tmp_path, "a.jsonl", **WHOLE))["text"] == (
        "Abstract\n\nBrief.\n\nIntro\n\nOne.\n\nTwo.\n\nEnd\n\nThree."
    )


def test_fields_of_other_names_are_taken_as_the_job_says(tmp_path: Path) -> None:
    record = {
        "key": {"n": 5},
        "head": "T",
        "summary": "Short.",
        "parts": {"main": "Long."},
        "when": "2019-05-01",
        "more": 1,
    }
    (tmp_path / "a.jsonl").write_bytes(lines_of([record, {"key": {"n": 6}}]))
    names = {"id": "key.n", "title": "head", "text": ["summary", "parts.main"], "year": "when"}
    reader = make_reader(tmp_path, "a.jsonl", fields=names, **WHOLE)
    values = values_of(records_of(reader)[0])
    assert (values["paper_id"], values["title"], values["text"], values["year"]) == ("5", "T", "Short.\n\nLong.", 2019)
    assert values["metadata"] == {"key": {"n": 5}, "head": "T", "when": "2019-05-01", "more": 1}
    assert "source.fields.text names summary, parts.main" in str(planned(reader)[1][1].refusal)


def test_a_damaged_row_group_costs_its_own_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [{"id": str(n), "text": os.urandom(300).hex()} for n in range(10)]
    pl.DataFrame(rows).write_parquet(path, row_group_size=4, compression="zstd")
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(1).column(1)
        start, size = column.dictionary_page_offset or column.data_page_offset, column.total_compressed_size
    content = bytearray(path.read_bytes())
    content[start : start + size] = b"\xff" * size
    path.write_bytes(bytes(content))
    items, _ = planned(make_reader(tmp_path, "a.parquet", **WHOLE))
    assert [item.status for item in items] == [*["selected"] * 4, *["unreadable"] * 4, *["selected"] * 2]
    assert [(item.unit, item.count) for item in items[4:8]] == [("rows", 1)] * 4


def test_a_file_that_changed_since_the_plan_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zst(lines_of(ROWS)))
    reader = make_reader(tmp_path, path.name, **WHOLE)
    chunks = [entry.chunk for entry in planned(reader)[1]]
    path.write_bytes(zst(lines_of(ROWS[:2])))
    found = list(reader.read(chunks))
    assert texts(found)[2:] == ["source_changed"] * 8
    assert found[0].lineage["source_sizes"] == [path.stat().st_size]
    path.unlink()
    assert texts(reader.read(chunks)) == ["source_missing"] * 10


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "md", "xml"])
def test_a_name_that_is_no_text_is_read_and_recorded_without_loss(tmp_path: Path, ending: str) -> None:
    name = os.fsdecode(b"\xff [1]." + ending.encode())
    path = tmp_path / name
    if ending == "parquet":
        pl.DataFrame(ROWS[:1]).write_parquet(tmp_path / "a.parquet")
        (tmp_path / "a.parquet").rename(path)
    elif ending in ("md", "xml"):
        path.write_text("<article><body><p>Text.</p></body></article>" if ending == "xml" else "Text.")
    else:
        path.write_bytes(PACKERS.get(path.suffix, bytes)(lines_of(ROWS[:1])))
    reader = make_reader(tmp_path, "*.*", **WHOLE)
    [item], [entry] = planned(reader)
    assert item.path == encode_path(name)
    entry.label.encode("utf-8")
    assert texts(records_of(reader)) == ["Text." if ending in ("md", "xml") else ROWS[0]["text"]]


def test_keys_do_not_depend_on_where_the_corpus_lies(tmp_path: Path) -> None:
    for machine in ("one", "two"):
        (tmp_path / machine / "data").mkdir(parents=True)
        (tmp_path / machine / "data" / "a.jsonl").write_bytes(lines_of(ROWS))
    by_glob = make_reader(tmp_path / "one", "data/*.jsonl")
    elsewhere = make_reader(tmp_path, str(tmp_path / "two" / "data" / "a.jsonl"))
    keys = [[entry.chunk.key for entry in planned(reader)[1]] for reader in (by_glob, elsewhere)]
    assert keys[0] == keys[1]
    (tmp_path / "one" / "data" / "a.jsonl").write_bytes(lines_of([*ROWS, paper(11)]))
    assert [entry.chunk.key for entry in planned(by_glob)[1]][:10] == keys[0]
