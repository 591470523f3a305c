"""Where a place in an image that was sent lies in the image it was taken from, and on the map.

Pixel coordinates are continuous: pixel 0 reaches from 0 to 1, and its middle is 0.5. x runs right, y runs down. A
transform has six numbers in GDAL's order: X = t0 + x t1 + y t2 and Y = t3 + x t4 + y t5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

Transform = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SentImage:
    """An image as it was sent: which box of the original it shows, and at what size.

    Attributes:
        x: First column of the box in the original.
        y: First row.
        width: Columns of the box; those behind the edge of the original are padding.
        height: Rows of the box.
        sent_width: Pixels that were sent.
        sent_height: Pixels that were sent.
        transform: From pixels as sent to coordinates; None where the original has none.
    """

    x: float
    y: float
    width: float
    height: float
    sent_width: float
    sent_height: float
    transform: Transform | None = None

    @classmethod
    def of(cls, lineage: Mapping[str, Any]) -> Self | None:
        """Read it from the lineage of a row of images; None where the row has none, for nothing was read."""
        names = ("tile_x", "tile_y", "tile_width", "tile_height", "sent_width", "sent_height")
        found = [lineage.get(name) for name in names]
        if any(value is None for value in found):
            return None
        x, y, width, height, sent_width, sent_height = (int(value) for value in found if value is not None)
        transform = lineage.get("transform")
        return cls(
            x=x,
            y=y,
            width=width,
            height=height,
            sent_width=sent_width,
            sent_height=sent_height,
            transform=_six(transform) if transform else None,
        )

    def original_point(self, point: Point) -> Point:
        """Return where a point of the image as sent lies in the original, in its pixels."""
        x, y = point
        return self.x + x * self.width / self.sent_width, self.y + y * self.height / self.sent_height

    def original_box(self, box: Box) -> Box:
        """Return where a box of the image as sent lies in the original, in its pixels."""
        left, top = self.original_point((box[0], box[1]))
        right, bottom = self.original_point((box[2], box[3]))
        return left, top, right, bottom

    def sent_point(self, point: Point) -> Point:
        """Return where a point of the original lies in the image as sent."""
        x, y = point
        return (x - self.x) * self.sent_width / self.width, (y - self.y) * self.sent_height / self.height

    def crs_point(self, point: Point) -> Point | None:
        """Return the coordinates of a point of the image as sent; None where the original has none."""
        return None if self.transform is None else apply_transform(self.transform, point)

    def crs_box(self, box: Box) -> tuple[Point, Point, Point, Point] | None:
        """Return the coordinates of a box's corners (left top, right top, right bottom, left bottom), or None."""
        if self.transform is None:
            return None
        left, top, right, bottom = box
        a, b, c, d = (
            apply_transform(self.transform, corner)
            for corner in ((left, top), (right, top), (right, bottom), (left, bottom))
        )
        return a, b, c, d


def apply_transform(transform: Transform, point: Point) -> Point:
    """Return the coordinates of a point in pixels."""
    x, y = point
    t0, t1, t2, t3, t4, t5 = transform
    return t0 + x * t1 + y * t2, t3 + x * t4 + y * t5


def part_transform(transform: Transform, *, x: float, y: float, scale_x: float, scale_y: float) -> Transform:
    """Return the transform of a part of an image that was cut out and scaled.

    Args:
        transform: That of the whole image.
        x: First column of the part.
        y: First row of the part.
        scale_x: Pixels of the whole image in one pixel of the part.
        scale_y: Likewise, downwards.
    """
    origin_x, origin_y = apply_transform(transform, (x, y))
    _, t1, t2, _, t4, t5 = transform
    return origin_x, t1 * scale_x, t2 * scale_y, origin_y, t4 * scale_x, t5 * scale_y


def fitted_size(
    width: int, height: int, *, max_pixels: int | None = None, max_side: int | None = None
) -> tuple[int, int]:
    """Return the largest size of the same shape within the limits, at least 1 x 1; never larger than the image is."""
    scale = 1.0
    if max_side is not None:
        scale = min(scale, max_side / max(width, height))
    if max_pixels is not None and width * height * scale * scale > max_pixels:
        scale = min(scale, math.sqrt(max_pixels / (width * height)))
    if scale == 1.0:
        return width, height
    # To the nearest pixel, unless a limit would be passed.
    sides = [max(round(side * scale), 1) for side in (width, height)]
    if max_pixels is not None and sides[0] * sides[1] > max_pixels:
        sides = [max(math.floor(side * scale), 1) for side in (width, height)]
    return sides[0], sides[1]


def _six(values: Any) -> Transform:
    t0, t1, t2, t3, t4, t5 = (float(value) for value in values)
    return t0, t1, t2, t3, t4, t5
