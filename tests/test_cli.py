"""The command line: what it prints, and with which code it ends."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
import yaml
from click.testing import CliRunner

from s1batch.cli import main
from tests.archives import pick_job, write_archive


@pytest.fixture
def job(tmp_path):
    archive = write_archive(tmp_path / "archive", stations=1, seconds=100)
    (archive / "broken.mseed").write_bytes(b"\x80\x04not a seismogram")
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(pick_job(archive, output="out")))
    return path


def call(*arguments, code=0):
    result = CliRunner().invoke(main, [str(item) for item in arguments])
    assert result.exit_code == code, result.output
    return result.output


class TestRun:
    def test_ends_with_3_when_rows_are_not_ok_and_0_when_they_are_accepted(self, job):
        assert "1  unreadable" in call("run", job, code=3)
        call("run", job, "--accept", "unreadable")

    def test_says_what_is_wrong_in_one_line(self, job):
        output = call("run", job, "--set", "window.tail=drop", code=2)
        assert output.count("\n") == 1
        assert "window.tail: 'drop' is not valid" in output

    def test_refuses_another_question_with_4(self, job):
        call("run", job, code=3)
        assert "window.length" in call("run", job, "--set", "window.length=30s", code=4)

    @pytest.mark.parametrize(
        "option", [("--shard", "4/4"), ("--retry", "bad"), ("--scheduler", "slurmy"), ("--limit", "0"), ("--nonsense",)]
    )
    def test_a_wrong_option_ends_with_2(self, job, option):
        call("run", job, *option, code=2)

    def test_a_job_file_that_is_missing_ends_with_2(self, tmp_path):
        assert "cannot read the job file" in call("run", tmp_path / "none.yaml", code=2)


class TestOnResults:
    @pytest.fixture
    def results(self, job):
        call("run", job, code=3)
        return job.parent / "out"

    def test_verify(self, results):
        assert "clean" in call("verify", results)
        verdict = json.loads(call("verify", results, "--json", "--sources"))
        assert verdict["ok"] is True

    def test_verify_fails_when_a_row_is_missing(self, results):
        (part,) = sorted((results / "rows").glob("*.parquet"))[:1]
        pl.read_parquet(part).head(1).write_parquet(part)
        call("verify", results, code=1)

    def test_status(self, results):
        state = json.loads(call("status", results, "--json"))
        assert state["chunks"] == 10
        assert "unreadable" in call("status", results)

    def test_show(self, results):
        assert "XX.S00" in call("show", results, "-n", "3")
        assert "3 of 10 rows" in call("show", results, "-n", "3")
        assert "1 of 1 rows" in call("show", results, "--outcome", "unreadable")
        assert "no column nonsense (valid: chunk_key" in call("show", results, "--columns", "nonsense", code=2)
        assert "phase" in call("show", results, "--merged")

    @pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
    def test_export(self, results, suffix):
        output = results.parent / f"rows.{suffix}"
        assert "10 rows" in call("export", results, output)
        read: dict[str, Any] = {"csv": pl.read_csv, "parquet": pl.read_parquet, "jsonl": pl.read_ndjson}
        assert read[suffix](output).height == 10

    def test_export_of_picks_for_quakeflow(self, results):
        output = results.parent / "picks.csv"
        call("export", results, output, "--format", "quakeflow")
        assert pl.read_csv(output).columns[:3] == ["station_id", "phase_time", "phase_type"]

    def test_merge(self, results):
        assert "merged rows" in call("merge", results)

    def test_a_folder_without_results(self, tmp_path):
        (tmp_path / "empty").mkdir()
        assert "holds no plan; run `s1batch run` first" in call("status", tmp_path / "empty", code=1)


class TestWithoutRunning:
    def test_plan(self, job):
        output = call("plan", job)
        assert "10 chunks" in output
        assert "unknown_format" in output
        assert not (job.parent / "out").exists()
        plan = json.loads(call("plan", job, "--json"))
        assert (plan["chunks"], plan["asked"]) == (10, 9)
        planned = {total["unit"]: total["planned"] for total in plan["account"]["totals"]}
        assert planned == {"bytes": 0, "samples": 30_000}

    def test_plan_can_be_kept(self, job):
        call("plan", job, "-o", job.parent / "plan")
        assert pl.read_parquet(job.parent / "plan/plan.parquet").height == 10

    def test_preview_shows_the_prompt_the_token_map_and_a_plot(self, job):
        output = call("preview", job, "-n", "2", "--plots", job.parent / "plots")
        assert "Please determine whether an Earthquake event has occurred" in output
        assert "2000 steps x 3 channels at 100 Hz" in output
        assert len(list((job.parent / "plots").glob("*.png"))) == 2

    def test_init_writes_a_job_that_plans(self, job):
        written = job.parent / "first.yaml"
        assert "next: s1batch plan" in call("init", job.parent / "archive", "-o", written)
        call("plan", written)
        call("init", job.parent / "archive", "-o", written, code=2)

    def test_schema_and_doctor(self):
        assert json.loads(call("schema"))["properties"]["source"]
        assert "reference engine" in call("doctor")

    def test_help_lists_every_command(self):
        output = call("--help")
        for name in (
            "init",
            "preview",
            "plan",
            "run",
            "status",
            "verify",
            "show",
            "export",
            "merge",
            "score",
            "model",
            "doctor",
            "schema",
        ):
            assert name in output
