"""From an encoded image to the pixels of its patches, as the image processor of Intern-S1-Pro makes them.

    decode -> RGB -> bicubic to `tokens.image_size` -> patches of 16 x 16, in blocks of 2 x 2 -> (x / 255 - 0.5) / 0.5

Pixels are taken as they are stored: no turn by an orientation tag, as in LMDeploy. Works without torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from s1batch.engine.tokens import IMAGE_PATCH, image_size
from s1batch.errors import EngineError
from s1batch.records import ImagePart

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

FORMATS = ("JPEG", "PNG", "WEBP")
"""What is decoded; every other format of the library, and its risks, is left out."""

MOST_DECODED_PIXELS = 64_000_000
"""Largest image that is decoded at all, told from its header: 192 MB as RGB."""

WIDEST_RATIO = 200
"""Longest side over shortest; the processor refuses more."""

FRAMES = 2
"""Frames of a patch; a still image is shown twice."""

EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
"""Pixel types that become RGB without loss of range; deeper ones would be cut at 255."""

MEAN, DEVIATION = 0.5, 0.5
"""Of every colour, after division by 255 (`image_mean`, `image_std` in preprocessor_config.json)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImagePatches:
    """An image cut into patches.

    Attributes:
        rows: Patches along the height; even.
        columns: Patches along the width; even.
        pixels_PV: uint8, (rows * columns, 3 * 16 * 16): colour, then row, then column. The patches are ordered by
            blocks of 2 x 2, in which they become one token.
    """

    rows: int
    columns: int
    pixels_PV: NDArray[np.uint8]


def measured(part: ImagePart) -> tuple[int, int]:
    """Return the width and height of an image as its header states them; no pixel is decoded.

    Raises:
        EngineError: It is no JPEG, PNG or WebP, too large to be decoded, too narrow, or deeper than eight bits.
    """
    with _opened(part) as picture:
        return picture.size


def cut(part: ImagePart) -> ImagePatches:
    """Decode an image and cut it into patches.

    Raises:
        EngineError: As in `measured`, or the image is damaged.
    """
    from PIL import Image

    with _opened(part) as picture:
        size = image_size(*picture.size)
        pixels_hwc = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    rows, columns = size[1] // IMAGE_PATCH, size[0] // IMAGE_PATCH
    blocks = pixels_hwc.reshape(rows // 2, 2, IMAGE_PATCH, columns // 2, 2, IMAGE_PATCH, 3)
    pixels_PV = blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, -1)
    return ImagePatches(rows=rows, columns=columns, pixels_PV=pixels_PV)


def normalised(pixels_PV: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return patches as the tower takes them: (P, 3 * 2 * 16 * 16), float32, each frame the same."""
    scaled = (pixels_PV.astype(np.float32) / np.float32(255) - np.float32(MEAN)) / np.float32(DEVIATION)
    colours = scaled.reshape(len(scaled), 3, 1, -1)
    return np.repeat(colours, FRAMES, axis=2).reshape(len(scaled), -1)


@contextmanager
def _opened(part: ImagePart) -> Iterator[Picture]:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            with Image.open(BytesIO(part.data), formats=FORMATS) as picture:
                _check(picture)
                yield picture
    except UnidentifiedImageError as error:
        raise EngineError("preprocess_failed", f"{len(part.data):,} bytes that are no {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise EngineError("preprocess_failed", f"the image is too large to be decoded: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # The decoders raise all of these on damaged files; a SyntaxError is Pillow's word for a broken PNG chunk.
        raise EngineError("preprocess_failed", f"the image cannot be decoded: {error}") from error


def _check(picture: Picture) -> None:
    width, height = picture.size
    if width * height > MOST_DECODED_PIXELS:
        raise EngineError(
            "preprocess_failed",
            f"an image of {width:,} x {height:,} pixels; the most is {MOST_DECODED_PIXELS:,}: cut it into tiles",
        )
    if max(width, height) > WIDEST_RATIO * min(width, height):
        raise EngineError(
            "preprocess_failed",
            f"an image of {width:,} x {height:,} pixels is over {WIDEST_RATIO} times as long as wide",
        )
    if picture.mode not in EIGHT_BIT_MODES:
        raise EngineError(
            "preprocess_failed",
            f"pixels of type {picture.mode} would be cut at 255; scale the image to eight bits first",
        )
