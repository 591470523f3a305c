"""A box of a stored image as it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from s1batch.errors import SourceError
from s1batch.geometry import fitted_size
from s1batch.readers.images.facts import PageFacts, StoredImage, StoredPicture, StoredValues
from s1batch.readers.images.headers import Header, ends_well
from s1batch.readers.images.raster import RasterFile
from s1batch.readers.images.scaling import ValueRange, grey_levels
from s1batch.readers.images.sending import encoded, filled_up
from s1batch.readers.images.tiles import Box
from s1batch.records import ImagePart

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from s1batch.readers.images.spec import ImageSource

BAND_PIXELS = 4_194_304
"""Pixels that are read at once of an image that is scaled down as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """What is sent of a box.

    Attributes:
        part: The encoded image.
        size: Its width and height.
        converted: What was done to the pixels, in words; empty where the bytes are those of the file.
        low: Value that became black; None where values of 8 bits are shown as they are.
        high: Value that became white.
        scaling: The rule that they follow from; empty likewise.
    """

    part: ImagePart
    size: tuple[int, int]
    converted: str = ""
    low: float | None = None
    high: float | None = None
    scaling: str = ""


def sent_size(box: Box, spec: ImageSource, *, overview: bool = False) -> tuple[int, int]:
    """Return width and height of a box as it is sent."""
    side = spec.max_side
    if overview and spec.tile is not None:
        side = min(spec.tile.size, side or spec.tile.size)
    return fitted_size(box.width, box.height, max_pixels=spec.max_pixels, max_side=side)


def as_it_is(data: bytes, header: Header, box: Box, size: tuple[int, int]) -> Shown | None:
    """Return the bytes of a file where they may be sent as they are; None where they must be converted.

    Raises:
        SourceError: They are cut off.
    """
    if not header.plain or size != (header.width, header.height) or size != (box.width, box.height):
        return None
    if not ends_well(data, header):
        # Cut off, which the decoder finds, or followed by something else, which harms nobody.
        RasterFile(data, header).picture(0, box, size)
    return Shown(part=ImagePart(data, header.mime), size=size)


def converted(
    stored: StoredImage, page: int, facts: PageFacts, box: Box, size: tuple[int, int], found: ValueRange | None
) -> Shown:
    """Decode a box, scale it and encode it.

    Args:
        stored: The open file.
        page: Which page.
        facts: What is known of it.
        box: May reach beyond the page; what lies outside is black.
        size: What it is scaled to.
        found: The range of the page's values; None for a file whose pixels have 8 bits.

    Raises:
        SourceError: It cannot be decoded.
    """
    inside = box.clipped(facts.width, facts.height)
    if inside.width < 1 or inside.height < 1:
        raise SourceError("source_changed", "the image is smaller than it was; plan again")
    said = [] if size == (box.width, box.height) else ["scaled"]
    if found is None:
        # Where the box is padded it is scaled only after that.
        wanted = size if inside == box else (inside.width, inside.height)
        picture, words = cast(StoredPicture, stored).picture(page, inside, wanted)
        said = [word for word in (words, *said) if word]
    else:
        picture = _grey_picture(cast(StoredValues, stored), page, inside, size if inside == box else None, found)
        said = ["values to grey levels" if found.rule else "decoded", *said]
    if inside != box:
        picture = filled_up(picture, (box.width, box.height))
        said.append("filled up with black")
    part = encoded(picture, size, lossy=facts.lossy)
    deep = found is not None and bool(found.rule)
    return Shown(
        part=part,
        size=size,
        converted="; ".join(said) or "decoded",
        low=found.low if found is not None and deep else None,
        high=found.high if found is not None and deep else None,
        scaling=found.rule if found is not None else "",
    )


def _grey_picture(
    stored: StoredValues, page: int, box: Box, size: tuple[int, int] | None, found: ValueRange
) -> Picture:
    """Return a box in grey levels or colours; one that is much larger than `size` is averaged band by band."""
    from PIL import Image

    factor = 1 if size is None else max(min(box.width // size[0], box.height // size[1]), 1)
    if factor == 1 and box.pixels <= BAND_PIXELS:
        return Image.fromarray(grey_levels(stored.values(page, box), found))
    rows = max(BAND_PIXELS // box.width // factor, 1) * factor
    bands: list[np.ndarray] = []
    for y in range(0, box.height, rows):
        band = Box(box.x, box.y + y, box.width, min(rows, box.height - y))
        picture = Image.fromarray(grey_levels(stored.values(page, band), found))
        bands.append(np.asarray(picture.reduce(factor) if factor > 1 else picture))
    return Image.fromarray(np.concatenate(bands))
