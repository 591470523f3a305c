"""How values become grey levels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from s1batch.errors import SourceError
from s1batch.readers.images.facts import PageFacts, Values
from s1batch.readers.images.scaling import ValueRange, grey_levels, page_range, sample_boxes
from s1batch.readers.images.spec import ImageSource
from s1batch.readers.images.tiles import Box
from tests.readers.images.pictures import levels


class Stored:
    """Values in memory as an open file."""

    format = "tiff"

    def __init__(self, values, **about) -> None:
        self._values, self._about = values, about

    def values(self, page: int, box: Box) -> Values:
        return Values(values=self._values[box.y : box.y + box.height, box.x : box.x + box.width], **self._about)


def found_range(values, about=None, **source) -> ValueRange:
    spec = ImageSource.model_validate({"kind": "images", "paths": ".", **source})
    height, width = values.shape[:2]
    facts = PageFacts(width=width, height=height, decode_pixels=1)
    return page_range(Stored(values, **(about or {})), 0, facts, spec)  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(
    arrays.arrays(
        st.sampled_from([np.dtype(kind) for kind in ("i1", "u2", ">i2", "<u4", "i8", "f4", ">f8")]),
        (5, 6),
        elements={"allow_nan": False, "allow_infinity": False},
        fill=st.nothing(),
    )
)
def test_every_type_follows_the_rule(values) -> None:
    """Whatever the type and the values: within one level of float64, from black to white."""
    wide = values.astype(np.float64)
    if float(wide.max()) - float(wide.min()) > 1e300:
        return
    found = found_range(values, scaling="minmax")
    assert (found.low, found.high) == (float(values.min()), float(values.max()))
    shown = grey_levels(Values(values=values), found)
    if found.low == found.high:
        assert (shown == 127).all()
        return
    # Where neighbouring floats are as far apart as grey levels, none of the two is the right one.
    if found.high - found.low > 1e-9 * max(abs(found.low), abs(found.high)) and found.high - found.low > 1e-290:
        assert np.abs(shown.astype(int) - levels(wide, found.low, found.high)).max() <= 1
        assert (shown.min(), shown.max()) == (0, 255)


def test_nodata_nan_and_infinity_do_not_count() -> None:
    values = np.arange(100, dtype=np.float32).reshape(10, 10)
    values[0, :3] = (np.nan, np.inf, -9999)
    found = found_range(values, {"nodata": -9999.0}, scaling="minmax")
    assert (found.low, found.high) == (3, 99)
    assert not grey_levels(Values(values=values, nodata=-9999.0), found)[0, :3].any()


def test_a_nodata_value_that_the_type_cannot_hold_is_in_no_pixel() -> None:
    values = np.array([[0, 1], [2, 3]], np.uint16)
    assert found_range(values, {"nodata": -9999.0}, scaling="minmax") == ValueRange(low=0, high=3, rule="minmax")


def test_nothing_but_nan_is_refused() -> None:
    with pytest.raises(SourceError, match="none of the values"):
        found_range(np.full((4, 4), np.nan))


def test_bytes_are_shown_as_they_are_unless_a_window_is_asked_for() -> None:
    values = np.array([[0, 100], [200, 255]], np.uint8)
    assert found_range(values, {"levels": 255}).rule == ""
    found = found_range(values, {"levels": 255}, scaling="window", value_window=(100, 200))
    assert grey_levels(Values(values=values, levels=255), found).tolist() == [[0, 0], [255, 255]]
    four = np.array([[0, 5, 15]], np.uint8)
    assert grey_levels(Values(values=four, levels=15), ValueRange(low=0, high=15, rule="")).tolist() == [[0, 85, 255]]


def test_inverted_values_have_white_at_the_bottom() -> None:
    found = ValueRange(low=0, high=255, rule="minmax")
    values = Values(values=np.array([[0, 255]], np.uint16), inverted=True)
    assert grey_levels(values, found).tolist() == [[255, 0]]


@pytest.mark.parametrize(("width", "height"), [(100, 100), (5000, 4000), (4_000_000, 3), (3, 4_000_000), (100_000, 90)])
def test_a_large_page_is_sampled_within_its_bounds(width: int, height: int) -> None:
    """At most 4.2 million values are looked at, from one end of the page to the other."""
    boxes = sample_boxes(width, height)
    assert sum(box.pixels for box in boxes) <= 4_194_304
    assert all(box.clipped(width, height) == box and box.x >= 0 and box.y >= 0 for box in boxes)
    assert min(box.x for box in boxes) == min(box.y for box in boxes) == 0
    assert max(box.x + box.width for box in boxes) == width
    assert max(box.y + box.height for box in boxes) == height
