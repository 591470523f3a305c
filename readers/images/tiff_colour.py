"""From the samples of a TIFF page to grey or RGB values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from s1batch.errors import SourceError
from s1batch.readers.images.facts import Values

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MIN_IS_WHITE, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 2, 3, 5, 6
_LAB = 8
_PREMULTIPLIED, _ALPHA = 1, 2
_DECODED_TO_RGB = frozenset({6, 7, 33003, 33005, 33007, 34712, 34892, 50001, 50002})
"""Codes of compression whose decoders undo YCbCr themselves."""


def shown_colours(page: Any, stored: NDArray[Any], bands: Sequence[int] | None, nodata: float | None) -> Values:
    """Return what is shown of the samples of a box.

    Args:
        page: tifffile's page.
        stored: (H, W, samples).
        bands: Which samples, when the job says so.
        nodata: Value that stands for "nothing here".

    Raises:
        SourceError: `not_readable`: there is no such band, or the values are complex.
    """
    if stored.dtype.kind not in "buif":
        raise SourceError("not_readable", f"values of type {stored.dtype} have no grey level")
    samples = stored.shape[2]
    photometric = int(page.photometric)
    bits = int(page.bitspersample)
    small = stored.dtype.kind in "bu" and stored.dtype.itemsize == 1
    levels = (1 if stored.dtype == bool else 2 ** min(bits, 8) - 1) if small else None
    inverted = photometric == _MIN_IS_WHITE
    if bands is not None:
        if max(bands) >= samples:
            raise SourceError("not_readable", f"source.bands: the image has {samples} bands, from 0")
        chosen = stored[..., list(bands)]
        return _values(chosen, levels, inverted=inverted, nodata=nodata)
    if photometric == _PALETTE and page.colormap is not None:
        colours = (np.asarray(page.colormap) >> 8).astype(np.uint8).T
        return Values(values=colours[np.minimum(stored[..., 0], len(colours) - 1)], levels=255)
    if small and levels == 255:
        if photometric == _CMYK and samples >= 4:
            return Values(values=_by_pillow(stored[..., :4], "CMYK"), levels=255)
        if photometric == _YCBCR and samples == 3 and int(page.compression) not in _DECODED_TO_RGB:
            return Values(values=_by_pillow(stored, "YCbCr"), levels=255)
        if photometric == _LAB and samples == 3:
            return Values(values=_by_pillow(stored, "LAB"), levels=255)
        colours_count = 3 if photometric in (_RGB, _YCBCR) else 1
        extra = tuple(int(kind) for kind in page.extrasamples or ())
        if samples == colours_count + 1 and extra and extra[0] in (_PREMULTIPLIED, _ALPHA):
            shown = _over_white(stored[..., :colours_count], stored[..., -1:], extra[0] == _PREMULTIPLIED)
            return _values(shown, levels, inverted=inverted, nodata=None)
    return _values(stored[..., : 3 if samples >= 3 else 1], levels, inverted=inverted, nodata=nodata)


def _values(stored: NDArray[Any], levels: int | None, *, inverted: bool, nodata: float | None) -> Values:
    values = stored[..., 0] if stored.shape[2] == 1 else stored
    return Values(values=values, levels=levels, inverted=inverted, nodata=nodata)


def _by_pillow(stored: NDArray[Any], mode: str) -> NDArray[np.uint8]:
    """Convert by Pillow, whose Lab is TIFF's as bytes: a* and b* signed."""
    from PIL import Image

    height, width = stored.shape[:2]
    data = np.ascontiguousarray(stored, dtype=np.uint8).tobytes()
    image = Image.frombytes(mode, (width, height), data)
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        return np.asarray(converted, dtype=np.uint8)
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def _over_white(colours: NDArray[Any], alpha: NDArray[Any], premultiplied: bool) -> NDArray[np.uint8]:
    opaque = alpha.astype(np.uint16)
    shown = colours.astype(np.uint16) if premultiplied else (colours.astype(np.uint16) * opaque + 127) // 255
    return np.asarray(np.minimum(shown + (255 - opaque), 255), dtype=np.uint8)
