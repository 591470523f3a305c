"""Areas of unions of boxes equal those that are counted pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.box_coverage import Boxes, union_areas

PAGES, SIDE = 3, 24

box = st.tuples(st.integers(0, PAGES - 1), *(st.integers(-2, SIDE) for _ in range(4)))


def boxes_of(rows: list[tuple[int, int, int, int, int]]) -> Boxes:
    return Boxes(*np.array(rows, np.int64).reshape(-1, 5).T)


def painted(rows: list[tuple[int, int, int, int, int]]) -> list[int]:
    mask = np.zeros((PAGES, SIDE, SIDE), bool)
    for page, top, bottom, left, right in rows:
        mask[page, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    return [int(each.sum()) for each in mask]


@settings(max_examples=300, deadline=None)
@given(st.lists(box, max_size=12), st.sampled_from([1, 3, 500_000]))
def test_areas_are_those_of_a_mask(rows: list[tuple[int, int, int, int, int]], at_once: int) -> None:
    """Whatever the boxes, and however little is looked at together."""
    assert union_areas(boxes_of(rows), PAGES, at_once=at_once).tolist() == painted(rows)


def test_areas_beyond_32_bits_are_exact() -> None:
    """A page of 4 * 10**18 pixels, in two boxes that share one row."""
    side = 2_000_000_000
    rows = [(0, 0, side // 2 + 1, 0, side), (0, side // 2, side, 0, side)]
    assert union_areas(boxes_of(rows), 1).tolist() == [side * side]


@pytest.mark.parametrize("at_once", [1000, 500_000])
def test_a_grid_of_overlapping_tiles_covers_its_image_once(at_once: int) -> None:
    """100 x 100 tiles of 1,024 pixels that share 64."""
    starts = np.arange(100) * 960
    rows = [(0, int(y), int(y) + 1024, int(x), int(x) + 1024) for y in starts for x in starts]
    assert union_areas(boxes_of(rows), 1, at_once=at_once).tolist() == [(99 * 960 + 1024) ** 2]
