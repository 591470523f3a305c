"""Whole runs of the jobs for sensors, papers and images: rows, merged answers, scores and exports."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

import s1batch
from s1batch.cli import main
from s1batch.errors import UsageError
from s1batch.export import export_results
from s1batch.records import Request
from tests.archives import START, write_trace

PASSAGES = ["The sea rose by 5 % in 2010.", "It rose by 5 % in 2010. Then it fell."]
SPIKE_S = 33.0


def largest(request: Request) -> str:
    """Name the samples that stand out, where there are some."""
    wave_T = np.abs(request.series[0].values_TC[:, 0])
    found = np.flatnonzero(wave_T > 10 * np.median(wave_T))
    if len(found) == 0:
        return json.dumps({"anomalous": False, "intervals": []})
    interval = {"start_index": int(found[0]), "end_index": int(found[-1]), "channel": None, "kind": "spike"}
    return json.dumps({"anomalous": True, "intervals": [{**interval, "reason": "=large"}]})


def steady(request: Request) -> str:
    """Say that all is steady."""
    return json.dumps(
        {"description": "Steady noise.", "trend": "flat", "periodic": False, "period_s": None, "level": "normal"}
    )


def rise(request: Request) -> str:
    """Claim what the first sentence of the passage says, and something that it does not."""
    right = {"quote": "rose by 5 % in 2010", "claim": "It rose by 5 % in 2010.", "kind": "result"}
    wrong = {"quote": "rose by 6 %", "claim": "It rose by 6 %.", "kind": "other", "value": None, "unit": None}
    return json.dumps({"claims": [{**right, "value": 5, "unit": "%"}, wrong]})


def honest_rise(request: Request) -> str:
    """Claim the same, but leave out what is not there when it is told so."""
    claims = json.loads(rise(request))["claims"]
    return json.dumps({"claims": claims[:1] if len(request.messages) > 1 else claims})


def whole(request: Request) -> str:
    """Say that one object fills the image."""
    width, height = Image.open(BytesIO(request.images[0].data)).size
    return json.dumps({"caption": "a colour", "objects": [{"label": "field", "box": [0, 0, width, height]}]})


def width(request: Request) -> str:
    """Answer with the width of the image."""
    return json.dumps({"answer": Image.open(BytesIO(request.images[0].data)).width})


def replay(function: str) -> dict[str, str]:
    return {"kind": "replay", "function": f"tests.test_science_jobs:{function}"}


@pytest.fixture
def archive(tmp_path):
    """Two stations with noise, of which the first has half a second of large values."""
    random = np.random.default_rng(0)
    for number in range(2):
        samples = random.normal(0, 30, 6000)
        if number == 0:
            samples[round(SPIKE_S * 100) : round(SPIKE_S * 100) + 50] = 5000
        for channel in ("HHZ", "HHN", "HHE"):
            write_trace(tmp_path / f"archive/S{number}.{channel}.mseed", samples, channel=channel, station=f"S{number}")
    return tmp_path / "archive"


@pytest.fixture
def papers(tmp_path):
    lines = [
        {"paper_id": "p", "text": text, "char_start": start} for text, start in zip(PASSAGES, (0, 100), strict=True)
    ]
    path = tmp_path / "papers.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def pictures(tmp_path):
    for name, size in (("a.png", (64, 32)), ("b.png", (32, 48))):
        Image.new("RGB", size, (200, 30, 30)).save(tmp_path / name)
    path = tmp_path / "pictures.csv"
    path.write_text("image,question\na.png,How wide is it?\nb.png,And this?\n")
    return path


def waves(archive, job, function, **changes):
    return {
        "source": {"kind": "seismic", "paths": [f"{archive}/*"]},
        "window": {"length": "10s", "overlap": "50%"},
        "job": job,
        "engine": replay(function),
        **changes,
    }


def table(path, job, function, **source):
    return {"source": {"kind": "table", "path": str(path), **source}, "job": job, "engine": replay(function)}


def rows(results):
    assert results.verify().complete
    return results.scan().collect()


class TestAnomalies:
    TRUTH = f"stream,start,end\nXX.S0..HH?,{START + SPIKE_S},{START + SPIKE_S + 0.5}\n"

    def test_windows_agree_on_one_anomaly_which_is_scored(self, archive, tmp_path):
        results = s1batch.run(waves(archive, {"kind": "sensor-anomaly"}, "largest"), tmp_path / "out")
        assert rows(results)["anomalous"].sum() == 2
        (merged,) = results.merged().collect().iter_rows(named=True)
        assert (merged["count"], merged["kinds"]) == (2, ["spike"])
        assert merged["start_time"].timestamp() == START.timestamp + SPIKE_S
        (tmp_path / "truth.csv").write_text(self.TRUTH)
        report = results.score(tmp_path / "truth.csv")
        for one in report.tables:
            assert [line.name for line in one.lines][1:] == ["flag all", "flag none", "robust z > 5"]
            assert one.lines[0].estimates["F1"].value == pytest.approx(1)
            assert one.lines[2].estimates["recall"].value == 0.0
        # The z-score finds the spike in both windows, and nothing else.
        assert report.tables[2].lines[3].estimates["F1"].value == pytest.approx(1)
        assert report.resampled == {"unit": "streams", "n": 2, "repeats": 1000, "seed": 0}
        assert json.loads((tmp_path / "out/metrics/score.json").read_bytes()) == json.loads(json.dumps(report.plain()))

    def test_a_scan_decides_which_windows_are_asked(self, archive, tmp_path):
        changes = {
            "window": {"length": "60s", "longest_samples": 1000},
            "long_series": "coarse_to_fine",
            "coarse_to_fine": {"scan_rate_hz": 10, "length": "10s", "margin_s": 0},
        }
        results = s1batch.run(waves(archive, {"kind": "sensor-anomaly"}, "largest", **changes), tmp_path / "out")
        found = rows(results)
        asked = found.filter(pl.col("outcome") == "ok")
        assert dict(found["outcome"].value_counts().iter_rows()) == {"ok": 3, "skipped": 11}
        fine = asked.filter(pl.col("decimation") == 1)
        assert [(start - START.datetime.replace(tzinfo=start.tzinfo)).total_seconds() for start in fine["start"]] == [
            30
        ]
        # The scan saw it at a tenth of the rate; what the window at the full rate says counts.
        (merged,) = results.merged().collect().iter_rows(named=True)
        assert merged["end_time"].timestamp() == pytest.approx(START.timestamp + SPIKE_S + 0.5)

    def test_lists_of_structs_are_json_in_a_csv(self, archive, tmp_path):
        results = s1batch.run(waves(archive, {"kind": "sensor-anomaly"}, "largest"), tmp_path / "out")
        export_results(results, tmp_path / "out.csv")
        cells = pl.read_csv(tmp_path / "out.csv", infer_schema=False)["intervals"].to_list()
        (found,) = next(json.loads(cell) for cell in cells if cell != "[]")
        assert found["start_time"] == f"{START + SPIKE_S}".replace("000000Z", "000000000Z")
        export_results(results, tmp_path / "out.parquet")
        assert pl.read_parquet(tmp_path / "out.parquet")["intervals"].dtype == rows(results)["intervals"].dtype


def test_descriptions_are_scored(archive, tmp_path):
    results = s1batch.run(waves(archive, {"kind": "sensor-describe"}, "steady"), tmp_path / "out")
    found = rows(results)
    assert set(found["trend"]) == {"flat"}
    truth = found.select("chunk_key", trend=pl.lit("flat"), description=pl.lit("noise")).head(4)
    report = results.score(truth)
    assert report.tables[0].lines[0].estimates["accuracy"].value == 1.0
    assert report.tables[1].lines[0].estimates["token F1"].value == pytest.approx(2 / 3)


class TestClaims:
    def test_quotes_are_checked_and_claims_merged(self, papers, tmp_path):
        results = s1batch.run(table(papers, {"kind": "paper-extract"}, "rise"), tmp_path / "out")
        found = rows(results)
        assert found["n_verified"].to_list() == [1, 1]
        assert found["claims"][1][0]["char_start"] == 100 + PASSAGES[1].index("rose")
        merged = results.merged().collect()
        assert merged.select("paper", "quote_status", "count").rows() == [("p", "exact", 2), ("p", "unverified", 2)]
        report = results.score()
        assert report.tables[0].lines[0].estimates["exact"].value == 0.5
        assert report.truth is None

    def test_an_invented_quote_is_mended(self, papers, tmp_path):
        job = {"kind": "paper-extract", "require_quotes": True}
        results = s1batch.run(table(papers, job, "honest_rise"), tmp_path / "out")
        found = rows(results)
        assert (found["repairs"].to_list(), found["n_claims"].to_list()) == ([1, 1], [1, 1])
        results = s1batch.run(table(papers, job, "rise"), tmp_path / "stubborn")
        assert rows(results)["reason"].to_list() == ["quote_not_found"] * 2


class TestImages:
    def test_objects_and_captions(self, pictures, tmp_path):
        job = table(pictures, {"kind": "image-describe"}, "whole", images="image")
        results = s1batch.run(job, tmp_path / "out")
        assert rows(results)["image"].to_list() == ["a.png", "b.png"]
        assert results.merged().collect().select("image", "x_max", "y_max").rows() == [
            ("a.png", 64, 32),
            ("b.png", 32, 48),
        ]
        names = ("image", "label", "x_min", "y_min", "x_max", "y_max")
        truth = pl.DataFrame(
            {name: [value] for name, value in zip(names, ("a.png", "field", 0, 0, 64, 30), strict=True)}
        )
        assert results.score(truth).tables[0].lines[0].estimates["F1"].value == 1.0

    def test_questions_of_a_table(self, pictures, tmp_path):
        job = {"kind": "image-qa", "question_field": "question", "answer": "number"}
        results = s1batch.run(table(pictures, job, "width", images="image"), tmp_path / "out")
        assert rows(results).select("question", "answer").rows() == [("How wide is it?", 64), ("And this?", 32)]
        report = results.score(pl.DataFrame({"image": ["a.png", "b.png"], "answer": [64, 31]}), tolerance=0.01)
        assert {name: one.value for name, one in report.tables[0].lines[0].estimates.items()} == {
            "exact": 0.5,
            "within 1 %": 0.5,
        }


class TestCommand:
    def call(self, *arguments, code=0):
        result = CliRunner().invoke(main, [str(item) for item in arguments])
        assert result.exit_code == code, result.output
        return result

    @pytest.fixture
    def results(self, papers, tmp_path):
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump({**table(papers, {"kind": "paper-extract"}, "rise"), "output": "out"}))
        self.call("run", path)
        return tmp_path / "out"

    def test_a_job_that_checks_itself_needs_no_truth(self, results):
        output = self.call("score", results).stdout
        assert "paper-extract of tests.test_science_jobs:rise" in output
        assert "parse rate 1.000 [1.000 1.000] of 2 responses" in output
        assert "bootstrap over 2 rows" in output

    def test_numbers_are_printed_as_json_too(self, results, tmp_path):
        (tmp_path / "truth.csv").write_text("paper_id,value,unit\np,5,%\n")
        report = json.loads(self.call("score", results, "--truth", tmp_path / "truth.csv", "--json").stdout)
        line = report["tables"][1]["lines"][0]
        assert (line["n"], line["estimates"]["precision"]["value"]) == (1, 1.0)

    @pytest.mark.parametrize(
        ("option", "what"),
        [
            (("--by", "station"), "not told apart"),
            (("--tolerance", "0.1,0.2"), "takes one share"),
            (("--baseline", "ar_pick"), "no baseline ar_pick (valid: none)"),
        ],
    )
    def test_an_option_that_means_nothing_here_ends_with_2(self, results, option, what):
        assert what in self.call("score", results, *option, code=2).output

    def test_where_truth_is_needed_it_is_asked_for(self, archive, tmp_path):
        results = s1batch.run(waves(archive, {"kind": "sensor-describe"}, "steady"), tmp_path / "out")
        with pytest.raises(UsageError, match=r"sensor-describe is scored against truth; name it with --truth"):
            results.score()


@pytest.mark.slow
def test_every_job_runs_on_the_embedded_engine(archive, papers, pictures, tmp_path):
    """Its answers mean nothing here, but every row ends, and every answer fits its schema and its window."""
    sampling = {"sampling": {"max_tokens": 300}}
    blocks: list[tuple[str, dict[str, Any]]] = [
        ("seismic", {"kind": "sensor-anomaly", "max_intervals": 1}),
        ("seismic", {"kind": "sensor-describe"}),
        ("papers", {"kind": "paper-extract", "max_claims": 1}),
        ("pictures", {"kind": "image-describe", "max_objects": 1, "labels": ["field", "dot"]}),
        ("pictures", {"kind": "image-qa", "question_field": "question", "answer": "choice", "choices": ["a", "b"]}),
    ]
    for number, (kind, block) in enumerate(blocks):
        job = {**block, **sampling}
        if kind == "seismic":
            spec: dict[str, Any] = waves(archive, job, "", window={"length": "30s"})
            spec["source"]["rate_hz"] = 102
        else:
            spec = table(
                papers if kind == "papers" else pictures, job, "", images="image" if kind == "pictures" else ()
            )
        results = s1batch.run({**spec, "engine": {"kind": "reference"}}, tmp_path / f"out{number}")
        found = rows(results)
        assert set(found["outcome"]) <= {"ok", "length", "unparsed"}, block["kind"]
        assert set(found["reason"]) <= {None, "output_limit", "out_of_range"}, block["kind"]
