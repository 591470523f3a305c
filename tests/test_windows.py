"""Lengths in a job file."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from s1batch.windows import ExtentValue, WindowSpec, parse_extent


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("60s", ExtentValue(60.0, "s")),
        ("1.5 min", ExtentValue(90.0, "s")),
        ("500ms", ExtentValue(0.5, "s")),
        ("6000", ExtentValue(6000.0, "samples")),
        (6000, ExtentValue(6000.0, "samples")),
        ("6000 samples", ExtentValue(6000.0, "samples")),
        ("50%", ExtentValue(50.0, "%")),
        ("max", ExtentValue(0.0, "max")),
    ],
)
def test_forms(text, value):
    assert parse_extent(text) == value
    assert parse_extent(str(value)) == value


@pytest.mark.parametrize("text", ["", "60 parsecs", "-5s", "1.5", True, None, "s", "50%%", -1, 2.5])
def test_anything_else_is_refused_with_the_valid_forms(text):
    with pytest.raises(ValueError, match=r"60s|number of samples"):
        parse_extent(text)


@pytest.mark.parametrize(
    "fields",
    [
        {"length": "50%"},
        {"length": "0s"},
        {"overlap": "100%"},
        {"length": "60s", "overlap": "60s"},
        {"blinding": "50%"},
        {"overlap": "max"},
        {"max_gap_frac": 1.5},
        {"tail": "drop"},
        {"lenght": "60s"},
    ],
)
def test_a_window_that_makes_no_sense_is_refused(fields):
    with pytest.raises(ValidationError):
        WindowSpec(**fields)


def test_a_window_survives_json():
    spec = WindowSpec(length="30s", overlap="50%", blinding="250", tail="pad")
    assert WindowSpec.model_validate_json(spec.model_dump_json()) == spec


def test_a_length_is_written_as_exactly_as_it_was_given():
    for text in ("1234567", "60s", "0.001s", "1e-05s", "33.3%", "100000000"):
        assert parse_extent(str(parse_extent(text))) == parse_extent(text)
