"""`s1batch init`: a first job file fits the data that a folder holds, and plans."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

import s1batch
from s1batch.errors import UsageError
from s1batch.init import write_job_file
from tests.archives import write_archive


def waveforms(folder: Path) -> None:
    write_archive(folder, stations=1, seconds=60.0)


def arrays(folder: Path) -> None:
    import zarr

    group = zarr.open_group(folder / "plant" / "pump.zarr", mode="w", zarr_format=3)
    wave = group.create_array("wave", shape=(12_000, 2), chunks=(1000, 2), dtype="f4", dimension_names=("time", "axis"))
    wave[:] = np.zeros((12_000, 2), "f4")
    times = group.create_array("time", shape=(12_000,), dtype="f8", dimension_names=("time",))
    times[:] = np.arange(12_000) / 100
    times.attrs["units"] = "seconds since 2024-01-01"


def papers(folder: Path) -> None:
    lines = [{"id": number, "title": f"Paper {number}", "text": "Quartz melts. " * 50} for number in range(3)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def images(folder: Path) -> None:
    from PIL import Image

    for number in range(3):
        Image.new("RGB", (64, 48), (number, 0, 0)).save(folder / f"{number}.png")
    (folder / "0.txt").write_text("black")


def table(folder: Path) -> None:
    pl.DataFrame({"name": ["quartz", "oak"], "kind": ["mineral", "tree"]}).write_csv(folder / "things.csv")


@pytest.mark.parametrize(
    ("make", "source", "job", "chunks"),
    [
        (waveforms, "seismic", "seismic-pick", 3),
        (arrays, "sensors", "sensor-anomaly", 3),
        (papers, "papers", "paper-extract", 3),
        (images, "images", "image-describe", 3),
        (table, "table", "ask", 2),
    ],
)
def test_the_job_file_names_the_kind_of_the_data_and_plans(tmp_path: Path, make, source, job, chunks) -> None:
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    told = write_job_file(tmp_path / "data", tmp_path / "job.yaml")
    assert "next: s1batch plan" in told
    written = yaml.safe_load((tmp_path / "job.yaml").read_text())
    assert (written["source"]["kind"], written["job"]["kind"]) == (source, job)
    totals = s1batch.plan(tmp_path / "job.yaml").totals
    assert (totals.chunks, totals.asked) == (chunks, chunks)


def test_of_several_kinds_the_most_frequent_is_taken_and_all_are_told(tmp_path: Path) -> None:
    images(tmp_path)
    table(tmp_path)
    told = write_job_file(tmp_path, tmp_path / "job.yaml")
    assert "3 images, 1 table" in told
    assert yaml.safe_load((tmp_path / "job.yaml").read_text())["source"]["kind"] == "images"


def test_a_folder_of_nothing_known_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "notes.doc").write_text("?")
    with pytest.raises(UsageError, match="no waveforms, sensor arrays, papers, images or tables"):
        write_job_file(tmp_path, tmp_path / "job.yaml")
    assert not (tmp_path / "job.yaml").exists()
