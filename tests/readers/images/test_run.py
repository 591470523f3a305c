"""Whole runs over images: one row for every chunk, every pixel accounted for, proved by `verify`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import s1batch
from s1batch.geometry import SentImage
from tests.readers.images.pictures import DATA, colours, saved
from tests.readers.images.test_bad_images import CASES, JPEG


def job(folder: Path, **source: Any) -> dict[str, Any]:
    return {
        "source": {"kind": "images", "path": str(folder), **source},
        "job": {"kind": "ask", "prompt": "{{ file }} {{ width }} x {{ height }}: {{ caption }} {{ metadata }}"},
        "engine": {"kind": "replay", "function": "tests.answers:echo"},
    }


def rows_of(results: Any) -> list[dict[str, Any]]:
    return list(results.scan().collect().iter_rows(named=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    root.mkdir()
    for name, (data, _, _) in CASES.items():
        (root / name).write_bytes(data)
    (root / "good.jpg").write_bytes(JPEG)
    (root / "good.txt").write_text("A good one.")
    (root / "map.tif").write_bytes((DATA / "utm_uint16_tiled.tif").read_bytes())
    (root / "scan.png").write_bytes(saved(colours(300, 210), "PNG"))
    (root / "loop").symlink_to("loop")
    return root


def test_a_folder_full_of_damage_is_proved_complete(folder: Path, tmp_path: Path) -> None:
    source = {"tile": {"size": 100, "overlap": 10}, "overview": True}
    results = s1batch.run(job(folder, **source), tmp_path / "out")
    verdict = results.verify()
    assert verdict.complete, verdict.findings
    rows = rows_of(results)
    ends = {row["source_file"] or row["source"]: (row["outcome"], row["reason"]) for row in rows}
    for name, (_, reason, _) in CASES.items():
        assert ends[name][1] == reason, name
    assert ends["loop"] == ("unreadable", "not_readable")
    assert ends["good.jpg"] == ends["map.tif"] == ends["scan.png"] == ("ok", None)
    # 4 columns and 3 rows of tiles at steps of 90 pixels, and the overview.
    assert sum(row["source_file"] == "scan.png" for row in rows) == 4 * 3 + 1
    totals = {tally.unit: tally for tally in verdict.account.totals}
    outcomes = dict(totals["pixels"].outcomes)
    assert outcomes["ok"] >= 200 * 150 + 130 * 90 + 300 * 210
    assert totals["pixels"].refused == 50_000**2
    assert totals["bytes"].balanced
    tiles = [row for row in rows if row["source_file"] == "map.tif"]
    place = SentImage.of(tiles[-1])
    assert place is not None
    assert place.crs_point((place.sent_width, place.sent_height)) == (500000 + 130 * 10, 5200000 - 90 * 10)


def test_pixels_of_one_lost_tile_are_unfinished(folder: Path, tmp_path: Path) -> None:
    """Only those that no other tile holds."""
    spec = job(folder / "scan.png", tile={"size": 150, "overlap": 50})
    results = s1batch.run(spec, tmp_path / "out", limit=1)
    account = results.verify().account
    (tally,) = account.totals
    assert {name: count for name, count in tally.outcomes if count} == {
        "ok": 150 * 150,
        "unfinished": 300 * 210 - 150 * 150,
    }


def test_a_changed_caption_is_noticed(folder: Path, tmp_path: Path) -> None:
    """It was part of the plan, as the image is."""
    spec = job(folder / "good.jpg")
    s1batch.plan(spec, tmp_path / "out")
    (folder / "good.txt").write_text("Another one.")
    os.utime(folder / "good.txt", ns=(1, 1))
    (row,) = rows_of(s1batch.run(spec, tmp_path / "out"))
    assert (row["outcome"], row["reason"]) == ("unreadable", "source_changed")
    assert "good.txt" in row["detail"]
