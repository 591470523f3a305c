"""Tiles: every pixel once apart from overlap, decoded as in the whole image, with their place on the map."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.geometry import SentImage, apply_transform
from s1batch.readers.images.spec import TileSpec
from s1batch.readers.images.tiff import TiffFile
from s1batch.readers.images.tiles import Box, tile_boxes
from tests.readers.images.pictures import DATA, colours, planned, reader_of, records, saved, sent


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(32, 100),
    st.integers(0, 50),
    st.sampled_from(["shift", "pad"]),
)
def test_every_pixel_is_in_a_tile_and_overlap_is_as_stated(
    width: int, height: int, size: int, overlap: int, edge: str
) -> None:
    tile = TileSpec(size=size, overlap=min(overlap, size // 2), edge=edge)
    boxes = list(tile_boxes(width, height, tile))
    assert len(set(boxes)) == len(boxes)
    seen = np.zeros((height, width), int)
    for box in boxes:
        inside = box.clipped(width, height)
        assert inside.x >= 0
        assert inside.width > 0
        assert inside.height > 0
        seen[inside.y : inside.y + inside.height, inside.x : inside.x + inside.width] += 1
        if edge == "shift":
            assert inside == box
            assert box.width == min(size, width)
        else:
            assert (box.width, box.height) == (size, size)
    assert seen.min() >= 1
    columns = sorted({box.x for box in boxes})
    steps = np.diff(columns)
    # Neighbours share just the overlap; only the last tile that was moved back shares more.
    assert (steps[:-1] == size - tile.overlap).all()
    if len(steps):
        assert 0 < steps[-1] <= size - tile.overlap
        assert edge == "shift" or steps[-1] == size - tile.overlap
    if tile.overlap == 0 and edge == "pad":
        assert seen.max() == 1


@pytest.mark.parametrize("edge", ["shift", "pad"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_tiles_show_the_pixels_of_the_whole(tmp_path: Path, kind: str, edge: str) -> None:
    pixels = colours(250, 170)
    (tmp_path / "a").write_bytes(saved(pixels, kind))
    found = records(tmp_path, tile={"size": 100, "overlap": 20, "edge": edge})
    assert len(found) == 3 * 2
    canvas = np.zeros((400, 400, 3), np.uint8)
    canvas[:170, :250] = pixels
    for record in found:
        lineage = record.lineage
        x, y, width, height = (lineage[f"tile_{side}"] for side in ("x", "y", "width", "height"))
        np.testing.assert_array_equal(np.asarray(sent(record)), canvas[y : y + height, x : x + width])
        assert (lineage["image_width"], lineage["image_height"], lineage["overview"]) == (250, 170, False)
        y_slice, x_slice = record.chunk.inputs[0].slices
        assert (y_slice.stop, x_slice.stop) == (min(y + height, 170), min(x + width, 250))


def test_tiles_of_deep_images_share_one_range(tmp_path: Path) -> None:
    """Else the same value would be of another grey in each tile."""
    values = np.tile(np.arange(200, dtype=np.float32), (150, 1))
    tifffile.imwrite(tmp_path / "a.tif", values)
    found = records(tmp_path, tile={"size": 100, "overlap": 0}, scaling="minmax")
    assert {(record.lineage["value_low"], record.lineage["value_high"]) for record in found} == {(0.0, 199.0)}
    assert np.asarray(sent(found[0])).max() < 128 < np.asarray(sent(found[1])).max()


def test_an_overview_shows_all_and_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(saved(colours(400, 200), "PNG"))
    found = records(tmp_path, tile={"size": 100, "overlap": 0}, overview=True)
    assert [record.lineage["overview"] for record in found] == [True] + [False] * 8
    assert sent(found[0]).size == (100, 50)
    assert found[0].chunk.inputs[0].slices[2].dim == "overview"
    assert len({record.chunk.key for record in found}) == 9


def test_small_images_are_sent_whole(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(saved(colours(90, 100), "PNG"))
    (record,) = records(tmp_path, tile={"size": 100, "overlap": 0}, overview=True)
    assert sent(record).size == (90, 100)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile": (32, 48), "compression": "zlib", "predictor": True},
        {"tile": (16, 16), "compression": "zstd"},
        {"rowsperstrip": 7, "compression": "lzma"},
        {"planarconfig": "separate", "tile": (32, 32)},
        {"planarconfig": "separate", "rowsperstrip": 10, "compression": "lzw"},
        {"byteorder": ">", "rowsperstrip": 9},
        {"byteorder": ">", "bigtiff": True, "tile": (64, 64), "compression": "deflate"},
        {"compression": "packbits", "rowsperstrip": 170},
    ],
    ids=str,
)
def test_a_box_of_any_layout_equals_the_page(tmp_path: Path, options) -> None:
    """Only the tiles and strips that a box touches are decoded, and they fit together."""
    pixels = (np.arange(170 * 250 * 3).reshape(170, 250, 3) % 65_521).astype(np.uint16)
    stored = pixels.transpose(2, 0, 1) if options.get("planarconfig") == "separate" else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options)
    file = TiffFile(str(tmp_path / "a.tif"))
    for box in (
        Box(0, 0, 250, 170),
        Box(31, 15, 1, 1),
        Box(30, 60, 100, 50),
        Box(200, 100, 50, 70),
        Box(0, 169, 250, 1),
    ):
        wanted = pixels[box.y : box.y + box.height, box.x : box.x + box.width]
        np.testing.assert_array_equal(file.values(0, box).values, wanted)
    file.close()


def test_a_tile_of_a_huge_image_decodes_little(tmp_path: Path) -> None:
    """50,000 x 50,000 pixels in a file that is nearly empty: no decode is larger than a tile, whatever its size is."""
    path = tmp_path / "huge.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        black = zlib.compress(bytes(512 * 512))
        writer.write(
            (black for _ in range(98 * 98)), shape=(50_000, 50_000), dtype="uint8", tile=(512, 512), compression="zlib"
        )
    assert os.path.getsize(path) < 10 * 2**20
    reader = reader_of(path, tile={"size": 1024, "overlap": 0})
    entries, (item,) = planned(reader)
    assert item.count == 50_000**2
    assert len(entries) == 49 * 49
    assert not any(entry.refusal for entry in entries)
    (record,) = reader.read([entries[-1].chunk])
    assert sent(record).size == (1024, 1024)
    # Without tiles it is averaged band by band.
    reader = reader_of(path, max_side=500, max_decode_pixels=1_000_000)
    (entry,), _ = planned(reader)
    assert entry.refusal is None
    assert entry.image_sizes == ((500, 500),)


def test_an_image_that_is_averaged_band_by_band_equals_one_that_is_scaled_at_once(tmp_path: Path) -> None:
    values = (np.add.outer(np.arange(3000), np.arange(4000)) * 4).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, tile=(256, 256), compression="zlib")
    (record,) = records(tmp_path, max_side=500, scaling="window", value_window=(0, 28_000))
    y, x = np.mgrid[0:375, 0:500]
    wanted = (x + y) * 8 * 4 / 28_000 * 255
    assert sent(record).size == (500, 375)
    assert np.abs(np.asarray(sent(record)) - wanted).max() < 2


def test_a_tile_knows_its_place_on_the_map() -> None:
    """The transform of a tile, applied to its pixels, is that of the whole image, applied to the same places."""
    whole = (500000.0, 10.0, 0.0, 5200000.0, 0.0, -10.0)
    for record in records(DATA / "utm_uint16_tiled.tif", tile={"size": 64, "overlap": 8}, max_side=32):
        place = SentImage.of(record.lineage)
        assert place is not None
        assert (place.sent_width, place.width) == (32, 64)
        original = place.original_point((5.5, 20.25))
        assert place.crs_point((5.5, 20.25)) == pytest.approx(apply_transform(whole, original))
        assert place.sent_point(original) == pytest.approx((5.5, 20.25))
