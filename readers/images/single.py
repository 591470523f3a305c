"""One image for a prompt from its bytes or its file, converted as those of `source: {kind: images}` are by default."""

from __future__ import annotations

from typing import cast

from s1batch.errors import SourceError
from s1batch.readers.images.facts import StoredImage, StoredValues
from s1batch.readers.images.opening import as_raster, header_of, open_to_read
from s1batch.readers.images.scaling import page_range
from s1batch.readers.images.showing import as_it_is, converted, sent_size
from s1batch.readers.images.spec import ImageSource
from s1batch.readers.images.tiles import Box
from s1batch.records import ImagePart

_DEFAULTS = ImageSource(kind="images", paths=(".",))


def part_of_bytes(data: bytes) -> ImagePart:
    """Return a JPEG, PNG or WebP as it is sent: the bytes themselves where the model takes them.

    Raises:
        SourceError: The bytes are no such image, are cut off, or hold too many pixels.
    """
    header = header_of(data)
    width, height = header.upright
    box = Box(0, 0, width, height)
    _check(box.pixels)
    shown = as_it_is(data, header, box, sent_size(box, _DEFAULTS))
    return shown.part if shown is not None else _converted(as_raster(data, header))


def part_of_file(path: str, name: str) -> ImagePart:
    """Return the first page of a file of any format as it is sent.

    Raises:
        SourceError: It is no image, cannot be decoded, or holds too many pixels.
        MissingExtra: The library that reads it is not installed.
        OSError: It cannot be opened.
    """
    opened, _ = open_to_read(path, name, None)
    if isinstance(opened, bytes):
        return part_of_bytes(opened)
    try:
        return _converted(opened)
    finally:
        opened.close()


def _converted(stored: StoredImage) -> ImagePart:
    facts = stored.facts(0)
    _check(facts.decode_pixels)
    box = Box(0, 0, facts.width, facts.height)
    found = page_range(cast(StoredValues, stored), 0, facts, _DEFAULTS) if hasattr(stored, "values") else None
    return converted(stored, 0, facts, box, sent_size(box, _DEFAULTS), found).part


def _check(pixels: int) -> None:
    if pixels > _DEFAULTS.max_decode_pixels:
        raise SourceError("too_many_pixels", f"{pixels:,} pixels; the most is {_DEFAULTS.max_decode_pixels:,}")
