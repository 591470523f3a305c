"""Images before any engine sees them: read from their headers, and decoded whole, or refused.

A torn image must not be sent: LMDeploy, as some other libraries, tells Pillow to fill what is missing with grey. Works
without torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

from s1batch.errors import EngineError
from s1batch.records import ImagePart, Refusal, Request

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

FORMATS = ("JPEG", "PNG", "WEBP")
"""What is decoded; every other format of the library, and its risks, is left out."""

MOST_DECODED_PIXELS = 64_000_000
"""Largest image that is decoded at all, told from its header: 192 MB as RGB."""

WIDEST_RATIO = 200
"""Longest side over shortest; the processor refuses more."""

EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
"""Pixel types that become RGB without loss of range; deeper ones would be cut at 255."""


def measured(part: ImagePart) -> tuple[int, int]:
    """Return the width and height of an image as its header states them; no pixel is decoded.

    Raises:
        EngineError: It is no JPEG, PNG or WebP, too large to be decoded, too narrow, or deeper than eight bits.
    """
    with opened(part) as picture:
        return picture.size


def image_refusal(request: Request) -> Refusal | None:
    """Return why one of a request's images must not be sent, or None when all of them can be decoded whole."""
    for number, part in enumerate(request.images, start=1):
        try:
            with opened(part) as picture:
                picture.load()
        except EngineError as error:
            which = f"image {number}: " if len(request.images) > 1 else ""
            return Refusal(outcome="refused", reason=error.reason, detail=which + error.detail)
    return None


@contextmanager
def opened(part: ImagePart) -> Iterator[Picture]:
    """Open an image that may be decoded.

    Raises:
        EngineError: As in `measured`; also out of the block, when what is done there finds the image damaged.
    """
    from PIL import Image, ImageFile, UnidentifiedImageError

    # Set for the whole process by libraries that would rather see something; here half an image is none.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
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
