"""Where the image of a record is: which file, which part of it, and how its pixels map to the original and the ground.

What a record says of its image may be incomplete where it stands in a table; `s1batch.geometry` holds the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import orjson

from s1batch.errors import SourceError
from s1batch.geometry import Point, SentImage, Transform, apply_transform
from s1batch.jobs.question import number_of, row_name, value_of
from s1batch.records import Fields, ImagePart, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlace:
    """What is known of an image without its pixels.

    Attributes:
        sent: Width and height as sent; None where the record does not tell.
        corner: The tile's first pixel in the original.
        size: The tile's width and height in pixels of the original; None where they are those that were sent.
        transform: From pixels as sent to the ground; None where there is none.
    """

    sent: Point | None
    corner: Point
    size: Point | None
    transform: Transform | None

    @classmethod
    def of(cls, record: Record) -> ImagePlace:
        """Take it from the lineage, else from values of the same names, else from the image while it is there."""
        sent = _pair(record, "sent_width", "sent_height")
        if sent is None and isinstance(record.payload, Fields) and len(record.payload.images) == 1:
            sent = image_size(record.payload.images[0])
        return cls(
            sent=sent,
            corner=_pair(record, "tile_x", "tile_y") or (0.0, 0.0),
            size=_pair(record, "tile_width", "tile_height"),
            transform=_transform(value_of(record, "transform")),
        )

    def original(self, point: Point) -> Point:
        """Return the pixel of the original that a pixel as sent is."""
        # Without both sizes nothing was scaled, as far as the record tells.
        sizes = (self.size, self.sent) if self.size is not None and self.sent is not None else ((1.0, 1.0),) * 2
        (width, height), (sent_width, sent_height) = sizes
        image = SentImage(
            x=self.corner[0],
            y=self.corner[1],
            width=width,
            height=height,
            sent_width=sent_width,
            sent_height=sent_height,
        )
        return image.original_point(point)

    def geometry(self, points: Sequence[Point]) -> str | None:
        """Return a point, or the corners of a polygon, in pixels as sent as GeoJSON on the ground; None without one."""
        if self.transform is None:
            return None
        there = [list(apply_transform(self.transform, point)) for point in points]
        shape: dict[str, Any] = {"type": "Point", "coordinates": there[0]}
        if len(there) > 1:
            shape = {"type": "Polygon", "coordinates": [[*there, there[0]]]}
        return orjson.dumps(shape).decode()


def the_image(record: Record, kind: str) -> ImagePart:
    """Return the image that a job asks about.

    Raises:
        SourceError: The record holds none, or several.
    """
    images = record.payload.images if isinstance(record.payload, Fields) else ()
    if len(images) != 1:
        many = "no image" if not images else f"{len(images)} images"
        raise SourceError("prompt_error", f"{kind} needs one image in each record; this one has {many}")
    return images[0]


def image_name(record: Record) -> str:
    """Return the file that the image stands in; the row, where it stands in a table."""
    files = value_of(record, "image_files")
    if isinstance(files, (list, tuple)) and files and files[0]:
        return str(files[0])
    return row_name(record)


def image_size(image: ImagePart) -> Point | None:
    """Return the width and height of an encoded image, from its header; None where that cannot be read."""
    from PIL import Image

    try:
        with Image.open(BytesIO(image.data)) as opened:
            return (float(opened.width), float(opened.height))
    except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


def _transform(value: Any) -> Transform | None:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 6:
        return None
    t0, t1, t2, t3, t4, t5 = map(float, value)
    return t0, t1, t2, t3, t4, t5


def _pair(record: Record, first: str, second: str) -> Point | None:
    one, other = number_of(record, first), number_of(record, second)
    return None if one is None or other is None else (one, other)
