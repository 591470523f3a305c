"""How many pixels lie in unions of boxes, exactly and for many pages at once.

The rows of a page are parted where boxes begin or end. Within such a strip every box covers a range of columns, so the
area of the union is the sum, over the strips, of the length of a union of ranges times the height of the strip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]

LARGEST = (1 << 31) - 1
"""Largest coordinate; larger ones count as this one."""

RANGES_AT_ONCE = 500_000
"""Ranges of columns that are in memory at once."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of pixels, half-open, as columns of equal length.

    Attributes:
        page: Number of the page that each belongs to, from 0.
        top: First row.
        bottom: First row below it.
        left: First column.
        right: First column behind it.
    """

    page: Int64s
    top: Int64s
    bottom: Int64s
    left: Int64s
    right: Int64s

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Boxes:
        return Boxes(self.page[chosen], self.top[chosen], self.bottom[chosen], self.left[chosen], self.right[chosen])


def union_areas(boxes: Boxes, pages: int, *, at_once: int = RANGES_AT_ONCE) -> Int64s:
    """Return for each page how many pixels lie in at least one of its boxes.

    Args:
        boxes: In any order; they may overlap, and be empty.
        pages: How many pages there are.
        at_once: Ranges of columns that are in memory at once.
    """
    boxes = _sound(boxes)
    areas = np.zeros(pages, np.int64)
    alone = np.bincount(boxes.page, minlength=pages)[boxes.page] == 1
    single = boxes[alone]
    areas[single.page] = (single.bottom - single.top) * (single.right - single.left)
    several = boxes[~alone]
    if len(several.page):
        _add_strips(several, areas, at_once)
    return areas


def _sound(boxes: Boxes) -> Boxes:
    """Return the boxes that hold a pixel."""
    cut = Boxes(
        boxes.page.astype(np.int64),
        *(np.clip(side.astype(np.int64), 0, LARGEST) for side in (boxes.top, boxes.bottom, boxes.left, boxes.right)),
    )
    return cut[(cut.bottom > cut.top) & (cut.right > cut.left)]


def _add_strips(boxes: Boxes, areas: Int64s, at_once: int) -> None:
    """Add the areas of pages with several boxes."""
    tops, bottoms = boxes.page << 32 | boxes.top, boxes.page << 32 | boxes.bottom
    edges = np.unique(np.concatenate([tops, bottoms]))
    first, last = np.searchsorted(edges, tops), np.searchsorted(edges, bottoms)
    # How many boxes each strip meets; what lies between the last edge of a page and the first of the next one, none.
    met = np.cumsum(np.bincount(first, minlength=len(edges)) - np.bincount(last, minlength=len(edges)))
    block = (np.cumsum(met) - met) // at_once
    begins = np.flatnonzero(np.diff(block, prepend=-1))
    for begin, end in zip(begins, [*begins[1:], len(edges)], strict=True):
        inside = (first < end) & (last > begin)
        low, high = np.maximum(first[inside], begin), np.minimum(last[inside], end)
        _add_block(edges, low, high, boxes.left[inside], boxes.right[inside], areas)


def _add_block(edges: Int64s, low: Int64s, high: Int64s, left: Int64s, right: Int64s, areas: Int64s) -> None:
    """Add the strips from `low` to `high` of each box."""
    counts = high - low
    ends = np.cumsum(counts)
    strip = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts) + np.repeat(low, counts)
    # Strip and column in one number, so that what a strip has covered never reaches into the next one.
    start, stop = strip << 32 | np.repeat(left, counts), strip << 32 | np.repeat(right, counts)
    order = np.argsort(start, kind="stable")
    start, stop, strip = start[order], stop[order], strip[order]
    reach = np.maximum.accumulate(stop)
    reach[1:], reach[:1] = reach[:-1].copy(), -1
    covered = np.maximum(stop - np.maximum(start, reach), 0)
    np.add.at(areas, edges[strip] >> 32, covered * (edges[strip + 1] - edges[strip]))
