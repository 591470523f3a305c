"""A whole run over a damaged archive: every window a row, every sample in the account, and the proof clean."""

from __future__ import annotations

import json
import os

import h5py
import numpy as np
import polars as pl
import pytest

import s1batch
from s1batch.jobfile import load_job
from tests.readers.sensors.made import seconds, zarr_array

SCHEMA = {"type": "object", "properties": {"length": {"type": "integer"}, "first": {"type": "string"}}}


def job(**source):
    return {
        "name": "rig",
        "source": {"kind": "sensors", "paths": ["archive/**/*"], **source},
        "window": {"length": "10s", "overlap": "20%"},
        "job": {
            "kind": "ask",
            "prompt": "{{ variable }} in {{ units }} of {{ channels }} from {{ start }}: {{ peak }}?",
            "schema": SCHEMA,
        },
        "engine": {"kind": "replay", "function": "tests.answers:echo"},
        "run": {"part_chunks": 8},
    }


@pytest.fixture
def archive(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0)
    folder = tmp_path / "archive"
    vibration = noise.normal(size=(1000, 3)).astype("f4")
    vibration[505] = np.nan
    store = zarr_array(folder / "a.zarr", vibration, times=seconds(1000), chunks=(90, 3), attrs={"units": "g"})
    chunk = store / "v" / "c" / "7" / "0"
    chunk.write_bytes(chunk.read_bytes()[:30])
    zarr_array(store, np.zeros((1000, 2), "c8"), name="odd")
    old = zarr_array(folder / "old.zarr", noise.normal(size=(300, 2)), version=2, times=seconds(300), chunks=(50, 2))
    (old / "v" / "3.0").unlink()
    late = seconds(200) + (np.arange(200) > 100) * 3.0
    zarr_array(folder / "uneven.zarr", noise.normal(size=(200, 2)), times=late)
    with h5py.File(folder / "cut.h5", "w") as file:
        file["v"] = vibration
    os.truncate(folder / "cut.h5", 4000)
    (folder / "notes.txt").write_text("nothing to read")
    return folder


def test_a_damaged_archive_ends_in_rows_and_a_clean_proof(archive, tmp_path):
    results = s1batch.run(job(), tmp_path / "results")
    rows = results.scan().collect()
    reasons = dict(rows.group_by("reason").len().iter_rows())
    assert rows["chunk_key"].n_unique() == len(rows)
    assert reasons == {
        None: 14,
        "decode_error": 2,
        "not_finite": 1,
        "irregular_axis": 1,
        "not_readable": 1,
        "unknown_format": 2,
    }
    verdict = results.verify(sources=True)
    assert verdict.ok, verdict.findings
    account = results.account()
    (samples,) = [tally for tally in account.totals if tally.unit == "samples"]
    assert samples.archive == 3000 + 2000 + 600 + 400 + 1000 + 300 + 200
    assert samples.balanced
    assert samples.refused == 400
    assert samples.unreadable == 2000
    assert samples.not_selected == 1500
    (nbytes,) = [tally for tally in account.totals if tally.unit == "bytes"]
    assert nbytes.unreadable == 4000 + 15
    window = rows.filter((pl.col("source") == "a.zarr/v") & (pl.col("span_start") == 80)).row(0, named=True)
    assert window["start"].timestamp() == 1_700_000_008
    assert window["end"].timestamp() == 1_700_000_018
    assert window["span_end"] == 180
    filled = rows.filter(pl.col("absent_frac") > 0)
    assert set(filled["source"]) == {"old.zarr/v"}


def test_a_store_that_changed_after_the_plan_is_told(archive, tmp_path):
    results = s1batch.run(job(variables="v"), tmp_path / "results")
    chunk = archive / "old.zarr" / "v" / "1.0"
    chunk.write_bytes(chunk.read_bytes())
    verdict = results.verify(sources=True)
    assert [finding.code for finding in verdict.findings] == ["source_changed"]
    assert "old.zarr" in verdict.findings[0].text
    rows = s1batch.run(job(variables="v"), tmp_path / "results", options=retry("refused", "ok")).scan().collect()
    changed = rows.filter(pl.col("reason") == "source_changed")
    assert set(changed["source"]) == {"old.zarr/v"}


def test_new_stores_are_noticed_and_appended(archive, tmp_path):
    results = s1batch.run(job(), tmp_path / "results")
    before = results.scan().collect().height
    zarr_array(archive / "new.zarr", np.ones((200, 2)), times=seconds(200))
    results = s1batch.run(job(), tmp_path / "results", options=s1batch.RunOptions(extend=True))
    assert results.scan().collect().height == before + 3
    assert results.verify().ok


def retry(*outcomes):
    return s1batch.RunOptions(retry=outcomes)


def tenth(request):
    """Say that samples 10 to 19 of every window stand out."""
    interval = {"start_index": 10, "end_index": 19, "channel": None, "kind": "spike", "reason": "it stands out"}
    return json.dumps({"anomalous": True, "intervals": [interval]})


def test_anomalies_are_placed_in_the_array_and_in_time(tmp_path):
    noise = np.random.default_rng(0).normal(size=(300, 2)).astype("f4")
    zarr_array(tmp_path / "archive" / "a.zarr", noise, times=seconds(300), attrs={"units": "g"})
    engine = {"kind": "replay", "function": "tests.readers.sensors.test_run:tenth"}
    anomaly = {**job(), "window": {"length": 100}, "job": {"kind": "sensor-anomaly"}, "engine": engine}
    results = s1batch.run(load_job(anomaly, base_dir=tmp_path), tmp_path / "results")
    rows = results.scan().sort("span_start").collect()
    assert rows["outcome"].to_list() == ["ok"] * 3
    placed = [interval for row in rows["intervals"].to_list() for interval in row]
    assert [interval["start_sample"] for interval in placed] == [10, 110, 210]
    assert [interval["start_time"].timestamp() - 1_700_000_000 for interval in placed] == [1, 11, 21]
    assert results.verify().ok
