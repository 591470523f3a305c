"""Where the pixels of a GeoTIFF lie on the map, from its tags.

Source: OGC GeoTIFF 1.1 (19-008r4). A raster of points (`PixelIsPoint`) has its coordinates at the middle of a pixel;
the transform here is, as GDAL's, that of the pixel's upper left corner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from s1batch.geometry import Transform

PIXEL_SCALE, TIEPOINT, TRANSFORMATION = 33550, 33922, 34264
KEY_DIRECTORY, ASCII_PARAMS = 34735, 34737
GDAL_NODATA = 42113

_RASTER_TYPE, _GEOGRAPHIC, _PROJECTED = 1025, 2048, 3072
_CITATIONS = (3073, 1026, 2049)
_PIXEL_IS_POINT = 2
_USER_DEFINED = 32767


def read_transform(tags: Any) -> Transform | None:
    """Return the transform of a page from its tags (tifffile's, by number); None where it has none."""
    shift = -0.5 if geo_keys(tags).get(_RASTER_TYPE) == _PIXEL_IS_POINT else 0.0
    matrix = _numbers(tags, TRANSFORMATION, 16)
    if matrix is not None:
        t1, t2, t0, t4, t5, t3 = matrix[0], matrix[1], matrix[3], matrix[4], matrix[5], matrix[7]
    else:
        scale, tie = _numbers(tags, PIXEL_SCALE, 2), _numbers(tags, TIEPOINT, 6)
        if scale is None or tie is None:
            return None
        t1, t2, t4, t5 = scale[0], 0.0, 0.0, -scale[1]
        t0, t3 = tie[3] - tie[0] * t1, tie[4] - tie[1] * t5
    found = (t0 + shift * (t1 + t2), t1, t2, t3 + shift * (t4 + t5), t4, t5)
    return found if all(map(math.isfinite, found)) else None


def read_crs(tags: Any) -> str:
    """Return the coordinate system: `EPSG:32633`, or the words that the file has for it; empty where it has none."""
    keys = geo_keys(tags)
    for key in (_PROJECTED, _GEOGRAPHIC):
        code = keys.get(key)
        if isinstance(code, int) and 0 < code < _USER_DEFINED:
            return f"EPSG:{code}"
    for key in _CITATIONS:
        text = keys.get(key)
        if isinstance(text, str) and text:
            return text[:200]
    return ""


def read_nodata(tags: Any) -> float | None:
    """Return the value that stands for "nothing here", as GDAL writes it; None where there is none."""
    tag = tags.get(GDAL_NODATA)
    if tag is None:
        return None
    try:
        return float(str(tag.value).strip("\0 "))
    except ValueError:
        return None


def pixel_size(transform: Transform) -> tuple[float, float]:
    """Return the lengths of a step of one pixel to the right and down."""
    _, t1, t2, _, t4, t5 = transform
    return math.hypot(t1, t4), math.hypot(t2, t5)


def geo_keys(tags: Any) -> dict[int, int | str]:
    """Return the GeoKeys whose values stand in the directory itself or in the text parameters."""
    directory = _numbers(tags, KEY_DIRECTORY, 4)
    if directory is None:
        return {}
    tag = tags.get(ASCII_PARAMS)
    text = tag.value if tag is not None and isinstance(tag.value, str) else ""
    found: dict[int, int | str] = {}
    for place in range(4, len(directory) - 3, 4):
        key, location, count, value = (int(number) for number in directory[place : place + 4])
        if location == 0:
            found[key] = value
        elif location == ASCII_PARAMS:
            found[key] = text[value : value + count].rstrip("|\0")
    return found


def _numbers(tags: Any, code: int, least: int) -> Sequence[float] | None:
    tag = tags.get(code)
    if tag is None or not isinstance(tag.value, tuple) or len(tag.value) < least:
        return None
    return tag.value
