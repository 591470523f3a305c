"""Planning passes are remembered, manifests lead nowhere else, and a run over damaged papers verifies."""

from __future__ import annotations

import gzip
import os
import re
import sqlite3
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest
import yaml
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import s1batch
from s1batch.errors import UsageError
from s1batch.execution import RunOptions, execute
from s1batch.jobfile import load_job
from s1batch.readers.papers import cache as cache_module
from s1batch.readers.papers import planner as planner_module
from s1batch.readers.papers.cache import CutCache
from s1batch.readers.papers.corpus import JsonLines
from s1batch.readers.papers.planner import Repeats
from tests.readers.papers.making import (
    SENTENCES,
    account_of,
    lines_of,
    make_reader,
    paper,
    planned,
    records_of,
    texts,
    values_of,
)
from tests.readers.papers.pdfs import one_column, pdf
from tests.readers.papers.test_markup import JATS


def damaged_corpus(folder: Path) -> Path:
    folder.mkdir()
    rows = [paper(number, sentences=10 + 20 * (number % 3)) for number in range(12)]
    (folder / "a.jsonl").write_bytes(lines_of(rows) + b'{"text": NaN}\n\xff\n')
    (folder / "b.jsonl.gz").write_bytes(
        gzip.compress(lines_of([{**row, "text": os.urandom(999).hex()} for row in rows]))[:-400]
    )
    (folder / "c.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(lines_of(rows)))
    pl.DataFrame(rows).write_parquet(folder / "d.parquet")
    (folder / "e.pdf").write_bytes(pdf([one_column(*[SENTENCES[:60]] * 40)] * 3))
    (folder / "f.pdf").write_bytes(pdf([one_column("x")], encrypted=True))
    (folder / "g.xml").write_text(JATS)
    (folder / os.fsdecode(b"h\xff.md")).write_text("# A\n\nText.\n")
    (folder / "i.tex").write_bytes(b"")
    return folder


def ask(folder: Path, **source: Any) -> dict[str, Any]:
    return {
        "source": {"kind": "papers", "paths": [f"{folder}/*"], "cache": str(folder.parent / "cache"), **source},
        "job": {"kind": "ask", "prompt": "{{ title }}, {{ section }}, page {{ page }}, {{ year }}: {{ text }}"},
        "engine": {"kind": "replay", "function": "tests.answers:echo"},
    }


@pytest.mark.parametrize("passages", [{"tokens": 300, "overlap": 30}, "whole"])
def test_a_run_over_damaged_papers_has_a_row_for_everything_and_verifies(tmp_path: Path, passages: Any) -> None:
    job = ask(damaged_corpus(tmp_path / "corpus"), passages=passages)
    results = s1batch.run(job, tmp_path / "out")
    rows = results.scan().collect()
    bad = rows.filter(pl.col("outcome") == "unreadable")
    assert sorted(bad["reason"]) == ["decode_error"] * 3 + ["empty_file", "encrypted"]
    assert rows.filter(pl.col("outcome") == "ok").height == rows.height - 5
    assert results.verify(sources=True).ok
    account = {tally.unit: tally for tally in results.account().totals}
    assert account["chars"].planned == account["chars"].archive
    assert dict(account["chars"].outcomes)["ok"] == account["chars"].archive
    assert account["bytes"].unreadable == account["bytes"].archive > 0
    again = s1batch.run(job, tmp_path / "out")
    assert again.summary.added == 0


def test_quotes_are_found_at_their_characters_of_the_whole_paper(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    text = SENTENCES * 40 + "The sea rose by 5 % in 2010. " + SENTENCES * 40
    (folder / "a.jsonl").write_bytes(lines_of([{"id": "p", "text": text}]))
    job = ask(folder, passages={"tokens": 300, "overlap": 30})
    job["job"] = {"kind": "paper-extract"}
    job["engine"] = {"kind": "replay", "function": "tests.test_science_jobs:rise"}
    rows = s1batch.run(job, tmp_path / "out").scan().collect()
    assert rows.height > 5
    found = [claim for claims in rows["claims"] for claim in claims if claim["verified"]]
    assert {text[claim["char_start"] : claim["char_end"]] for claim in found} == {"rose by 5 % in 2010"}
    assert set(rows["paper"]) == {"p"}


def test_a_run_of_a_manifest_that_leads_elsewhere_verifies(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (tmp_path / "out.md").write_text("secret")
    (folder / "a.md").write_text("Fine.")
    pl.DataFrame({"path": ["a.md", "../out.md", "gone.md"]}).write_csv(folder / "list.csv")
    job = ask(folder)
    job["source"] = {"kind": "papers", "manifest": str(folder / "list.csv"), "cache": "off"}
    results = s1batch.run(job, tmp_path / "out")
    assert sorted(results.scan().collect()["outcome"]) == ["ok", "unreadable", "unreadable"]
    assert results.verify(sources=True).ok
    (folder / "a.md").write_text("Changed.")
    assert not results.verify(sources=True).ok


def test_a_paper_that_changed_between_plan_and_run_is_a_row(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(lines_of([paper(1), paper(2)]))
    job = ask(folder)
    (folder / "b.md").write_text("Text.")
    execute(load_job(job), tmp_path / "out", RunOptions(limit=1))
    (folder / "a.jsonl").write_bytes(lines_of([paper(1), {**paper(2), "text": paper(2)["text"][::-1]}]))
    os.utime(folder / "a.jsonl", ns=(1, 1))
    results = s1batch.run(job, tmp_path / "out")
    reasons = results.scan().select("reason").collect()["reason"].to_list()
    assert sorted(reason or "" for reason in reasons) == ["", "", "source_changed"]


def test_whole_papers_that_do_not_fit_the_context_are_refused_by_the_plan(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(lines_of([paper(1), paper(2, sentences=3000)]))
    job = {**ask(folder, passages="whole"), "engine": {"kind": "reference"}}
    job["job"] = {**job["job"], "sampling": {"max_tokens": 4}}
    assert dict(s1batch.plan(job).totals.refused) == {"context_too_long": 1}


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    tokens=st.integers(30, 400),
    overlap=st.integers(0, 15),
    packed=st.booleans(),
)
def test_every_character_is_in_exactly_one_core(
    tmp_path: Path, sizes: list[int], tokens: int, overlap: int, packed: bool
) -> None:
    rows = [paper(number, sentences) for number, sentences in enumerate(sizes)]
    content = lines_of(rows)
    path = tmp_path / ("a.jsonl.zst" if packed else "a.jsonl")
    path.write_bytes(zstandard.ZstdCompressor().compress(content) if packed else content)
    reader = make_reader(tmp_path, path.name, passages={"tokens": tokens, "overlap": overlap})
    items, entries = planned(reader)
    found = account_of(items, entries)
    assert found["chars"] == found["covered"] == sum(len(row["text"]) for row in rows)
    joined: dict[str, str] = {}
    for entry, record in zip(entries, records_of(reader), strict=True):
        core = entry.chunk.core or (0, 0)
        joined.setdefault(entry.label, "")
        joined[entry.label] += values_of(record)["text"][core[0] - record.lineage["char_start"] :]
    assert joined == {row["id"]: row["text"] for row in rows}


class TestTheCache:
    def count_scans(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        scans: list[int] = []
        scan = JsonLines.scan

        def counted(self: JsonLines, path: Path, after: int = 0) -> Any:
            for found in scan(self, path, after):
                scans.append(found.place.start)
                yield found

        monkeypatch.setattr(JsonLines, "scan", counted)
        return scans

    def test_a_second_plan_reads_no_text(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(planner_module, "BLOCK_PAPERS", 3)
        path = tmp_path / "a.jsonl"
        path.write_bytes(lines_of([paper(n) for n in range(8)]) + b"no JSON\n")
        scans = self.count_scans(monkeypatch)
        reader = make_reader(tmp_path, "a.jsonl", cache="cache")
        first = list(reader.plan())
        assert len(scans) == 9
        assert list(reader.plan()) == first
        assert len(scans) == 9
        finer = make_reader(tmp_path, "a.jsonl", cache="cache", passages={"tokens": 20, "overlap": 0})
        assert len(list(finer.plan())) > len(first)
        assert len(scans) == 18
        os.utime(path, ns=(1, 1))
        list(reader.plan())
        assert len(scans) == 27

    def test_a_pass_that_was_interrupted_goes_on_behind_its_last_block(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(planner_module, "BLOCK_PAPERS", 3)
        (tmp_path / "a.jsonl").write_bytes(lines_of([paper(n) for n in range(9)]))
        scans = self.count_scans(monkeypatch)
        reader = make_reader(tmp_path, "a.jsonl", cache="cache")
        begun = cast("Generator[object]", reader.plan())
        for _ in range(2 * 8):
            next(begun)
        begun.close()
        scans.clear()
        assert list(reader.plan()) == list(make_reader(tmp_path, "a.jsonl").plan())
        assert len(scans) == 3 + 9

    def test_the_loss_at_the_end_is_remembered_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = [{"id": str(n), "text": os.urandom(500).hex()} for n in range(9)]
        (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines_of(rows))[:-700])
        scans = self.count_scans(monkeypatch)
        reader = make_reader(tmp_path, "a.jsonl.gz", cache="cache")
        first = list(reader.plan())
        scans.clear()
        assert list(reader.plan()) == first
        assert scans == []

    @pytest.mark.parametrize("damage", ["garbage", "folder", "lines"])
    def test_one_that_cannot_be_used_costs_time_only(self, tmp_path: Path, damage: str) -> None:
        (tmp_path / "a.jsonl").write_bytes(lines_of([paper(n) for n in range(3)]))
        reader = make_reader(tmp_path, "a.jsonl", cache="cache")
        expected = list(reader.plan())
        [file] = (tmp_path / "cache").glob("*.sqlite")
        if damage == "lines":
            with sqlite3.connect(file) as database:
                database.execute("update blocks set data = x'00'")
            database.close()
        else:
            file.unlink()
            file.write_bytes(b"garbage" * 1000)
        if damage == "folder":
            file.unlink()
            file.mkdir()
        assert list(reader.plan()) == expected

    def test_the_oldest_files_are_forgotten(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cache_module, "LARGEST_BYTES", 300_000)
        with CutCache(tmp_path) as cache:
            for number in range(10):
                cache.put(f"f{number}", 0, [os.urandom(40_000).hex()])
        with CutCache(tmp_path) as cache:
            known = [number for number in range(10) if list(cache.blocks(f"f{number}"))]
        assert known
        assert known == list(range(10 - len(known), 10))
        assert len(known) < 8


def test_names_that_came_before_are_known_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Repeats, "_RECENT", 7)
    repeats = Repeats()
    assert not any(repeats.add(f"n{number}") for number in range(50))
    assert all(repeats.add(f"n{number}") for number in range(50))


def test_the_job_files_of_the_documentation_load() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "papers.md").read_text()
    blocks = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    [whole, fields] = blocks
    assert load_job(whole).spec.source.kind == "papers"
    source = {**whole["source"], **fields}
    assert load_job({**whole, "source": source}).spec.source.kind == "papers"


class TestFiles:
    def test_a_manifest_leads_nowhere_else(self, tmp_path: Path) -> None:
        (tmp_path / "in" / "sub").mkdir(parents=True)
        (tmp_path / "out.md").write_text("secret")
        (tmp_path / "in" / "sub" / "a.md").write_text("Fine.")
        names = ["sub/a.md", "../out.md", str(tmp_path / "out.md"), "sub/../sub/a.md", "gone.md"]
        pl.DataFrame({"path": names, "note": "x"}).write_csv(tmp_path / "in" / "list.csv")
        reader = make_reader(tmp_path, manifest="in/list.csv")
        items, entries = planned(reader)
        assert {(item.path, item.status, item.reason) for item in items} == {
            ("../out.md", "unreadable", "not_readable"),
            (str(tmp_path / "out.md"), "unreadable", "not_readable"),
            ("gone.md", "unreadable", "source_missing"),
            ("sub/a.md", "selected", ""),
        }
        assert sorted(texts(reader.read([entry.chunk for entry in entries]))) == [
            "Fine.",
            "not_readable",
            "not_readable",
            "source_missing",
        ]

    def test_links_in_circles_and_broken_links_cost_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "a.md").write_text("Text.")
        (tmp_path / "sub" / "up").symlink_to(tmp_path)
        (tmp_path / "b.md").symlink_to(tmp_path / "nothing")
        items, _ = planned(make_reader(tmp_path, "**/*.md"))
        assert [(item.path, item.status) for item in items] == [("b.md", "unreadable"), ("sub/a.md", "selected")]

    def test_a_path_that_matches_nothing_is_an_error_of_the_job(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="matches no file"):
            planned(make_reader(tmp_path, "*.pdf"))
        with pytest.raises(UsageError, match="lies outside"):
            planned(make_reader(tmp_path, "*.pdf", "a.pdf", root="sub"))
