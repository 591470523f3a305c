"""A million samples with three hidden events, under each policy: what is found, what it costs, and what is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

import s1batch
from s1batch.errors import JobFileError
from s1batch.execution import RunOptions
from s1batch.plan_report import plan_dict, plan_lines
from s1batch.subset import Shard
from tests.archives import START, pick_job, write_trace

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = 1_000_000
EVENTS = (123_456, 456_789, 876_543)
LONGEST = 240_000
FINE = {"scan_rate_hz": 1, "length": "60s"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, and three pulses of half a second, each with one sample that is the largest."""
    folder = tmp_path_factory.mktemp("million")
    values = np.random.default_rng(5).normal(0, 100, SAMPLES)
    around = np.arange(-1000, 1000)
    for event in EVENTS:
        values[event - 1000 : event + 1000] += 20_000 * np.exp(-((around / 30) ** 2))
        values[event] += 8000
    write_trace(folder / "a.mseed", values)
    return folder


def million_job(archive: Path, policy: str, function: str = "hidden", **changes: Any) -> dict[str, Any]:
    job = pick_job(archive, function, long_series=policy)
    job["source"]["components"] = "Z"
    overlap = "10%" if policy == "coarse_to_fine" else "0%"
    job["window"] = {"length": 300_000, "overlap": overlap, "longest_samples": LONGEST}
    if policy == "coarse_to_fine":
        job["coarse_to_fine"] = FINE
    return {**job, **changes}


def found_samples(results: s1batch.Results) -> list[float]:
    merged = results.merged().collect()
    start_ns = START.ns
    return [(time_ns - start_ns) / 1e7 for time_ns in merged["time"].cast(pl.Int64)]


def asked_tokens(results: s1batch.Results) -> int:
    """Prompt tokens of what was asked, by the plan's formulas."""
    rows = results.scan().filter(pl.col("outcome") != "skipped").select("chunk_key").collect()
    plan = pl.read_parquet(results.path / "plan*.parquet")
    return int(plan.join(rows, on="chunk_key", how="semi")["prompt_tokens"].sum())


def comparable(results: s1batch.Results) -> pl.DataFrame:
    return results.scan().collect().drop("seconds").sort("chunk_key")


class TestThreeHiddenEvents:
    def test_split_and_coarse_to_fine_find_the_sample_and_decimate_its_neighbourhood(self, archive, tmp_path):
        results = {
            policy: s1batch.run(million_job(archive, policy), tmp_path / policy)
            for policy in ("split", "decimate", "coarse_to_fine")
        }
        for policy, found in results.items():
            verdict = found.verify(sources=True)
            assert verdict.complete, (policy, verdict.findings)
            assert verdict.account is not None
            (total,) = verdict.account.totals
            assert (total.archive, total.planned, total.missing) == (SAMPLES, SAMPLES, 0)
            assert found.summary.exit_code == 0
        assert found_samples(results["split"]) == list(EVENTS)
        assert found_samples(results["coarse_to_fine"]) == list(EVENTS)
        for event, sample in zip(EVENTS, found_samples(results["decimate"]), strict=True):
            assert abs(sample - event) <= 2
        assert asked_tokens(results["coarse_to_fine"]) < 0.3 * asked_tokens(results["split"])

    def test_rows_say_at_which_rate_they_were_sent(self, archive, tmp_path):
        rows = s1batch.run(million_job(archive, "decimate"), tmp_path / "out").scan().collect()
        assert set(rows.select("rate_hz", "rate_sent_hz", "decimation", "steps").rows()) == {(100.0, 50.0, 2, 150_000)}

    def test_samples_that_only_a_scan_saw_count_as_skipped(self, archive, tmp_path):
        results = s1batch.run(million_job(archive, "coarse_to_fine"), tmp_path / "out")
        (total,) = results.account().totals
        outcomes = dict(total.outcomes)
        asked = results.scan().filter((pl.col("decimation") == 1) & (pl.col("outcome") == "ok")).collect()
        assert 0 < outcomes["ok"] <= asked["steps"].sum()
        assert outcomes["ok"] + outcomes["skipped"] == SAMPLES

    def test_a_scan_without_a_usable_answer_calls_for_all_its_windows(self, archive, tmp_path):
        results = s1batch.run(million_job(archive, "coarse_to_fine", "scan_fails"), tmp_path / "out")
        rows = results.scan().collect()
        assert set(rows.filter(pl.col("decimation") > 1)["outcome"]) == {"unparsed"}
        assert rows.filter(pl.col("outcome") == "skipped").is_empty()
        assert found_samples(results) == list(EVENTS)
        assert results.verify().ok

    def test_a_coarse_pick_counts_where_no_window_at_the_full_rate_is_answered(self, archive, tmp_path):
        results = s1batch.run(million_job(archive, "coarse_to_fine", "only_scans"), tmp_path / "out")
        picks = found_samples(results)
        assert [abs(sample - event) <= 100 for event, sample in zip(EVENTS, picks, strict=True)] == [True] * 3
        assert results.merged().collect()["rate_hz"].to_list() == [1.0] * 3
        assert results.summary.exit_code == 3


class TestThePlan:
    def test_tells_scans_conditional_windows_and_the_range_of_tokens(self, archive):
        plan = s1batch.plan(million_job(archive, "coarse_to_fine"))
        text = "\n".join(plan_lines(plan))
        told = plan_dict(plan)
        assert told["scans"] == 4
        assert "4 scans at a lower rate first; 187 windows only where a scan calls for it" in text
        assert "3 x (3000, 1) at 1 Hz" in text
        assert told["least"]["asked"] == 4
        assert f"{told['least']['prompt_tokens']:,} to {told['prompt_tokens']:,}" in text

    def test_decimation_shows_what_is_sent(self, archive):
        text = "\n".join(plan_lines(s1batch.plan(million_job(archive, "decimate"))))
        assert "series sent: 4 x (150000, 1) at 50 Hz" in text

    def test_small_parts_hold_a_scan_and_all_that_depends_on_it(self, archive, tmp_path):
        job = million_job(archive, "coarse_to_fine", run={"part_chunks": 1})
        s1batch.plan(job, folder=tmp_path)
        lines = pl.read_parquet(tmp_path / "plan.parquet")
        assert lines["part"].n_unique() == 4
        scans = lines.filter("is_scan").select("part", condition="chunk_key")
        windows = lines.filter(pl.col("condition").is_not_null())
        assert windows.join(scans, on=["part", "condition"], how="semi").height == windows.height == 187

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"long_series": "split"}, "coarse_to_fine has no meaning"),
            ({"job": {"kind": "ask", "prompt": "what?"}}, "needs answers that name places"),
        ],
    )
    def test_a_block_that_does_nothing_is_refused(self, archive, changes, words):
        with pytest.raises(JobFileError, match=words):
            s1batch.plan(million_job(archive, "coarse_to_fine", **changes))


class TestRunsInPieces:
    def test_shards_parts_and_limits_end_in_the_same_rows(self, archive, tmp_path):
        whole = s1batch.run(million_job(archive, "coarse_to_fine"), tmp_path / "whole")
        job = million_job(archive, "coarse_to_fine", run={"part_chunks": 1, "prefetch": 1})
        for limit in (1, 60):
            s1batch.run(job, tmp_path / "out", options=RunOptions(limit=limit))
        for index in range(3):
            s1batch.run(job, tmp_path / "out", options=RunOptions(shard=Shard(index, 3)))
        pieces = s1batch.run(job, tmp_path / "out")
        assert pieces.summary.added == 0
        assert pieces.verify().complete
        assert comparable(pieces).drop("part").equals(comparable(whole).drop("part"))

    def test_a_scan_that_is_asked_again_decides_again(self, archive, tmp_path, monkeypatch):
        monkeypatch.setenv("MENDED", str(tmp_path / "mended"))
        job = million_job(archive, "coarse_to_fine", "blind_scans")
        first = s1batch.run(job, tmp_path / "out")
        assert found_samples(first) == []
        (tmp_path / "mended").touch()
        again = s1batch.run(job, tmp_path / "out", options=RunOptions(retry=("ok",)))
        assert found_samples(again) == list(EVENTS)
        assert again.verify().complete

    def test_more_data_extend_the_plan_and_every_sample_stays_accounted_for(self, archive, tmp_path):
        (tmp_path / "grown").mkdir()
        first = (archive / "a.mseed").read_bytes()
        (tmp_path / "grown" / "a.mseed").write_bytes(first)
        job = million_job(tmp_path / "grown", "coarse_to_fine")
        s1batch.run(job, tmp_path / "out")
        values = np.random.default_rng(7).normal(0, 100, 400_000)
        values[200_000:200_100] += 30_000
        write_trace(tmp_path / "grown" / "b.mseed", values, start=START + SAMPLES / 100)
        results = s1batch.run(job, tmp_path / "out", options=RunOptions(extend=True))
        assert results.verify().complete
        (total,) = results.account().totals
        assert (total.archive, total.planned) == (SAMPLES + 400_000,) * 2
        assert any(abs(sample - 1_200_050) <= 60 for sample in found_samples(results))

    def test_verify_names_a_window_that_was_skipped_without_an_answered_scan(self, archive, tmp_path):
        from s1batch.results.rows_file import write_table

        results = s1batch.run(million_job(archive, "coarse_to_fine"), tmp_path / "out")
        path = tmp_path / "out" / "rows" / "part-000000.parquet"
        table = pl.read_parquet(path)
        spoilt = table.with_columns(
            pl.when(pl.col("decimation") > 1).then(pl.lit("failed")).otherwise("outcome").alias("outcome")
        )
        schema = s1batch.open_results(tmp_path / "out").schema.arrow
        write_table(path, spoilt.to_arrow().cast(schema))
        findings = {finding.code: finding.count for finding in results.verify().findings}
        assert findings["skip_unfounded"] > 50

    @pytest.mark.parametrize(
        "threshold", [pytest.param(1, marks=pytest.mark.slow), 6_000, pytest.param(40_000, marks=pytest.mark.slow)]
    )
    def test_sigkill_in_the_middle_and_again_end_in_the_same_rows(self, archive, tmp_path, monkeypatch, threshold):
        monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
        path = tmp_path / "job.yaml"
        job = million_job(archive, "coarse_to_fine", "hidden_slowly", run={"part_chunks": 1, "parts_in_flight": 2})
        path.write_text(yaml.safe_dump(job))
        command = [sys.executable, "-m", "s1batch", "run", str(path), "-o", str(tmp_path / "out")]
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ, stderr=subprocess.DEVNULL)
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up and process.poll() is None:
            journals = (tmp_path / "out" / "journal").glob("*")
            if sum(each.stat().st_size for each in journals if each.exists()) >= threshold:
                break
            time.sleep(0.002)
        process.kill()
        process.wait()
        known = s1batch.open_results(tmp_path / "out").scan(unfinished=True).collect()["fingerprint"].to_list()
        asked_before = (tmp_path / "asked").read_text().split()
        results = s1batch.run(path, tmp_path / "out")
        assert results.verify().complete
        asked_after = (tmp_path / "asked").read_text().split()[len(asked_before) :]
        assert not set(asked_after) & set(known), "an answer that was received was asked again"
        whole = s1batch.run(path, tmp_path / "whole")
        assert comparable(results).equals(comparable(whole))
        assert found_samples(results) == list(EVENTS)
