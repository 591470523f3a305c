"""Images on their way to the tower: sizes, pixels, and what is refused before a pixel is decoded."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from s1batch.engine.images import FORMATS, MOST_DECODED_PIXELS, image_refusal, measured
from s1batch.engine.reference.images import cut, normalised
from s1batch.engine.tokens import image_tokens
from s1batch.errors import EngineError
from s1batch.records import ImagePart
from tests.engine.reference.conftest import ask, picture


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> ImagePart:
    file = BytesIO()
    image.save(file, kind, **options)
    return ImagePart(file.getvalue(), f"image/{kind.lower()}")


def claiming(width: int, height: int) -> ImagePart:
    """A PNG of a few bytes whose header claims any size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return ImagePart(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("size", [(320, 256), (33, 500), (1, 1), (700, 450), (6400, 32)])
@pytest.mark.parametrize("kind", FORMATS)
def test_patches_are_those_of_the_public_image_processor(size: tuple[int, int], kind: str) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    part = picture(*size, kind=kind)
    processor = Qwen2VLImageProcessorPil(
        patch_size=16,
        temporal_patch_size=2,
        merge_size=2,
        size={"shortest_edge": 65_536, "longest_edge": 16_777_216},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    wanted = processor(images=Image.open(BytesIO(part.data)), return_tensors="np")
    patches = cut(part)
    assert [1, patches.rows, patches.columns] == wanted["image_grid_thw"][0].tolist()
    np.testing.assert_allclose(normalised(patches.pixels_PV), wanted["pixel_values"], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 900), height=st.integers(1, 900))
def test_there_are_four_patches_for_every_token(width: int, height: int) -> None:
    if max(width, height) > 200 * min(width, height):
        return
    part = encoded(Image.new("RGB", (width, height)))
    patches = cut(part)
    assert measured(part) == (width, height)
    assert len(patches.pixels_PV) == patches.rows * patches.columns == 4 * image_tokens(width, height)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_eight_bit_picture_becomes_rgb(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    patches = cut(picture(320, 256, mode=mode, kind=kind))
    assert patches.pixels_PV.shape == (320, 768)
    assert patches.pixels_PV.std() > 20


def test_pixels_stay_as_they_are_stored_whatever_an_orientation_tag_says() -> None:
    image = Image.open(BytesIO(picture(320, 256).data))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(image, exif=exif)
    assert measured(turned) == (320, 256)
    assert np.array_equal(cut(turned).pixels_PV, cut(encoded(image)).pixels_PV)


def gif() -> ImagePart:
    return encoded(Image.new("RGB", (64, 64)), "GIF")


BROKEN = {
    "nothing": ImagePart(b""),
    "text": ImagePart(b"no image at all"),
    "half a header": ImagePart(picture(64, 64).data[:20]),
    "another format": gif(),
    "sixteen bits": encoded(Image.fromarray(np.full((64, 64), 40_000, np.uint16))),
    "a bomb": claiming(30_000, 30_000),
    "a larger bomb": claiming(2**31 - 1, 2**31 - 1),
    "just too large": claiming(8000, MOST_DECODED_PIXELS // 8000 + 1),
    "a line": encoded(Image.new("RGB", (201, 1))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_picture_for_the_model_is_told_from_its_header(name: str) -> None:
    for look in (measured, cut):
        with pytest.raises(EngineError) as caught:
            look(BROKEN[name])
        assert caught.value.reason == "preprocess_failed"
        assert caught.value.detail


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_that_breaks_off_is_no_grey_picture(kind: str) -> None:
    data = picture(320, 256, kind=kind).data
    with pytest.raises(EngineError) as caught:
        cut(ImagePart(data[: len(data) // 2]))
    assert caught.value.reason == "preprocess_failed"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_torn_picture_is_refused_whatever_another_library_told_pillow(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDeploy sets this for its process, and would answer about a picture that is grey below."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole = picture(320, 256, kind=kind)
    torn = ImagePart(whole.data[: len(whole.data) * 2 // 3], whole.mime)
    assert image_refusal(ask(images=(whole,))) is None
    refusal = image_refusal(ask(images=(whole, torn)))
    assert refusal is not None
    assert (refusal.outcome, refusal.reason) == ("refused", "preprocess_failed")
    assert refusal.detail.startswith("image 2: ")


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(FORMATS), where=st.floats(0, 1), value=st.integers(0, 255), cut_at=st.floats(0.2, 1))
def test_damage_is_an_error_of_this_image_or_goes_unnoticed(kind: str, where: float, value: int, cut_at: float) -> None:
    data = bytearray(picture(64, 48, kind=kind).data)
    data[int(where * (len(data) - 1))] = value
    part = ImagePart(bytes(data[: int(cut_at * len(data))]))
    reasons = []
    try:
        cut(part)
    except EngineError as error:
        reasons.append(error.reason)
    assert set(reasons) <= {"preprocess_failed"}


def test_images_are_measured_without_torch() -> None:
    import subprocess
    import sys

    code = "import sys, s1batch.engine.reference.images; assert not {'torch', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
