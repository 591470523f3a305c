"""Damage of every kind is one row each, with a reason, and costs no other image."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from astropy.io import fits

from s1batch.errors import MissingExtra
from tests.readers.images.pictures import DATA, colours, planned, reader_of, records, saved
from tests.readers.images.test_formats import DICOM, FITS

JPEG = saved(colours(200, 150), "JPEG")
PNG = saved(colours(200, 150), "PNG")
WEBP = saved(colours(200, 150), "WEBP")


def huge_png(side: int) -> bytes:
    """A PNG that says it is large; its pixels are not there."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def damaged_tiff() -> bytes:
    """A tile in the middle is no deflate any more."""
    data = bytearray((DATA / "utm_uint16_tiled.tif").read_bytes())
    with tifffile.TiffFile(DATA / "utm_uint16_tiled.tif") as file:
        offset = file.pages[0].dataoffsets[5]
    data[offset : offset + 40] = b"\xff" * 40
    return bytes(data)


def cut_fits(name: str) -> bytes:
    data = (FITS / "hdu" / "compressed" / "tests" / "data" / name).read_bytes()
    return data[: len(data) * 2 // 3]


CASES: dict[str, tuple[bytes, str, str]] = {
    "cut.jpg": (JPEG[: len(JPEG) // 2], "decode_error", "truncated"),
    "cut_at_head.jpg": (JPEG[:30], "decode_error", "cannot be decoded"),
    "cut.png": (PNG[: len(PNG) // 2], "decode_error", "truncated"),
    "cut.webp": (WEBP[: len(WEBP) // 2], "decode_error", "cannot be decoded"),
    "flipped.png": (
        PNG[:200] + bytes([PNG[200] ^ 0xFF]) + PNG[201:-12] + b"x" * 12,
        "decode_error",
        "cannot be decoded",
    ),
    "empty.jpg": (b"", "empty_file", "empty"),
    "text.png": (b"this is no image\n", "unknown_format", "no JPEG"),
    "moving.jpg": (b"GIF89a" + b"\0" * 100, "unknown_format", "no JPEG"),
    "cut.tif": ((DATA / "utm_uint16_tiled.tif").read_bytes()[:1500], "decode_error", "cut off"),
    "headless.tif": (b"II*\0\x08\0\0\0", "not_readable", "no page"),
    "damaged.tif": (damaged_tiff(), "decode_error", "cannot be decoded"),
    "cut.fits": (cut_fits("m13.fits"), "decode_error", "cut off"),
    "cut_compressed.fits": (cut_fits("m13_rice.fits"), "decode_error", "FITS"),
    "table.fits": ((FITS / "tests" / "data" / "btable.fits").read_bytes(), "no_match", "no image"),
    "cut.dcm": ((DICOM / "MR_small.dcm").read_bytes()[:6000], "decode_error", "DICOM"),
    "report.dcm": ((DICOM / "reportsi.dcm").read_bytes(), "no_match", "no image"),
    "bomb.png": (huge_png(50_000), "too_many_pixels", "50,000 x 50,000 pixels"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, (data, _, _) in CASES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "good.jpg").write_bytes(JPEG)
    return tmp_path


def test_each_case_is_one_row_with_its_reason(folder: Path) -> None:
    found = {record.chunk.inputs[0].path: record for record in records(folder)}
    assert found.keys() == CASES.keys() | {"good.jpg"}
    assert found["good.jpg"].refusal is None
    for name, (_, reason, said) in CASES.items():
        refusal = found[name].refusal
        assert refusal is not None, name
        assert (refusal.reason, refusal.outcome) == (
            reason,
            "refused" if reason == "too_many_pixels" else "unreadable",
        ), refusal
        assert said in refusal.detail
        assert name in refusal.detail
        assert "\n" not in refusal.detail


def test_damage_is_found_in_tiles_too(folder: Path) -> None:
    """A damaged tile of a TIFF costs the boxes that touch it, and no other one."""
    found = records(
        folder / "damaged.tif", tile={"size": 32, "overlap": 0, "edge": "pad"}, scaling="window", value_window=(0, 5000)
    )
    assert [record.refusal is None for record in found].count(False) == 1
    found = records(folder / "damaged.tif", tile={"size": 32, "overlap": 0, "edge": "pad"})
    assert [record.refusal is None for record in found].count(False) == 1


def test_pillow_never_fills_up_what_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where another library told it to."""
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for name in ("cut.jpg", "cut.png"):
        (record,) = records(folder / name)
        assert record.refusal is not None


def test_a_large_png_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """Its header is all that is read; with a higher limit it would be decoded."""
    (tmp_path / "bomb.png").write_bytes(huge_png(20_000))
    (entry,), (item,) = planned(reader_of(tmp_path, tile={"size": 1024}))
    assert entry.refusal is not None
    assert (item.status, item.count) == ("selected", 20_000**2)
    (entry, *_), _ = planned(reader_of(tmp_path, max_decode_pixels=400_000_000))
    assert entry.refusal is None


def test_a_file_that_shrinks_between_plan_and_reading_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    reader = reader_of(tmp_path)
    (entry,), _ = planned(reader)
    (tmp_path / "a.png").write_bytes(saved(colours(50, 50), "PNG"))
    (record,) = reader.read([entry.chunk])
    assert record.refusal is not None
    assert record.refusal.reason == "source_changed"
    os.unlink(tmp_path / "a.png")
    (record,) = reader.read([entry.chunk])
    assert record.refusal is not None
    assert record.refusal.reason == "source_missing"


@pytest.mark.parametrize(
    ("library", "file"), [("tifffile", DATA / "utm_uint16_tiled.tif"), ("pydicom", DICOM / "CT_small.dcm")]
)
def test_a_missing_library_is_one_line_with_the_command(library: str, file: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=rf"need {library}: pip install 's1batch\[images\]'"):
        records(file)


def test_a_missing_astropy_is_one_line_with_the_command(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "astropy.io.fits", None)
    with pytest.raises(MissingExtra, match=r"need astropy: pip install 's1batch\[images\]'"):
        records(FITS / "tests" / "data" / "scale.fits")


def test_values_without_a_grey_level_are_a_row(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "complex.tif", np.ones((20, 20), np.complex64))
    fits.writeto(tmp_path / "nan.fits", np.full((20, 20), np.nan, np.float32))
    first, second = records(tmp_path)
    assert first.refusal is not None
    assert second.refusal is not None
    assert (first.refusal.reason, second.refusal.reason) == ("not_readable", "not_finite")
