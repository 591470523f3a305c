"""Several folders become one that verifies, with each chunk once; what does not go together is refused and named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import s1batch
from s1batch.errors import ConflictError, ResultsError
from s1batch.execution import RunOptions
from s1batch.merging.merge import merge_results
from s1batch.records import Row
from s1batch.results.compaction import compact
from s1batch.results.store import ResultsStore
from s1batch.results.verify import verify
from s1batch.runspec import RunSpec, write_run_spec
from s1batch.subset import Shard
from tests.archives import pick_job, write_archive
from tests.plans import MINUTE_NS, SCHEMA, minutes, row, stretch, window, write_plan
from tests.results import victim
from tests.results.finished import plain_row, rows_of, write_results


def say_what(path: Path, **answers: object) -> None:
    """Give a folder its run.json."""
    spec = RunSpec(
        s1batch="0",
        name="test",
        created="2020-01-01T00:00:00+00:00",
        job_as_written={},
        job_resolved={},
        base_dir="/",
        answers={"job.seed": 0, "source.paths": [path.name], **answers},
        model={"name": "m", "revision": "", "dtype": "", "quantisation": ""},
        engine="e",
        prompt_hash="h",
        seed=0,
        packages={},
        python="3",
        platform="p",
    )
    write_run_spec(spec, path / "run.json")


def results(path: Path, source: str = "BW.RJOB..EHZ", **options) -> list[Row]:
    entries = [
        window(i * MINUTE_NS, (i + 1) * MINUTE_NS, source=source, part=i // 4) for i in range(options.pop("count", 16))
    ]
    write_plan(path, [*entries, stretch(0, len(entries) * 6000, source=source)])
    rows = write_results(path, entries=entries, **options)
    say_what(path)
    return rows


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_two_archives_become_one_table(tmp_path):
    one = results(tmp_path / "one")
    other = results(tmp_path / "two", "BW.ROTZ..EHZ", count=9)
    before = contents(tmp_path / "one"), contents(tmp_path / "two")
    done = merge_results(tmp_path / "out", [tmp_path / "one", tmp_path / "two"])
    assert (done.chunks, done.rows, done.unfinished, done.superseded) == (25, 25, 0, 0)
    moved = [replace(each, part=each.part + 4) for each in other]
    assert rows_of(tmp_path / "out") == [*one, *moved]
    verdict = verify(tmp_path / "out")
    assert verdict.complete
    assert verdict.account is not None
    assert [(tally.archive, tally.planned) for tally in verdict.account.totals] == [(150_000, 150_000)]
    assert len(list((tmp_path / "out" / "rows").iterdir())) == 1
    assert (contents(tmp_path / "one"), contents(tmp_path / "two")) == before
    assert not list(tmp_path.glob(".*"))
    assert [each["name"] for each in json.loads((tmp_path / "out" / "run.json").read_bytes())["merged_from"]] == [
        "test"
    ] * 2


def test_shards_on_different_file_systems_become_the_whole(tmp_path):
    rows = results(tmp_path / "whole")
    results(tmp_path / "one", parts=[0, 2])
    results(tmp_path / "two", parts=[1, 3])
    compact(tmp_path / "one")
    done = merge_results(tmp_path / "out", [tmp_path / "one", tmp_path / "two"])
    assert (done.rows, done.unfinished) == (16, 0)
    assert rows_of(tmp_path / "out") == rows
    assert verify(tmp_path / "out").complete
    assert compact(tmp_path / "out").after == 1


def test_what_is_in_journals_is_taken_along(tmp_path):
    """Half of a part here and half there make a whole; what is missing stays unfinished."""
    entries = minutes(16)
    for name, chosen in (("one", (0, 1, 8)), ("two", (2, 3, 9))):
        results(tmp_path / name, parts=[1])
        with ResultsStore(tmp_path / name, SCHEMA) as store:
            for number in chosen:
                with store.open_part(number // 4) as part:
                    part.append(plain_row(number, entries[number]))
    done = merge_results(tmp_path / "out", [tmp_path / "one", tmp_path / "two"])
    assert (done.rows, done.unfinished) == (8, 2)
    with ResultsStore(tmp_path / "out", SCHEMA) as store:
        assert store.finished() == {0, 1}
        assert set(store.answered()[1][2]) == {entries[8].chunk.key, entries[9].chunk.key}
    write_results(tmp_path / "out", entries=entries)
    assert verify(tmp_path / "out").complete


def test_of_two_rows_for_one_chunk_the_better_counts_and_the_other_is_kept(tmp_path):
    results(tmp_path / "one", make=lambda number, entry: _answer(entry, number % 2 == 0, "one"))
    results(tmp_path / "two", make=lambda number, entry: _answer(entry, number % 4 > 0, "two"))
    done = merge_results(tmp_path / "out", [tmp_path / "one", tmp_path / "two"])
    assert done.superseded == 16
    texts = [(each.outcome, each.text) for each in rows_of(tmp_path / "out")]
    assert texts == [("ok", "one"), ("ok", "two"), ("ok", "one"), ("ok", "two")] * 4
    aside = pl.concat([pl.read_parquet(file) for file in (tmp_path / "out" / "superseded").iterdir()])
    assert sorted(aside["outcome"]) == ["failed"] * 12 + ["ok"] * 4
    assert verify(tmp_path / "out").complete


def _answer(entry, good: bool, text: str) -> Row:
    if good:
        return row(entry, text=text, fingerprint="f")
    return row(entry, outcome="failed", reason="connection", answer={}, text="", fingerprint="f")


def test_equal_rows_are_there_once(tmp_path):
    rows = results(tmp_path / "one")
    results(tmp_path / "two")
    assert merge_results(tmp_path / "out", [tmp_path / "one", tmp_path / "two"]).superseded == 0
    assert rows_of(tmp_path / "out") == rows


def test_a_plan_that_goes_further_adds_only_what_is_new(tmp_path):
    """The second plan has other parts, and chunks of the first among them: their rows serve the first one's parts."""
    entries = minutes(16)
    results(tmp_path / "one", parts=[0, 1])
    more = [replace(entry, part=number // 5) for number, entry in enumerate(minutes(20))]
    write_plan(tmp_path / "two", [*more, stretch(0, 96_000), stretch(96_000 * 10**7, 24_000)])
    write_results(tmp_path / "two", entries=more)
    say_what(tmp_path / "two")
    done = merge_results(tmp_path / "out", [tmp_path / "one", tmp_path / "two"])
    assert (done.chunks, done.rows, done.unfinished) == (20, 20, 0)
    assert [each.chunk_key for each in rows_of(tmp_path / "out")] == [entry.chunk.key for entry in minutes(20)]
    assert [each.part for each in rows_of(tmp_path / "out")] == [entry.part for entry in entries] + [4] * 4
    verdict = verify(tmp_path / "out")
    assert verdict.complete
    assert verdict.account is not None
    assert verdict.account.totals[0].archive == 120_000


def test_runs_over_two_times_of_one_archive_count_its_samples_once(tmp_path):
    entries = minutes(16)
    for name, chosen in (("one", entries[:8]), ("two", entries[8:])):
        mine = [replace(entry, part=number // 4) for number, entry in enumerate(chosen)]
        halves = [stretch(0, 48_000), stretch(48_000 * 10**7, 48_000)]
        other = 1 if name == "one" else 0
        halves[other] = replace(halves[other], status="not_selected", reason="time_range")
        write_plan(tmp_path / name, [*mine, *halves])
        write_results(tmp_path / name, entries=mine)
        say_what(tmp_path / name)
    merge_results(tmp_path / "out", [tmp_path / "one", tmp_path / "two"])
    verdict = verify(tmp_path / "out")
    assert verdict.complete
    assert verdict.account is not None
    (total,) = verdict.account.totals
    assert (total.archive, total.planned, total.not_selected) == (96_000, 96_000, 0)


def test_rows_that_were_asked_again_come_along(tmp_path):
    results(tmp_path / "one")
    results(tmp_path / "two", "BW.ROTZ..EHZ")
    with ResultsStore(tmp_path / "two", SCHEMA) as store:
        assert store.supersede(2, ["failed"]) == 1
    done = merge_results(tmp_path / "out", [tmp_path / "one", tmp_path / "two"])
    assert done.unfinished == 1
    (file,) = (tmp_path / "out" / "superseded").iterdir()
    assert pl.read_parquet(file)["part"].to_list() == [6]


class TestRefusals:
    def test_another_question_is_named(self, tmp_path):
        results(tmp_path / "one")
        results(tmp_path / "two", "BW.ROTZ..EHZ")
        say_what(tmp_path / "two", **{"job.seed": 7})
        with pytest.raises(ConflictError, match=r"job\.seed: 0 in .*one, 7 in .*two"):
            merge_results(tmp_path / "out", [tmp_path / "one", tmp_path / "two"])
        assert not (tmp_path / "out").exists()

    def test_one_key_for_two_questions_is_different_data(self, tmp_path):
        results(tmp_path / "one", make=lambda number, entry: row(entry, fingerprint="a"))
        results(tmp_path / "two", make=lambda number, entry: row(entry, fingerprint="b"))
        with pytest.raises(ConflictError, match=r"asked differently in .*one .*request a.* and .*two .*request b"):
            merge_results(tmp_path / "out", [tmp_path / "one", tmp_path / "two"])
        assert not (tmp_path / "out").exists()

    def test_other_files_of_the_same_name_are_refused(self, tmp_path):
        results(tmp_path / "one")
        entries = minutes(20)
        write_plan(tmp_path / "two", [*entries, replace(stretch(0, 120_000), size=5)])
        write_results(tmp_path / "two", entries=entries)
        say_what(tmp_path / "two")
        with pytest.raises(ConflictError, match=r"EHZ\.mseed .*is another file in each of.*source\.root"):
            merge_results(tmp_path / "out", [tmp_path / "one", tmp_path / "two"])

    def test_a_file_that_is_cut_differently_is_refused(self, tmp_path):
        results(tmp_path / "one")
        entries = minutes(20)
        write_plan(tmp_path / "two", [*entries, stretch(0, 100_000), stretch(100_000 * 10**7, 20_000)])
        write_results(tmp_path / "two", entries=entries)
        say_what(tmp_path / "two")
        with pytest.raises(ConflictError, match="do not add up"):
            merge_results(tmp_path / "out", [tmp_path / "one", tmp_path / "two"])

    def test_a_folder_that_is_there_is_never_written_to(self, tmp_path):
        results(tmp_path / "one")
        before = contents(tmp_path / "one")
        with pytest.raises(ConflictError, match="is there already"):
            merge_results(tmp_path / "one", [tmp_path / "one"])
        with pytest.raises(ConflictError, match="named twice"):
            merge_results(tmp_path / "out", [tmp_path / "one", tmp_path / "one"])
        assert contents(tmp_path / "one") == before

    def test_damaged_rows_are_named(self, tmp_path):
        results(tmp_path / "one")
        results(tmp_path / "two", "BW.ROTZ..EHZ")
        path = tmp_path / "two" / "rows" / "part-000001.parquet"
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(ResultsError, match="two/rows/part-000001"):
            merge_results(tmp_path / "out", [tmp_path / "one", tmp_path / "two"])
        assert not (tmp_path / "out").exists()


def test_merging_begins_anew_where_it_was_killed(tmp_path):
    rows = results(tmp_path / "one")
    left = tmp_path / ".out.merging"
    (left / "rows").mkdir(parents=True)
    (left / "rows" / "part-000099.parquet").write_bytes(b"half")
    merge_results(tmp_path / "out", [tmp_path / "one"])
    assert rows_of(tmp_path / "out") == rows
    assert not left.exists()


def test_real_shards_and_another_archive(tmp_path):
    """Runs of the command line's kind: merged, verified, shown, compacted, and gone on with."""
    archive = write_archive(tmp_path / "a")
    job = pick_job(archive)
    for index in range(2):
        s1batch.run(job, tmp_path / f"s{index}", options=RunOptions(shard=Shard(index, 2)))
    few = RunOptions(limit=20)
    s1batch.run(pick_job(write_archive(tmp_path / "b", stations=3)), tmp_path / "more", options=few)
    s1batch.run(pick_job(write_archive(tmp_path / "c", seed=1)), tmp_path / "other", options=few)
    merge_results(tmp_path / "out", [tmp_path / "s0", tmp_path / "s1"])
    merged = s1batch.open_results(tmp_path / "out")
    assert merged.verify(sources=True).complete
    assert merged.merge() is not None
    said: list[str] = []
    again = s1batch.run(job, tmp_path / "out", say=said.append)
    assert again.summary.added == 0
    assert any("nothing to do" in line for line in said)
    # A copy of the archive with a third station adds that station's windows; other files of the same names are refused.
    assert merge_results(tmp_path / "larger", [tmp_path / "out", tmp_path / "more"]).chunks == 87
    assert verify(tmp_path / "larger").ok
    with pytest.raises(ConflictError, match=r"asked differently|is another file"):
        merge_results(tmp_path / "wrong", [tmp_path / "out", tmp_path / "other"])


@pytest.mark.slow
def test_killed_before_each_step_of_merging(tmp_path):
    """The merged folder is there as a whole or not at all, and the next attempt ends the same."""
    results(tmp_path / "one", parts=[0, 2])
    results(tmp_path / "two", parts=[1])
    before = contents(tmp_path / "one"), contents(tmp_path / "two")
    expected = None
    for step in range(1, 200):
        base = tmp_path / f"m{step}"
        base.mkdir()
        out = base / "out"
        killed = victim.was_killed(_merge_both, base, tmp_path, kill_at=step)
        if out.exists():
            assert verify(out).ok
        else:
            assert killed
            _merge_both(base, tmp_path)
        expected = expected or rows_of(out)
        assert rows_of(out) == expected
        assert (contents(tmp_path / "one"), contents(tmp_path / "two")) == before
        if not killed:
            assert step > 15
            return
    pytest.fail("the child never came to its end")


def _merge_both(base: Path, folder: Path) -> None:
    merge_results(base / "out", [folder / "one", folder / "two"])
