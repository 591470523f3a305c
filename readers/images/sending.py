"""From pixels to the bytes that are sent.

Photographs, which were compressed with loss already, become JPEG; everything else becomes PNG, which loses nothing.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from s1batch.records import ImagePart

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

JPEG_QUALITY = 90
PNG_COMPRESSION = 1
"""zlib's level: a third larger than the default, at a quarter of the time."""


def encoded(picture: Picture, size: tuple[int, int], *, lossy: bool) -> ImagePart:
    """Scale a grey or RGB image to a size and encode it."""
    from PIL.Image import Resampling

    if picture.size != size:
        picture = picture.resize(size, Resampling.BICUBIC, reducing_gap=2.0)
    file = BytesIO()
    if lossy:
        picture.save(file, "JPEG", quality=JPEG_QUALITY)
        return ImagePart(file.getvalue(), "image/jpeg")
    # Nothing of the file's own information, such as a profile that is applied already.
    picture.info = {}
    picture.save(file, "PNG", compress_level=PNG_COMPRESSION)
    return ImagePart(file.getvalue(), "image/png")


def filled_up(picture: Picture, size: tuple[int, int]) -> Picture:
    """Return an image in the upper left corner of a larger black one."""
    from PIL import Image

    canvas = Image.new(picture.mode, size)
    canvas.paste(picture, (0, 0))
    return canvas
