"""Joins: every piece of the primary source ends in one chunk, and every piece of a partner is counted once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import s1batch
from s1batch.execution import RunOptions
from s1batch.jobfile import load_job
from s1batch.readers.join.addresses import Names
from s1batch.readers.join.reader import JoinReader, _Stream
from s1batch.records import Address, Chunk, Fields, Record, Slice
from tests.engine.reference.conftest import picture
from tests.readers.join.joins import ECHO, join_job, planned, reader_of, tally, two_tables, wave_job

KEYS = st.lists(st.one_of(st.none(), st.integers(0, 6).map(str)), max_size=14)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=KEYS, right=KEYS, many=st.booleans(), alone=st.booleans())
def test_any_two_tables_with_any_keys(
    tmp_path: Path, left: list[Any], right: list[Any], many: bool, alone: bool
) -> None:
    figures = pl.DataFrame({"id": left, "n": range(len(left))}, schema={"id": pl.String, "n": pl.Int64})
    papers = pl.DataFrame({"key": right, "m": range(len(right))}, schema={"key": pl.String, "m": pl.Int64})
    fields: dict[str, Any] = {
        "primary": "figure",
        "on": {"figure": "id", "paper": "key"},
        "many": ["paper"] if many else [],
        "missing": "alone" if alone else "refuse",
    }
    job = join_job(two_tables(tmp_path, figures, papers), **fields)
    reader = reader_of(job, tmp_path)
    _, entries = planned(reader)
    used: set[int] = set()
    questions = []
    for record, entry in zip(reader.read([entry.chunk for entry in entries]), entries, strict=True):
        assert isinstance(record.payload, Fields)
        values = record.payload.values
        figure, paper = values["figure"], values["paper"]
        partners = paper if many else [paper] if paper else []
        assert all(partner["key"] == figure["id"] for partner in partners)
        wanted = [m for m, key in enumerate(right) if key == figure["id"] and key is not None]
        assert [int(partner["m"]) for partner in partners] == (wanted if many else wanted[:1])
        assert (entry.refusal is None) == (alone or bool(wanted))
        assert entry.refusal is None or entry.refusal.reason == "no_match"
        used.update(int(partner["m"]) for partner in partners)
        questions.append(figure["n"])
    assert questions == list(range(len(left)))
    assert len({entry.chunk.key for entry in entries}) == len(entries)
    account = s1batch.plan(load_job(job, base_dir=tmp_path)).account
    assert account.balanced
    if left:
        assert tally(account, "").archive == len(left)
        asked = sum(entry.refusal is None for entry in entries)
        assert (tally(account, "").planned, tally(account, "").refused) == (asked, len(left) - asked)
    if right:
        partner = tally(account, "paper/")
        assert (partner.archive, partner.planned, partner.not_selected) == (
            len(right), len(used), len(right) - len(used),
        )  # fmt: skip


INTERVALS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=10)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=INTERVALS, right=INTERVALS, tolerance=st.integers(0, 5))
def test_any_two_tables_with_any_times(tmp_path: Path, left: list[Any], right: list[Any], tolerance: int) -> None:
    """What overlaps belongs together, as a search through all pairs says."""

    def frame(intervals: list[tuple[int, int]]) -> pl.DataFrame:
        return pl.DataFrame(
            {"t": [start for start, _ in intervals], "u": [start + length for start, length in intervals]},
            schema={"t": pl.Int64, "u": pl.Int64},
        )

    sources = two_tables(tmp_path, frame(left), frame(right))
    sources["paper"] = {"kind": "table", "path": "papers.parquet"}
    frame(right).write_parquet(tmp_path / "papers.parquet")
    fields: dict[str, Any] = {"primary": "figure", "by": "time", "time": {"figure": ["t", "u"], "paper": ["t", "u"]}}
    job = join_job(sources, **fields, tolerance=f"{tolerance}s", many="paper", missing="alone")
    reader = reader_of(job, tmp_path)
    _, entries = planned(reader)
    assert len(entries) == len(left)
    for (start, length), record in zip(left, reader.read([entry.chunk for entry in entries]), strict=True):
        assert isinstance(record.payload, Fields)
        stop = start + length if length else start + 1e-9
        wanted = [
            (a, a + size)
            for a, size in sorted(right, key=lambda one: one[0])
            if a < stop + tolerance and (a + size if size else a + 1e-9) > start - tolerance
        ]
        found = [(partner["t"], partner["u"]) for partner in record.payload.values["paper"]]
        assert sorted(found) == sorted(wanted)
        assert [a for a, _ in found] == [a for a, _ in wanted]


def test_the_nearest_partner_in_time_is_taken(tmp_path: Path) -> None:
    sources = two_tables(
        tmp_path, pl.DataFrame({"t": [10.0, 50.0, 90.0]}), pl.DataFrame({"t": [8.0, 11.5, 47.0, 70.0]})
    )
    sources["paper"] = {"kind": "table", "path": "papers.parquet"}
    pl.DataFrame({"t": [8.0, 11.5, 47.0, 70.0]}).write_parquet(tmp_path / "papers.parquet")
    fields: dict[str, Any] = {
        "primary": "figure",
        "by": "time",
        "time": {"figure": "t", "paper": "t"},
        "tolerance": "5s",
    }
    reader = reader_of(join_job(sources, **fields, missing="alone"), tmp_path)
    _, entries = planned(reader)
    values = [
        record.payload.values["paper"]
        for record in reader.read([entry.chunk for entry in entries])
        if isinstance(record.payload, Fields)
    ]
    assert [partner and partner["t"] for partner in values] == [11.5, 47.0, None]


def test_windows_of_waveforms_meet_the_events_of_their_time(waves: Path, tmp_path: Path) -> None:
    prompt = "{{ wave.station }} {{ start }} {% for e in events %}{{ e.magnitude }} {% endfor %}"
    results = s1batch.run(load_job(wave_job(prompt, missing="alone"), base_dir=waves), tmp_path / "out")
    rows = results.scan().collect()
    assert results.summary.outcomes == {"ok": 10}
    by_window = {(line["station"], line["start"].minute): line["events_row_index"] for line in rows.to_dicts()}
    for station in ("AAA", "BBB"):
        assert [by_window[station, minute] for minute in range(5)] == [[0, 1], [2], [], [], []]
    account = results.account()
    assert account.balanced
    assert (tally(account, "events/").planned, tally(account, "events/").not_selected) == (3, 1)
    samples = [tally for tally in account.tallies if tally.unit == "samples"]
    assert len(samples) == 6
    assert all(tally.planned == tally.archive == 30_000 for tally in samples)
    assert results.verify(sources=True).complete


def test_times_and_keys_may_both_be_asked_for(waves: Path) -> None:
    job = wave_job(on={"wave": "chunk.station", "events": "station"})
    reader = reader_of(job, waves)
    _, entries = planned(reader)
    answered = [entry for entry in entries if entry.refusal is None]
    assert [(entry.label.split(".")[1], len(entry.chunk.inputs)) for entry in answered] == [
        ("AAA", 4), ("AAA", 4), ("BBB", 4),
    ]  # fmt: skip
    assert all(entry.series is not None and entry.series.steps == 6000 for entry in answered)
    (record,) = reader.read([answered[2].chunk])
    assert isinstance(record.payload, Fields)
    assert record.payload.values["events"][0]["magnitude"] == "2.0"
    assert record.payload.series[0].channels == tuple(record.lineage["channels"])


def test_a_waveform_may_be_the_partner_of_a_table(waves: Path, tmp_path: Path) -> None:
    """Of its samples what no event calls for is not selected, to the sample."""
    job = wave_job("{{ events.magnitude }} {{ wave.station }}", primary="events", many=[])
    job["source"]["on"] = {"wave": "chunk.station", "events": "station"}
    results = s1batch.run(load_job(job, base_dir=waves), tmp_path / "out")
    assert results.summary.outcomes == {"ok": 3, "refused": 1}
    account = results.account()
    assert account.balanced
    assert (tally(account, "").planned, tally(account, "").refused) == (3, 1)
    found = {tally.source: (tally.planned, tally.not_selected) for tally in account.tallies if tally.unit == "samples"}
    assert {source: counts for source, counts in found.items() if source.endswith("HHZ")} == {
        "wave/XX.AAA..HHZ": (12_000, 18_000),
        "wave/XX.BBB..HHZ": (6_000, 24_000),
    }
    assert results.verify(sources=True).complete


def test_several_images_and_a_series_come_into_one_prompt(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(picture(64, 48).data)
    figures = pl.DataFrame({"id": [1, 2], "file": [["a.png", "b.png"], ["a.png"]], "rate": [50.0, 100.0]})
    figures.write_parquet(tmp_path / "figures.parquet")
    pl.DataFrame({"id": [1, 1, 2], "map": ["b.png", "a.png", "b.png"]}).write_csv(tmp_path / "maps.csv")
    pl.DataFrame({"id": [1, 2], "wave": [[float(i) for i in range(100)]] * 2}).write_parquet(tmp_path / "w.parquet")
    sources = {
        "figure": {"kind": "table", "path": "figures.parquet", "images": "file"},
        "maps": {"kind": "table", "path": "maps.csv", "images": "map"},
        "wave": {"kind": "table", "path": "w.parquet", "series": "wave", "rate_hz": 20.0},
    }
    job = join_job(sources, primary="figure", on=dict.fromkeys(sources, "id"), many="maps")
    reader = reader_of(job, tmp_path)
    _, entries = planned(reader)
    assert [(entry.images, entry.n_series) for entry in entries] == [(3, 1), (2, 1)]
    records = list(reader.read([entry.chunk for entry in entries]))
    payloads = [record.payload for record in records]
    assert all(isinstance(payload, Fields) for payload in payloads)
    assert [(len(p.images), len(p.series)) for p in payloads if isinstance(p, Fields)] == [(4, 1), (2, 1)]
    assert records[0].lineage["maps_image_files"] == [["b.png"], ["a.png"]]


def test_the_plan_says_which_mix_the_engine_forbids_and_offers_the_plot(tmp_path: Path) -> None:
    from s1batch.plan_report import plan_lines

    (tmp_path / "a.png").write_bytes(picture(64, 48).data)
    pl.DataFrame({"id": [1], "file": ["a.png"]}).write_csv(tmp_path / "f.csv")
    pl.DataFrame({"id": [1], "wave": [[float(i) for i in range(100)]]}).write_parquet(tmp_path / "w.parquet")
    sources = {
        "figure": {"kind": "table", "path": "f.csv", "images": "file"},
        "wave": {"kind": "table", "path": "w.parquet", "series": "wave", "rate_hz": 20.0},
    }
    job = join_job(sources, primary="figure", on=dict.fromkeys(sources, "id"))
    job["engine"] = {"kind": "http", "urls": ["http://localhost:1/v1"], "model": "m", "dialect": "lmdeploy"}
    refused = s1batch.plan(load_job(job, base_dir=tmp_path), offline=True)
    assert refused.totals.refused == {"series_with_image": 1}
    assert any("render: image" in line for line in plan_lines(refused))
    job["job"]["render"] = "image"
    drawn = s1batch.plan(load_job(job, base_dir=tmp_path), offline=True)
    assert drawn.totals.refused == {}


def test_broken_pieces_of_either_side_are_rows_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "figures.jsonl").write_text('{"id": 1}\n{"id": \n{"id": 2}\n')
    (tmp_path / "papers.jsonl").write_text('{"id": 2}\nnothing\n{"id": 1}\n')
    (tmp_path / "papers.parquet").write_bytes(b"PAR1")
    sources = {
        "figure": {"kind": "table", "path": "figures.jsonl"},
        "paper": {"kind": "table", "path": "papers.*"},
    }
    job = join_job(sources, primary="figure", on=dict.fromkeys(sources, "id"))
    results = s1batch.run(load_job(job, base_dir=tmp_path), tmp_path / "out")
    rows = results.scan().collect()
    assert rows.group_by("outcome").len().sort("outcome").rows() == [("ok", 2), ("unreadable", 3)]
    details = sorted(rows.filter(pl.col("outcome") == "unreadable")["detail"])
    assert [detail.split(":")[0] for detail in details] == ["figure", "paper", "paper"]
    account = results.account()
    assert account.balanced
    assert tally(account, "").refused == 1
    assert results.verify(sources=True).complete


def test_results_join_with_what_they_were_made_of_and_extend(tmp_path: Path) -> None:
    """A chain: a table is asked about, and its rows meet a second table."""
    (tmp_path / "in").mkdir()
    pl.DataFrame({"name": ["quartz", "oak"]}).write_csv(tmp_path / "in" / "a.csv")
    pl.DataFrame({"first": ["q", "o", "b"], "note": ["hard", "brown", "dark"]}).write_csv(tmp_path / "notes.csv")
    first = {
        "source": {"kind": "table", "path": "in/*.csv"},
        "job": {
            "kind": "ask",
            "prompt": "{{ name }}",
            "schema": {"type": "object", "properties": {"first": {"type": "string"}}},
            "show_schema": False,
        },
        "engine": ECHO,
    }
    sources = {"answer": {"kind": "results", "path": "first"}, "note": {"kind": "table", "path": "notes.csv"}}
    second = join_job(
        sources, "{{ answer.first }} {{ note.note }}", primary="answer", on=dict.fromkeys(sources, "first")
    )
    s1batch.run(load_job(first, base_dir=tmp_path), tmp_path / "first")
    results = s1batch.run(load_job(second, base_dir=tmp_path), tmp_path / "second")
    assert results.summary.outcomes == {"ok": 2}
    pl.DataFrame({"name": ["basalt", "zircon"]}).write_csv(tmp_path / "in" / "b.csv")
    extend = RunOptions(extend=True)
    s1batch.run(load_job(first, base_dir=tmp_path), tmp_path / "first", options=extend)
    results = s1batch.run(load_job(second, base_dir=tmp_path), tmp_path / "second", options=extend)
    assert results.summary.outcomes == {"ok": 3, "refused": 1}
    assert tally(results.account(), "note/").planned == 3
    assert results.verify(sources=True).complete
    changed = pl.read_parquet(tmp_path / "first" / "rows" / "part-000000.parquet")
    changed.write_parquet(tmp_path / "first" / "rows" / "part-000000.parquet", compression="gzip")
    assert [finding.code for finding in results.verify(sources=True).findings] == ["source_changed"]


def test_a_partner_that_many_share_is_read_once(tmp_path: Path) -> None:
    figures = pl.DataFrame({"id": ["x"] * 40 + ["y"] * 40 + ["x"] * 40})
    job = join_job(
        two_tables(tmp_path, figures, pl.DataFrame({"key": ["x", "y"]})), primary="figure",
        on={"figure": "id", "paper": "key"},
    )  # fmt: skip
    reader = reader_of(job, tmp_path)
    _, entries = planned(reader)
    counted: list[int] = []
    papers = reader.readers["paper"]

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(papers, name)

        def read(self, chunks: Any) -> Any:
            counted.append(len(chunks))
            return papers.read(chunks)

    watched = JoinReader({**reader.readers, "paper": Counting()}, reader.rules)
    records = list(watched.read([entry.chunk for entry in entries]))
    keys = [record.payload.values["paper"]["key"] for record in records if isinstance(record.payload, Fields)]
    assert keys == figures["id"].to_list()
    assert counted == [2]


@given(wanted=st.lists(st.integers(0, 9), max_size=60), kept=st.integers(0, 5))
def test_a_stream_gives_the_records_in_the_order_in_which_they_are_wanted(wanted: list[int], kept: int) -> None:
    chunks = [Chunk((Address(root="a", path="t", slices=(Slice(dim="rows", start=n, stop=n + 1),)),)) for n in wanted]
    stream = _Stream(lambda asked: (Record(chunk=chunk) for chunk in asked), chunks, kept)
    assert [stream.take().chunk for _ in wanted] == chunks


@given(
    pieces=st.lists(
        st.tuples(
            st.sampled_from(["wave", "events", "map"]),
            st.lists(st.tuples(st.text("ab./", max_size=3), st.sampled_from(["archive", "results"])), min_size=1),
        ),
        max_size=5,
    )
)
def test_addresses_stand_side_by_side_and_come_apart_again(pieces: list[tuple[str, list[tuple[str, str]]]]) -> None:
    pieces = [("wave", [("x", "archive")]), *sorted((p for p in pieces if p[0] != "wave"), key=lambda p: p[0])]
    given_pieces = [
        (alias, Chunk(tuple(Address(source=path, root=root, path=path or "p") for path, root in inputs)))
        for alias, inputs in pieces
    ]
    names = Names("wave")
    chunk = names.joined(given_pieces)
    assert names.parted(chunk) == given_pieces
    assert names.joined(names.parted(chunk)).key == chunk.key
