"""Real files of every format, each written by another program than the one that reads it, arrive with their pixels."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import astropy
import imagecodecs
import matplotlib
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels.processing import apply_color_lut

from tests.readers.images.pictures import (
    DATA,
    colours,
    levels,
    planned,
    reader_of,
    record_of,
    records,
    saved,
    seen,
    sent,
    sent_bytes,
)

SAMPLES = Path(matplotlib.get_data_path()) / "sample_data"
DICOM = Path(pydicom.__file__).parent / "data" / "test_files"
FITS = Path(astropy.__file__).parent / "io" / "fits"
Y, X = np.mgrid[0:90, 0:130]


def close(shown: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> None:
    """Equal but for the rounding of halves in another precision."""
    difference = np.abs(shown.astype(int) - wanted.astype(int))
    assert shown.shape == wanted.shape
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


class TestPhotographs:
    def test_a_jpeg_passes_as_it_is(self) -> None:
        """matplotlib's photograph of Grace Hopper."""
        record = record_of(SAMPLES / "grace_hopper.jpg")
        assert sent_bytes(record) == (SAMPLES / "grace_hopper.jpg").read_bytes()
        assert record.lineage["converted"] == ""
        assert (record.lineage["image_format"], record.lineage["image_width"]) == ("jpeg", 512)

    def test_a_png_with_transparency_is_laid_over_white(self) -> None:
        """matplotlib's photograph of a flower is RGBA."""
        path = SAMPLES / "Minduka_Present_Blue_Pack.png"
        given = np.asarray(Image.open(path).convert("RGBA")).astype(float)
        alpha = given[..., 3:] / 255
        wanted = given[..., :3] * alpha + 255 * (1 - alpha)
        assert np.abs(seen(path) - wanted).max() <= 1

    @pytest.mark.parametrize("lossless", [True, False])
    def test_a_webp_passes_as_it_is(self, tmp_path: Path, lossless: bool) -> None:
        """Written by libwebp through imagecodecs."""
        pixels = colours(90, 60)
        data = imagecodecs.webp_encode(pixels, level=80, lossless=lossless)
        (tmp_path / "a.webp").write_bytes(data)
        record = record_of(tmp_path)
        assert sent_bytes(record) == data
        if lossless:
            np.testing.assert_array_equal(np.asarray(sent(record)), pixels)


class TestGeoTiff:
    def test_16_bit_tiles_with_nodata(self) -> None:
        values = 1000 + 7 * X + 11 * Y
        valid = ~((Y < 5) & (X < 7))
        low, high = np.percentile(values[valid], [0.5, 99.5])
        record = record_of(DATA / "utm_uint16_tiled.tif")
        close(np.asarray(sent(record)), np.where(valid, levels(values, low, high), 0).astype(np.uint8))
        lineage = record.lineage
        assert (lineage["value_low"], lineage["value_high"]) == pytest.approx((low, high))
        assert (lineage["scaling"], lineage["crs"]) == ("percentile", "EPSG:32633")
        assert lineage["transform"] == [500000, 10, 0, 5200000, 0, -10]
        assert lineage["pixel_size"] == [10, 10]

    def test_floats_in_zstd_with_nodata(self) -> None:
        """Pillow cannot read it, and other libraries were seen to return wrong values without a word."""
        values = (np.sin(X / 20) + np.cos(Y / 15)).astype(np.float32)
        valid = ~((Y >= 40) & (Y < 44) & (X >= 10) & (X < 20))
        record = record_of(DATA / "geographic_float32_zstd.tif", scaling="minmax")
        low, high = float(values[valid].min()), float(values[valid].max())
        assert (record.lineage["value_low"], record.lineage["value_high"]) == (low, high)
        close(np.asarray(sent(record)), np.where(valid, levels(values, low, high), 0).astype(np.uint8))
        assert record.lineage["transform"] == pytest.approx([11, 0.01, 0, 48, 0, -0.005])

    def test_a_bigtiff_with_a_tile_that_was_never_written(self) -> None:
        wanted = np.stack([X * 2 % 256, Y * 3 % 256, (X + Y) % 256], axis=-1).astype(np.uint8)
        wanted[32:64, 32:64] = 0
        record = record_of(DATA / "bigtiff_rgb_sparse.tif")
        np.testing.assert_array_equal(np.asarray(sent(record)), wanted)
        assert record.lineage["transform"] == [100, 2, 0.5, 900, -0.5, -2]

    def test_separate_bands_of_points(self) -> None:
        """The tie point is the middle of a pixel; GDAL's transform begins at its corner."""
        y, x = np.mgrid[0:30, 0:40]
        values = np.stack([3 * x - 5 * y - 100 * band for band in range(4)], axis=-1)
        record = record_of(DATA / "point_int16_bands.tif", scaling="window", value_window=(-300, 100))
        close(np.asarray(sent(record)), levels(values[..., :3], -300, 100))
        assert record.lineage["transform"] == [600000, 30, 0, 5300000, 0, -30]
        shown = seen(DATA / "point_int16_bands.tif", scaling="window", value_window=(-500, 0), bands=(3,))
        close(shown, levels(values[..., 3], -500, 0))

    def test_smaller_copies_and_masks_are_no_pages(self) -> None:
        """They are in the account as what they are."""
        path = DATA / "grey_overview_mask.tif"
        np.testing.assert_array_equal(seen(path), ((X + 2 * Y) % 256).astype(np.uint8))
        _, items = planned(reader_of(path))
        assert [(item.status, item.count) for item in items] == [
            ("selected", 130 * 90),
            ("not_selected", 130 * 90),
            ("duplicate", 65 * 45),
            ("not_selected", 65 * 45),
        ]


class TestTiffByPillow:
    @pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
    @pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "P", "1", "I;16", "F", "LA", "RGBA", "LAB"])
    def test_modes_and_compressions(self, tmp_path: Path, mode: str, compression: str) -> None:
        rgb = Image.fromarray(colours(70, 50))
        if mode == "I;16":
            image = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 200)
        elif mode == "LAB":
            image = lab_grey()
        else:
            image = rgb.convert(mode)
        (tmp_path / "a.tif").write_bytes(saved(image, "TIFF", compression=compression))
        shown = seen(tmp_path, scaling="minmax")
        match mode:
            case "I;16" | "F":
                values = np.asarray(image)
                close(shown, levels(values, values.min(), values.max()))
            case "LA" | "RGBA":
                np.testing.assert_array_equal(shown, np.asarray(rgb.convert(mode[:-1])))
            case "LAB":
                assert np.ptp(shown.astype(int), axis=-1).max() <= 2
                assert np.abs(shown.astype(int) - 119).max() <= 2
            case "L" | "1":
                np.testing.assert_array_equal(shown, np.asarray(image.convert("L")))
            case _:
                np.testing.assert_array_equal(shown, np.asarray(image.convert("RGB")))

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_jpeg_inside_a_tiff(self, tmp_path: Path, mode: str) -> None:
        """YCbCr is undone by the decoder; a photograph is sent as JPEG."""
        image = Image.fromarray(colours(120, 90)).convert(mode)
        (tmp_path / "a.tif").write_bytes(saved(image, "TIFF", compression="jpeg", quality=95))
        record = record_of(tmp_path)
        assert np.abs(np.asarray(sent(record)).astype(int) - np.asarray(image).astype(int)).mean() < 5
        assert sent_bytes(record).startswith(b"\xff\xd8")

    def test_pages_are_chunks_of_their_own(self, tmp_path: Path) -> None:
        frames = [Image.fromarray(colours(40 + 10 * number, 30, number)) for number in range(3)]
        (tmp_path / "a.tif").write_bytes(saved(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
        found = records(tmp_path)
        assert [record.lineage["page"] for record in found] == [0, 1, 2]
        for record, frame in zip(found, frames, strict=True):
            np.testing.assert_array_equal(np.asarray(sent(record)), np.asarray(frame))
        entries, items = planned(reader_of(tmp_path, pages="first"))
        assert len(entries) == 1
        assert [item.status for item in items] == ["selected", "not_selected", "not_selected"]

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_the_orientation_of_a_tiff_is_undone(self, tmp_path: Path, orientation: int) -> None:
        """As Pillow undoes it in a JPEG."""
        from PIL import ImageOps

        pixels = colours(70, 50)
        (tmp_path / "a.tif").write_bytes(saved(pixels, "TIFF", tiffinfo={274: orientation}))
        exif = Image.Exif()
        exif[274] = orientation
        wanted = ImageOps.exif_transpose(Image.open(BytesIO(saved(pixels, "PNG", exif=exif))))
        np.testing.assert_array_equal(seen(tmp_path), np.asarray(wanted))


def lab_grey() -> Image.Image:
    """L* = 50 and no colour; Pillow writes a* and b* of Lab as signed bytes."""
    image = Image.new("LAB", (70, 50))
    image.paste((128, 128, 128), (0, 0, 70, 50))
    return image


class TestFits:
    def test_scaled_integers_become_physical_values(self) -> None:
        """astropy's scale.fits: 16-bit integers with BSCALE and BZERO."""
        from astropy.io import fits

        path = FITS / "tests" / "data" / "scale.fits"
        values = fits.getdata(path).astype(np.float64)
        assert fits.getheader(path)["BZERO"]
        found = records(path, scaling="minmax")
        (record,) = found
        assert (record.lineage["value_low"], record.lineage["value_high"]) == (values.min(), values.max())
        close(np.asarray(sent(record)), levels(values, values.min(), values.max()))

    def test_a_compressed_image_of_the_sky(self) -> None:
        """astropy's m13_rice.fits, against the same field uncompressed."""
        from astropy.io import fits

        folder = FITS / "hdu" / "compressed" / "tests" / "data"
        values = fits.getdata(folder / "m13.fits")
        low, high = np.percentile(values, [0.5, 99.5])
        for name in ("m13.fits", "m13_rice.fits", "m13_gzip.fits"):
            record = record_of(folder / name)
            close(np.asarray(sent(record)), levels(values, low, high))
            assert record.lineage["pixel_unit"] in ("", "deg")

    def test_nan_is_drawn_black_and_does_not_count(self, tmp_path: Path) -> None:
        from astropy.io import fits

        values = np.linspace(-5, 5, 3000).reshape(50, 60).astype(np.float32)
        values[10:20, 10:20] = np.nan
        values[30, 30] = np.inf
        fits.writeto(tmp_path / "a.fits", values)
        record = record_of(tmp_path, scaling="minmax")
        assert record.lineage["value_low"] == -5
        shown = np.asarray(sent(record))
        assert not shown[10:20, 10:20].any()
        assert shown[30, 30] == 0

    def test_every_plane_of_every_image_is_a_page(self) -> None:
        """astropy's test0.fits has four images and test1.fits too; btable.fits none."""
        found = records(FITS / "tests" / "data" / "test0.fits")
        assert [record.lineage["page"] for record in found] == [0, 1, 2, 3]
        assert all(record.refusal is None for record in found)
        (none,) = records(FITS / "tests" / "data" / "btable.fits")
        assert none.refusal is not None
        assert none.refusal.reason == "no_match"

    def test_zscale_is_astropys(self) -> None:
        from astropy.io import fits
        from astropy.visualization import ZScaleInterval

        path = FITS / "hdu" / "compressed" / "tests" / "data" / "m13.fits"
        record = record_of(path, scaling="zscale")
        wanted = ZScaleInterval().get_limits(fits.getdata(path).astype(np.float64))
        assert (record.lineage["value_low"], record.lineage["value_high"]) == pytest.approx(tuple(map(float, wanted)))


class TestDicom:
    def test_hounsfield_units(self) -> None:
        """pydicom's CT_small.dcm: intercept -1024."""
        data = pydicom.dcmread(DICOM / "CT_small.dcm")
        values = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
        low, high = np.percentile(values, [0.5, 99.5])
        record = record_of(DICOM / "CT_small.dcm")
        assert (record.lineage["value_low"], record.lineage["value_high"]) == pytest.approx((low, high))
        close(np.asarray(sent(record)), levels(values, low, high))
        assert record.lineage["pixel_size"] == pytest.approx([0.661468, 0.661468])
        assert record.lineage["pixel_unit"] == "mm"

    def test_the_window_of_the_file(self) -> None:
        """pydicom's MR_small.dcm: centre 600, width 1600."""
        data = pydicom.dcmread(DICOM / "MR_small.dcm")
        record = record_of(DICOM / "MR_small.dcm", scaling="window")
        low, high = 600 - 0.5 - 1599 / 2, 600 - 0.5 + 1599 / 2
        assert (record.lineage["value_low"], record.lineage["value_high"], record.lineage["scaling"]) == (
            low,
            high,
            "window",
        )
        close(np.asarray(sent(record)), levels(data.pixel_array, low, high))

    def test_compressed_frames_equal_the_plain_one(self) -> None:
        """RLE, JPEG 2000 and JPEG-LS, the last through imagecodecs; big-endian and implicit too."""
        wanted = seen(DICOM / "MR_small.dcm")
        for name in ("RLE", "bigendian", "implicit", "jp2klossless", "jpeg_ls_lossless", "expb"):
            np.testing.assert_array_equal(seen(DICOM / f"MR_small_{name}.dcm"), wanted, err_msg=name)

    def test_monochrome1_is_inverted(self, tmp_path: Path) -> None:
        data = pydicom.dcmread(DICOM / "MR_small.dcm")
        data.PhotometricInterpretation = "MONOCHROME1"
        data.save_as(tmp_path / "a.dcm")
        np.testing.assert_array_equal(seen(tmp_path), 255 - seen(DICOM / "MR_small.dcm"))

    def test_frames_and_colours(self) -> None:
        """Two RGB frames in run lengths; a palette; YBR."""
        found = records(DICOM / "SC_rgb_rle_2frame.dcm")
        frames = pydicom.dcmread(DICOM / "SC_rgb_rle_2frame.dcm").pixel_array
        assert len(found) == 2
        for record, frame in zip(found, frames, strict=True):
            np.testing.assert_array_equal(np.asarray(sent(record)), frame)
        palette = pydicom.dcmread(DICOM / "examples_palette.dcm")
        wanted = apply_color_lut(palette.pixel_array, palette) >> 8
        np.testing.assert_array_equal(seen(DICOM / "examples_palette.dcm"), wanted)
        found = records(DICOM / "examples_ybr_color.dcm", pages="first")
        assert np.asarray(sent(found[0])).shape == (240, 320, 3)

    def test_a_file_without_preamble_is_known_by_its_name_and_first_tag(self) -> None:
        (record,) = records(DICOM / "ExplVR_LitEndNoMeta.dcm")
        assert record.refusal is not None
        assert record.refusal.detail.endswith("the DICOM file holds no image")

    def test_what_begins_as_a_tiff_may_be_a_dicom_file(self) -> None:
        """The preamble of MR_small.dcm is a TIFF header."""
        assert (DICOM / "MR_small.dcm").read_bytes().startswith(b"II*\0")
        assert record_of(DICOM / "MR_small.dcm").lineage["image_format"] == "dicom"
