"""Places in an image as sent, in the original, and on the map."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1batch.geometry import SentImage, apply_transform, fitted_size, part_transform

PLACE = SentImage(
    x=100, y=200, width=400, height=300, sent_width=200, sent_height=100, transform=(10.0, 2.0, 0.0, 50.0, 0.0, -3.0)
)


def test_a_box_leads_to_the_original_and_to_the_map() -> None:
    assert PLACE.original_box((0, 0, 200, 100)) == (100, 200, 500, 500)
    assert PLACE.original_box((10, 10, 20, 30)) == (120, 230, 140, 290)
    assert PLACE.crs_box((0, 0, 10, 10)) == ((10, 50), (30, 50), (30, 20), (10, 20))
    assert PLACE.crs_point((1, 1)) == (12, 47)


def test_without_a_map_there_are_no_coordinates() -> None:
    place = SentImage.of(
        {"tile_x": 0, "tile_y": 0, "tile_width": 9, "tile_height": 9, "sent_width": 3, "sent_height": 3}
    )
    assert place is not None
    assert place.crs_point((1, 1)) is None
    assert place.crs_box((0, 0, 1, 1)) is None
    assert place.original_point((1, 2)) == (3, 6)


def test_a_row_that_was_not_read_has_no_place() -> None:
    assert SentImage.of({"tile_x": None}) is None


numbers = st.floats(-1e6, 1e6)


@given(st.tuples(*[numbers] * 6), st.tuples(numbers, numbers), st.floats(0.1, 10), st.floats(0.1, 10), numbers, numbers)
def test_the_transform_of_a_part_leads_to_the_same_place(transform, origin, scale_x, scale_y, px, py) -> None:
    """A pixel of the part, and the same place as a pixel of the whole."""
    x, y = origin
    part = part_transform(transform, x=x, y=y, scale_x=scale_x, scale_y=scale_y)
    wanted = apply_transform(transform, (x + px * scale_x, y + py * scale_y))
    assert apply_transform(part, (px, py)) == pytest.approx(wanted, rel=1e-9, abs=1e-3)


@given(st.integers(1, 100_000), st.integers(1, 100_000), st.integers(32, 5000), st.integers(1024, 20_000_000))
def test_a_fitted_size_keeps_to_the_limits_and_the_shape(width, height, side, pixels) -> None:
    fitted = fitted_size(width, height, max_side=side, max_pixels=pixels)
    assert max(fitted) <= side
    assert fitted[0] * fitted[1] <= max(pixels, side)
    assert fitted[0] <= width
    assert fitted[1] <= height
    if width <= side and height <= side and width * height <= pixels:
        assert fitted == (width, height)
    if min(fitted) > 30:
        assert fitted[0] / fitted[1] == pytest.approx(width / height, rel=0.05)
