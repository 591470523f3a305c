"""Which bytes pass as they are, and what becomes of those that do not."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from s1batch.readers.images.headers import ends_well, read_header
from s1batch.readers.images.raster import turned_array, upright
from tests.readers.images.pictures import colours, levels, record_of, records, saved, seen, sent, sent_bytes

RGB = colours(96, 64)
GREY = RGB[..., 0]


def write(folder: Path, data: bytes, name: str = "a.img") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize(
    ("pixels", "kind", "options"),
    [
        (RGB, "JPEG", {}),
        (GREY, "JPEG", {"progressive": True}),
        (
            RGB,
            "JPEG",
            {"subsampling": 0, "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()},
        ),
        (RGB, "PNG", {}),
        (GREY, "PNG", {"dpi": (300, 300)}),
        (RGB, "WEBP", {}),
        (RGB, "WEBP", {"lossless": True}),
    ],
)
def test_plain_files_pass_byte_for_byte(tmp_path: Path, pixels: Any, kind: str, options: dict[str, Any]) -> None:
    """Whatever their names."""
    data = saved(pixels, kind, **options)
    record = record_of(write(tmp_path, data))
    assert sent_bytes(record) == data
    assert record.lineage["converted"] == ""
    header = read_header(data)
    assert header is not None
    assert (header.width, header.height) == (96, 64)
    assert ends_well(data, header)
    assert not ends_well(data[:-5], header)


def convertible() -> list[tuple[str, bytes, str]]:
    palette = Image.fromarray(RGB).quantize(16)
    clear = saved(palette, "PNG", transparency=3)
    veiled = Image.fromarray(np.dstack([RGB, GREY]))
    return [
        ("palette", saved(palette, "PNG"), "P to RGB"),
        ("palette with transparency", clear, "transparency over white"),
        ("a transparent colour", saved(RGB, "PNG", transparency=tuple(map(int, RGB[3, 3]))), "transparency over white"),
        ("grey with transparency", saved(Image.fromarray(GREY).convert("LA"), "PNG"), "transparency over white"),
        ("one bit", saved(Image.fromarray(GREY).convert("1"), "PNG"), "decoded"),
        ("CMYK", saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"), "CMYK to RGB"),
        (
            "WebP with transparency",
            saved(veiled, "WEBP", lossless=True, exact=True),
            "transparency over white",
        ),
    ]


@pytest.mark.parametrize(
    ("data", "said"), [case[1:] for case in convertible()], ids=[case[0] for case in convertible()]
)
def test_other_colours_become_grey_or_rgb(tmp_path: Path, data: bytes, said: str) -> None:
    """As Pillow's own conversion over white has them."""
    record = record_of(write(tmp_path, data))
    assert record.lineage["converted"] == said or said in record.lineage["converted"]
    given = Image.open(BytesIO(data))
    over = Image.new("RGBA", given.size, "white")
    over.alpha_composite(given.convert("RGBA"))
    wanted = np.asarray(over.convert("RGB")).astype(int)
    shown = np.asarray(sent(record).convert("RGB")).astype(int)
    # A JPEG is sent as a JPEG again.
    assert np.abs(shown - wanted).max() <= (0 if record.lineage["image_format"] != "jpeg" else 24)
    assert np.abs(shown - wanted).mean() <= (0 if record.lineage["image_format"] != "jpeg" else 2)


def test_a_foreign_colour_profile_is_converted(tmp_path: Path) -> None:
    """Swapped primaries would show as wrong colours otherwise; a grey file with a profile passes."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    swapped = bytes(profile).replace(b"rXYZ", b"tmpX").replace(b"gXYZ", b"rXYZ").replace(b"tmpX", b"gXYZ")
    foreign = swapped.replace(b"sRGB", b"odd!").replace("sRGB".encode("utf-16-be"), "odd!".encode("utf-16-be"))
    red = np.full((40, 40, 3), (200, 10, 10), np.uint8)
    shown = seen(write(tmp_path, saved(red, "PNG", icc_profile=foreign)))
    assert shown[0, 0, 1] > shown[0, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(RGB, "JPEG", exif=exif, quality=95)
    record = record_of(write(tmp_path, data))
    wanted = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    assert sent(record).size == wanted.size == (record.lineage["image_width"], record.lineage["image_height"])
    assert np.abs(np.asarray(sent(record)).astype(int) - np.asarray(wanted).astype(int)).mean() < 2
    assert (sent_bytes(record) == data) == (orientation == 1)
    turned = np.asarray(upright(Image.fromarray(RGB), orientation))
    np.testing.assert_array_equal(turned, turned_array(RGB, orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_webp_is_turned_by_the_exif_behind_its_pixels(tmp_path: Path, orientation: int) -> None:
    """Also where the plan reads no more than the first bytes of the file."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(2).integers(0, 256, (150, 200, 3)).astype(np.uint8)
    data = saved(pixels, "WEBP", lossless=True, exif=exif)
    assert len(data) > 65_536
    record = record_of(write(tmp_path, data))
    wanted = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    np.testing.assert_array_equal(np.asarray(sent(record)), np.asarray(wanted))
    assert (sent_bytes(record) == data) == (orientation == 1)


def test_a_large_jpeg_is_scaled_to_the_limits(tmp_path: Path) -> None:
    """By its decoder first, as far as that goes, then to the pixel."""
    data = saved(colours(1500, 900), "JPEG")
    path = write(tmp_path, data)
    for limits, size in (({"max_side": 300}, (300, 180)), ({"max_pixels": 60_000}, (316, 189))):
        record = record_of(path, **limits)
        assert sent(record).size == size
        assert record.lineage["converted"] == "scaled"
        wanted = Image.open(BytesIO(data)).resize(size, Image.Resampling.BOX)
        assert np.abs(np.asarray(sent(record)).astype(int) - np.asarray(wanted).astype(int)).mean() < 4
        assert sent_bytes(record).startswith(b"\xff\xd8")


def test_what_was_lossless_is_scaled_to_png(tmp_path: Path) -> None:
    record = record_of(write(tmp_path, saved(colours(500, 300), "PNG")), max_side=100)
    assert sent(record).size == (100, 60)
    assert sent_bytes(record).startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_frames_of_animations_are_chunks(tmp_path: Path, kind: str) -> None:
    frames = [Image.fromarray(colours(48, 32, seed)) for seed in range(3)]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, lossless=True)
    found = records(write(tmp_path, data))
    assert len(found) == 3
    for record, frame in zip(found, frames, strict=True):
        np.testing.assert_array_equal(np.asarray(sent(record)), np.asarray(frame))
    assert len(records(write(tmp_path, data), pages="first")) == 1


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_a_png_of_16_bits_is_scaled_and_not_cut(tmp_path: Path, samples: int) -> None:
    """Pillow would keep the upper byte of the colours, without a word. Written by libpng through imagecodecs."""
    values = np.random.default_rng(1).integers(20_000, 21_000, (30, 40, samples)).astype(np.uint16)
    record = record_of(write(tmp_path, bytes(imagecodecs.png_encode(values.squeeze()))), scaling="minmax")
    used = values[..., : 1 if samples < 3 else 3].squeeze()
    assert (record.lineage["value_low"], record.lineage["value_high"]) == (used.min(), used.max())
    wanted = levels(used, used.min(), used.max())
    assert np.abs(np.asarray(sent(record)).astype(int) - wanted).max() <= 1


def test_bytes_behind_the_end_do_no_harm(tmp_path: Path) -> None:
    """Cameras append previews; the file is decoded once to see that it is whole."""
    data = saved(RGB, "JPEG") + b"\0" * 500
    assert sent_bytes(record_of(write(tmp_path, data))) == data
