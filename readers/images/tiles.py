"""How an image is cut into tiles: boxes in pixels, no pixels touched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from s1batch.readers.images.spec import TileSpec


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels, half-open.

    Attributes:
        x: First column.
        y: First row.
        width: Columns.
        height: Rows.
    """

    x: int
    y: int
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """How many there are."""
        return self.width * self.height

    def clipped(self, width: int, height: int) -> Box:
        """Return what lies inside an image of this size."""
        return Box(self.x, self.y, min(self.width, width - self.x), min(self.height, height - self.y))


def is_cut(width: int, height: int, tile: TileSpec | None) -> bool:
    """Return whether an image is larger than a tile."""
    return tile is not None and (width > tile.size or height > tile.size)


def tile_boxes(width: int, height: int, tile: TileSpec) -> Iterator[Box]:
    """Yield the tiles of an image row by row; with `edge: pad` the last ones reach beyond it.

    Every pixel lies in a tile. Neighbours share `overlap` pixels, at the far edge more with `edge: shift`. An image
    that is smaller than a tile in one direction is not cut in that direction.
    """
    for y, tall in _spans(height, tile):
        for x, wide in _spans(width, tile):
            yield Box(x, y, wide, tall)


def _spans(length: int, tile: TileSpec) -> Iterator[tuple[int, int]]:
    """Yield (start, length) along one side."""
    size, step = tile.size, tile.size - tile.overlap
    if length <= size:
        yield 0, size if tile.edge == "pad" else length
        return
    last = -(-(length - size) // step)
    for number in range(last):
        yield number * step, size
    yield (length - size if tile.edge == "shift" else last * step), size
