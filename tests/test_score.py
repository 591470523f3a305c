"""`s1batch score` from the archive to the table, on answers that are known."""

from __future__ import annotations

import json
import shutil

import numpy as np
import obspy
import polars as pl
import pytest
import yaml
from click.testing import CliRunner

import s1batch
from s1batch.cli import main
from s1batch.errors import EngineError, UsageError
from s1batch.execution import RunOptions
from s1batch.merging.merge import merge_results
from s1batch.records import Request
from s1batch.results.compaction import compact
from s1batch.subset import Shard
from tests.answers import loudest
from tests.archives import START, pick_job, write_trace

SECONDS = 120
EVENTS = {"S00": (33.0, 36.5), "S01": (71.25, 75.25), "S02": (95.0, 98.0)}
"""P and S of each station, in s; S03 has none."""


@pytest.fixture
def archive(tmp_path):
    """Four stations; where there is an event, P is the largest sample of the vertical and S that of the horizontals."""
    random = np.random.default_rng(0)
    for number in range(4):
        station = f"S{number:02d}"
        for channel in ("HHZ", "HHN", "HHE"):
            samples = random.normal(0, 30, SECONDS * 100)
            if station in EVENTS:
                onset = round(EVENTS[station][channel != "HHZ"] * 100)
                decay = np.exp(-np.arange(len(samples) - onset) / 200)
                samples[onset:] += 30_000 * decay * np.where(np.arange(len(decay)) % 9 < 4, 1, -0.8)
            write_trace(tmp_path / f"archive/{station}.{channel}.mseed", samples, channel=channel, station=station)
    return tmp_path / "archive"


@pytest.fixture
def truth(tmp_path):
    lines = ["station_id,phase_type,phase_time"]
    for station, times in EVENTS.items():
        lines += [f"XX.{station}..HH,{phase},{START + time}" for phase, time in zip("PS", times, strict=True)]
    path = tmp_path / "truth.csv"
    path.write_text("\n".join([*lines, f"XX.OTHER..HH,P,{START}", f"XX.S03..HH,P,{START + 9999}"]))
    return path


def honest(request: Request) -> str:
    """Name the largest samples where they stand out of the noise."""
    answer = json.loads(loudest(request))
    wave_TC = request.series[0].values_TC
    if np.abs(wave_TC).max() < 10_000 or np.abs(wave_TC[answer["p_index"], 0]) < 20_000:
        return json.dumps({"contain": False, "p_index": None, "s_index": None})
    return json.dumps(answer)


def flawed(request: Request) -> str:
    """Fail on a quarter of the windows, and babble on another quarter."""
    if int(request.fingerprint, 16) % 4 == 0:
        raise EngineError("server_error", "out of order")
    return "I see waves." if int(request.fingerprint, 16) % 4 == 1 else honest(request)


def run(archive, tmp_path, function="honest", **options):
    job = pick_job(archive, engine={"kind": "replay", "function": f"tests.test_score:{function}"})
    return s1batch.run(job, tmp_path / "out", **options)


class TestScore:
    def test_exact_picks_are_scored_as_such_beside_baselines_on_the_same_windows(self, archive, truth, tmp_path):
        report = run(archive, tmp_path).score(truth)
        own, *others = report.methods
        assert report.picks == "merged"
        for phase in ("P", "S"):
            assert own.phases[phase].n_onsets == 3
            assert [one.hits for one in own.phases[phase].tolerances] == [3, 3, 3, 3]
            assert own.phases[phase].residuals.median_s.value == pytest.approx(0, abs=0.011)
        assert own.phases["P"].tolerances[0].precision.value == 1.0
        assert own.detection.precision.value == 1.0
        names = [one.name for one in others]
        assert names == ["ar_pick", "sta_lta", "ar_pick+sta_lta", "S = P + 3.50 s"]
        for one in others:
            assert one.detection.n_windows == own.detection.n_windows
            assert one.detection.n_positive == own.detection.n_positive
        assert others[1].phases["P"].tolerances[2].recall.value == 1.0
        # S - P is 3.5, 4 and 3 s.
        assert [one.hits for one in others[3].phases["S"].tolerances] == [1, 1, 3, 3]

    def test_what_became_of_the_truth_is_told(self, archive, truth, tmp_path):
        found = run(archive, tmp_path).score(truth, baselines=()).truth
        assert found.onsets == {"P": 5, "S": 3}
        assert (found.elsewhere, found.stations_without) == (1, 1)

    def test_windows_without_an_answer_are_missed_over_all_only(self, archive, truth, tmp_path):
        results = run(archive, tmp_path, "flawed")
        report = results.score(truth, baselines=("ar_pick",))
        outcomes = report.outcomes
        assert set(outcomes) == {"ok", "unparsed", "failed"}
        assert report.responses == outcomes["ok"] + outcomes["unparsed"]
        assert report.parse_rate.value == pytest.approx(outcomes["ok"] / report.responses)
        own, baseline = report.methods
        assert own.detection.n_windows == outcomes["ok"]
        assert own.detection.n_windows_all == sum(outcomes.values())
        assert baseline.detection.n_windows == outcomes["ok"]
        # The baseline answers where the model failed.
        assert baseline.detection.recall_all.value == 1.0
        assert own.detection.recall_all.value is not None
        assert own.detection.recall_all.value < 1.0

    def test_compacted_and_merged_results_score_as_the_run_that_they_were_made_of(self, archive, truth, tmp_path):
        whole = run(archive, tmp_path).score(truth, baselines=("ar_pick",))
        job = pick_job(archive, engine={"kind": "replay", "function": "tests.test_score:honest"})
        for index in range(2):
            shard = RunOptions(shard=Shard(index, 2))
            s1batch.run({**job, "run": {"part_chunks": 2}}, tmp_path / f"shard{index}", options=shard)
        merge_results(tmp_path / "merged", [tmp_path / "shard0", tmp_path / "shard1"])
        for folder in ("merged", "out"):
            results = s1batch.open_results(tmp_path / folder)
            results.merge()
            compact(tmp_path / folder)
            assert results.verify().complete
            again = results.score(truth, baselines=("ar_pick",))
            assert {**again.plain(), "results": ""} == {**whole.plain(), "results": ""}

    def test_the_numbers_are_written_and_one_seed_repeats_them(self, archive, truth, tmp_path):
        results = run(archive, tmp_path)
        report = results.score(truth, seed=5, by_station=True)
        written = (tmp_path / "out/metrics/score.json").read_bytes()
        assert json.loads(written) == json.loads(json.dumps(report.plain()))
        assert results.score(truth, seed=5, by_station=True) == report
        assert (tmp_path / "out/metrics/score.json").read_bytes() == written
        assert [one.station for one in report.by_station] == ["XX.S00", "XX.S01", "XX.S02", "XX.S03"]
        assert sum(one.phases["P"].n_onsets for one in report.by_station) == 3

    def test_an_unfinished_run_is_scored_on_its_rows(self, archive, truth, tmp_path):
        report = run(archive, tmp_path, options=RunOptions(limit=11)).score(truth, baselines=())
        assert (report.picks, report.missing_rows) == ("rows", 33)
        # Both windows that hold the event name it: two picks, one onset.
        assert (report.methods[0].phases["P"].n_onsets, report.methods[0].phases["P"].n_picks) == (1, 2)

    def test_an_archive_that_is_gone_costs_its_baselines_only(self, archive, truth, tmp_path):
        results = run(archive, tmp_path)
        shutil.rmtree(archive)
        report = results.score(truth)
        assert len(report.methods) == 2
        assert any("44 windows cannot be read" in note for note in report.notes)

    def test_refused_windows_count_over_all(self, archive, truth, tmp_path):
        job = pick_job(archive, engine={"kind": "replay", "function": "tests.test_score:honest"})
        job["source"]["missing"] = "refuse"
        (archive / "S00.HHE.mseed").unlink()
        (archive / "broken.mseed").write_bytes(b"no seismogram")
        report = s1batch.run(job, tmp_path / "out").score(truth, baselines=())
        assert (report.outcomes["refused"], report.unplaced_rows) == (11, 1)
        found = report.methods[0].phases["P"]
        assert (found.n_onsets, found.n_onsets_all) == (2, 3)
        assert found.tolerances[0].recall_all.value == pytest.approx(2 / 3)

    def test_truth_may_count_samples_of_files(self, archive, tmp_path):
        table = pl.DataFrame({"file": ["S00.HHZ.mseed"], "p_index": [3300], "s_index": [3650]})
        report = run(archive, tmp_path).score(table, baselines=("median",))
        assert report.methods[0].phases["P"].tolerances[0].recall.value == 1.0
        assert report.methods[1].name == "S = P + 3.50 s"

    def test_empty_truth_defines_no_recall(self, archive, tmp_path):
        empty = pl.DataFrame(
            {"station": [], "phase": [], "time": []}, schema=dict.fromkeys(["station", "phase", "time"], pl.String)
        )
        report = run(archive, tmp_path).score(empty, baselines=("median",))
        assert report.methods[0].phases["P"].tolerances[0].recall.value is None
        assert report.methods[0].phases["P"].tolerances[0].precision.value == 0.0
        assert any("no median S-P" in note for note in report.notes)

    @pytest.mark.parametrize(
        ("options", "what"),
        [({"baselines": ("guess",)}, "no baseline guess"), ({"tolerances_s": (0.0,)}, "above zero")],
    )
    def test_wrong_arguments(self, archive, truth, tmp_path, options, what):
        with pytest.raises(UsageError, match=what):
            run(archive, tmp_path).score(truth, **options)

    def test_results_of_a_job_without_a_score_say_which_jobs_have_one(self, archive, truth, tmp_path):
        job = pick_job(archive, "echo", job={"kind": "ask", "prompt": "What is this?"})
        with pytest.raises(UsageError, match=r"no score \(jobs with one: seismic-pick, sensor-anomaly"):
            s1batch.run(job, tmp_path / "out").score(truth)

    def test_obspys_example_record(self, tmp_path):
        (tmp_path / "archive").mkdir()
        for trace in obspy.read():
            write_trace(
                tmp_path / f"archive/{trace.id}.mseed",
                trace.data * 100,
                channel=trace.stats.channel,
                station="RJOB",
                start=trace.stats.starttime,
            )
        table = pl.DataFrame(
            {"station": ["RJOB"] * 2, "phase": ["P", "S"], "time": ["2009-08-24T00:20:07.7Z", "2009-08-24T00:20:09.2Z"]}
        )
        job = pick_job(tmp_path / "archive", "loudest", window={"length": "30s"})
        report = s1batch.run(job, tmp_path / "out").score(table)
        assert report.methods[1].name == "ar_pick"
        assert report.methods[1].phases["P"].tolerances[1].f1.value == 1.0


class TestCommand:
    @pytest.fixture
    def results(self, archive, tmp_path):
        job = tmp_path / "job.yaml"
        engine = {"kind": "replay", "function": "tests.test_score:honest"}
        job.write_text(yaml.safe_dump(pick_job(archive, engine=engine, output="out")))
        self.call("run", job)
        return tmp_path / "out"

    def call(self, *arguments, code=0):
        result = CliRunner().invoke(main, [str(item) for item in arguments])
        assert result.exit_code == code, result.output
        return result

    def test_prints_tables(self, results, truth):
        output = self.call("score", results, "--truth", truth, "--by", "station").stdout
        for text in (
            "parse rate 1.000",
            "ar_pick+sta_lta",
            "S = P + 3.50 s",
            "bootstrap over 4 stations",
            "XX.S03",
            "P  -0.10",
        ):
            assert text in output
        assert "left out: 1 at stations" in output

    def test_prints_plain_data(self, results, truth):
        call = self.call("score", results, "--truth", truth, "--json", "--tolerance", "0.2", "--baseline", "none")
        report = json.loads(call.stdout)
        assert report["tolerances_s"] == [0.2]
        assert report["methods"][0]["phases"]["P"]["tolerances"][0]["f1"]["value"] == 1.0
        assert len(report["methods"]) == 1

    @pytest.mark.parametrize(
        "option", [("--tolerance", "wide"), ("--tolerance", "-1"), ("--baseline", "guess"), ("--by", "day")]
    )
    def test_a_wrong_option_ends_with_2(self, results, truth, option):
        self.call("score", results, "--truth", truth, *option, code=2)

    def test_truth_that_is_no_truth_ends_with_2_and_one_line(self, results, tmp_path):
        (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
        output = self.call("score", results, "--truth", tmp_path / "odd.csv", code=2).output
        assert "Columns found: a, b. Columns understood:" in output
        assert output.count("\n") == 1
