"""Whole runs over images: one row for every chunk, every pixel accounted for, proved by `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import s1batch
from s1batch.geometry import SentImage
from tests.readers.images.pictures import DATA, colours, saved
from tests.readers.images.test_bad_images import CASES, JPEG


def job(folder: Path, **source: Any) -> dict[str, Any]:
    return {
        "source": {"kind": "images", "paths": str(folder), **source},
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
    assert verdict.account is not None
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


def test_pixels_of_a_damaged_tile_are_counted_as_such(folder: Path, tmp_path: Path) -> None:
    """The sixth tile of the file begins the second row, 32 x 32 pixels; all others can be read."""
    spec = job(folder / "damaged.tif", tile={"size": 32, "overlap": 0, "edge": "pad"})
    account = s1batch.run(spec, tmp_path / "out").verify().account
    assert account is not None
    (tally,) = account.totals
    outcomes = {name: count for name, count in tally.outcomes if count}
    assert outcomes == {"ok": 130 * 90 - 32 * 32, "unreadable": 32 * 32}


def test_a_changed_caption_is_noticed(folder: Path, tmp_path: Path) -> None:
    """It was part of the plan, as the image is."""
    (folder / "second.jpg").write_bytes(JPEG)
    (folder / "second.txt").write_text("Another good one.")
    spec = job(folder, paths=[str(folder / "good.jpg"), str(folder / "second.jpg")])
    s1batch.run(spec, tmp_path / "out", options=s1batch.RunOptions(limit=1))
    (folder / "second.txt").write_text("Something else.")
    (good, row) = rows_of(s1batch.run(spec, tmp_path / "out"))
    assert good["outcome"] == "ok"
    assert (row["outcome"], row["reason"]) == ("unreadable", "source_changed")
    assert "second.txt" in row["detail"]
