"""Whole runs in this process: every planned chunk ends in one row, and running again goes on or does nothing."""

from __future__ import annotations

import os
import threading

import numpy as np
import polars as pl
import pytest

import s1batch
from s1batch.engine.rules import RULES
from s1batch.errors import ConflictError, Interrupted, LockedError, UsageError
from s1batch.execution import RunOptions
from s1batch.plan_store import PlanStore
from s1batch.planning import check_shared_endpoints
from s1batch.subset import Shard
from tests.archives import START, pick_job, write_archive, write_trace

VOLATILE = ["seconds"]


@pytest.fixture
def archive(tmp_path):
    return write_archive(tmp_path / "archive")


def table(results, *columns):
    frame = results.scan().collect().drop(VOLATILE).sort("chunk_key")
    return frame.select(columns) if columns else frame


class TestARun:
    def test_ends_with_one_row_for_every_chunk_and_verifies(self, archive, tmp_path):
        results = s1batch.run(pick_job(archive), tmp_path / "out")
        assert results.summary.exit_code == 0
        assert results.scan().collect().height == results.summary.chunks == 58
        assert results.verify().ok
        assert results.verify(sources=True).ok

    def test_finds_the_loudest_sample_at_its_time(self, archive, tmp_path):
        results = s1batch.run(pick_job(archive), tmp_path / "out")
        for row in results.scan().collect().iter_rows(named=True):
            assert row["p_time"].timestamp() == pytest.approx(row["start"].timestamp() + row["p_index"] / 100, abs=1e-6)

    def test_again_does_nothing_and_says_so(self, archive, tmp_path):
        s1batch.run(pick_job(archive), tmp_path / "out")
        said: list[str] = []
        again = s1batch.run(pick_job(archive), tmp_path / "out", say=said.append)
        assert again.summary.added == 0
        assert any("nothing to do" in line for line in said)

    def test_rows_do_not_depend_on_parts_or_prefetch(self, archive, tmp_path):
        one = s1batch.run(pick_job(archive), tmp_path / "one")
        other = s1batch.run(
            pick_job(archive, run={"part_chunks": 3, "prefetch": 1, "parts_in_flight": 1}), tmp_path / "other"
        )
        assert table(one).drop("part").equals(table(other).drop("part"))

    def test_gives_a_broken_file_its_own_row_and_loses_nothing_else(self, archive, tmp_path):
        (archive / "broken.mseed").write_bytes(b"not a seismogram\n")
        results = s1batch.run(pick_job(archive), tmp_path / "out")
        rows = results.scan().collect()
        assert rows.filter(pl.col("outcome") == "ok").height == 58
        (broken,) = rows.filter(pl.col("outcome") != "ok").iter_rows(named=True)
        assert (broken["outcome"], broken["reason"]) == ("unreadable", "unknown_format")
        assert results.summary.exit_code == 3
        assert results.verify().ok

    def test_notices_a_file_that_changed_since_the_plan(self, archive, tmp_path):
        job = pick_job(archive)
        s1batch.run(job, tmp_path / "out", options=RunOptions(limit=1))
        write_trace(archive / "S01.HHZ.mseed", np.zeros(30_000), station="S01")
        results = s1batch.run(job, tmp_path / "out")
        changed = results.scan().filter(pl.col("reason") == "source_changed").collect()
        assert changed.height == 29
        assert set(changed["outcome"]) == {"unreadable"}
        assert results.verify().ok
        assert not results.verify(sources=True).ok


class TestSubsets:
    def test_a_limit_is_judged_on_its_chunks_and_the_rest_follows_later(self, archive, tmp_path):
        part = s1batch.run(pick_job(archive), tmp_path / "out", options=RunOptions(limit=11))
        assert (part.summary.chunks, part.summary.exit_code) == (11, 0)
        again = s1batch.run(pick_job(archive), tmp_path / "out", options=RunOptions(limit=11))
        assert again.summary.added == 0
        rest = s1batch.run(pick_job(archive), tmp_path / "out")
        assert rest.summary.added == 58 - 11

    def test_shards_together_are_the_whole_run(self, archive, tmp_path):
        whole = s1batch.run(pick_job(archive), tmp_path / "whole")
        for index in range(3):
            sharded = s1batch.run(pick_job(archive), tmp_path / "out", options=RunOptions(shard=Shard(index, 3)))
            assert sharded.summary.exit_code == 0
        assert table(s1batch.open_results(tmp_path / "out")).equals(table(whole))

    @pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "a/b", "0/0", "1/2/3"])
    def test_a_malformed_shard_is_a_usage_error(self, text):
        with pytest.raises(UsageError, match="i/N"):
            Shard.parse(text)


class TestGoingOn:
    def test_failed_rows_can_be_asked_again(self, archive, tmp_path, monkeypatch):
        monkeypatch.setenv("MENDED", str(tmp_path / "mended"))
        job = pick_job(archive, "sometimes")
        first = s1batch.run(job, tmp_path / "out")
        failed = first.summary.outcomes["failed"]
        assert failed > 0
        assert first.summary.exit_code == 3
        (tmp_path / "mended").touch()
        second = s1batch.run(job, tmp_path / "out", options=RunOptions(retry=("failed",)))
        assert second.summary.outcomes == {"ok": 58}
        assert second.verify().ok

    def test_new_files_are_noticed_and_added_on_request(self, archive, tmp_path):
        job = pick_job(archive)
        before = table(s1batch.run(job, tmp_path / "out"))
        write_trace(archive / "new.mseed", np.arange(6000), station="NEW", start=START + 86_400)
        said: list[str] = []
        s1batch.run(job, tmp_path / "out", say=said.append)
        assert any("1 new file is not in the plan" in line for line in said)
        extended = s1batch.run(job, tmp_path / "out", options=RunOptions(extend=True))
        assert extended.summary.added == 5
        verdict = extended.verify()
        assert verdict.complete
        assert verdict.account is not None
        assert [tally.archive for tally in verdict.account.totals] == [2 * 3 * 30_000 + 6000]
        after = table(extended)
        assert after.filter(pl.col("chunk_key").is_in(before["chunk_key"].to_list())).equals(before)

    def test_another_question_is_refused_with_the_field_named(self, archive, tmp_path):
        s1batch.run(pick_job(archive), tmp_path / "out")
        with pytest.raises(ConflictError, match=r"window\.overlap: '50%' there, '0%' now"):
            s1batch.run(pick_job(archive, window={"length": "20s"}), tmp_path / "out")

    def test_another_place_of_work_is_not_refused(self, archive, tmp_path):
        s1batch.run(pick_job(archive), tmp_path / "out")
        s1batch.run(pick_job(archive, name="other", run={"parts_in_flight": 2, "drain_s": 1}), tmp_path / "out")

    def test_a_second_run_at_the_same_time_is_refused(self, archive, tmp_path, monkeypatch):
        monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
        stop = threading.Event()
        going = threading.Event()

        def say(line):
            if line.startswith("scheduler"):
                going.set()

        def first():
            with pytest.raises(Interrupted):
                s1batch.run(pick_job(archive, "slowly"), tmp_path / "out", say=say, stop=stop)

        monkeypatch.setattr("s1batch.assembly.REPLAY_IN_FLIGHT", 1)
        thread = threading.Thread(target=first)
        thread.start()
        assert going.wait(200)
        try:
            with pytest.raises(LockedError):
                s1batch.run(pick_job(archive, "slowly"), tmp_path / "out")
        finally:
            stop.set()
            thread.join()
        monkeypatch.undo()
        monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
        results = s1batch.run(pick_job(archive, "slowly"), tmp_path / "out")
        assert results.summary.outcomes == {"ok": 58}
        asked = (tmp_path / "asked").read_text().split()
        assert len(asked) == len(set(asked)) == 58


class TestTheTable:
    def test_reads_with_plain_polars_and_holds_the_common_columns_first(self, archive, tmp_path):
        s1batch.run(pick_job(archive), tmp_path / "out")
        names = pl.read_parquet(tmp_path / "out/rows/*.parquet").columns
        assert names[:5] == ["chunk_key", "part", "source", "start", "end"]
        assert names[-5:] == ["contain", "p_index", "s_index", "p_time", "s_time"]

    def test_merges_picks_over_overlapping_windows(self, archive, tmp_path):
        results = s1batch.run(pick_job(archive), tmp_path / "out")
        merged = results.merged().collect()
        rows = results.scan().collect()
        assert 0 < merged.height < 2 * rows.height
        assert set(merged["source_chunk_keys"].explode()) <= set(rows["chunk_key"])

    def test_run_json_tells_what_was_run_and_holds_no_secret(self, archive, tmp_path, monkeypatch):
        monkeypatch.setenv("S1_KEY", "very-secret")
        results = s1batch.run(pick_job(archive), tmp_path / "out")
        spec = results.run_spec
        assert spec.model["name"] == "tests.answers:loudest"
        assert spec.job_resolved["window"]["tail"] == "shift"
        assert spec.packages["polars"]
        for path in (tmp_path / "out").rglob("*"):
            if path.is_file():
                assert os.environ["S1_KEY"].encode() not in path.read_bytes()


class TestSharedEndpoints:
    """Several clients cannot keep series of different shapes apart, so such a plan is refused there."""

    @pytest.fixture
    def plan(self, archive, tmp_path):
        write_trace(archive / "slow.mseed", np.arange(3000), station="SLOW", rate=50.0)
        s1batch.run(pick_job(archive), tmp_path / "out")
        return PlanStore(tmp_path / "out")

    def test_mixed_shapes_are_refused_with_what_to_do(self, plan):
        with pytest.raises(UsageError, match=r"2 different shapes.*single_prefill"):
            check_shared_endpoints(RULES["lmdeploy"], plan)

    def test_an_engine_that_takes_them_together_may_be_shared(self, plan):
        check_shared_endpoints(RULES["lmdeploy_single_prefill"], plan)

    def test_one_shape_may_be_shared(self, archive, tmp_path):
        s1batch.run(pick_job(archive), tmp_path / "out")
        check_shared_endpoints(RULES["lmdeploy"], PlanStore(tmp_path / "out"))
