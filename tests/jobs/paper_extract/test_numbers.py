"""Numbers are compared strictly, with their units."""

from __future__ import annotations

from decimal import Decimal

import pytest

from s1batch.jobs.paper_extract.numbers import has_number, known_unit, missing_numbers, quantities


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,234 events", [("1234", "")]),
        ("12,345,678.9 kg.", [("12345678.9", "kg")]),
        ("1\u202f234\u00a0567 m", [("1234567", "m")]),
        ("in 2010, 123 events", [("2010", ""), ("123", "")]),
        ("5 % or 5% or 5 percent or 5 per cent", [("5", "%")] * 4),
        ("50 %", [("50", "%")]),
        ("1,5 mm", [("1.5", "mm")]),
        ("p < .05", [("0.05", "")]),
        ("5–10 km", [("5", "km"), ("10", "km")]),
        ("3.2 ± 0.1 km", [("3.2", "km"), ("0.1", "km")]),
        ("-5 °C and −6 °C, 4-2", [("-5", "°C"), ("-6", "°C"), ("4", ""), ("2", "")]),
        ("3 × 10^4 Pa, 3×10⁴ Pa, 3e4 Pa", [("30000", "Pa")] * 3),
        ("10⁻³ s", [("0.001", "s")]),
        ("1.5 m/s, 1.5 m s-1, 1.5 m·s⁻¹", [("1.5", "m·s-1")] * 3),
        ("CO2 and H1N1 of M7.1", [("7.1", "")]),
        ("in 5 a cell", [("5", "")]),
        ("three", []),
    ],
)
def test_the_numbers_of_a_text(text, expected):
    found = [(one.value, one.unit) for one in quantities(text)]
    assert found == [(Decimal(value), unit) for value, unit in expected]


@pytest.mark.parametrize(
    ("claim", "quote", "missing"),
    [
        ("It has 1234 events.", "1,234 earthquakes", []),
        ("It rose by 5 %.", "rose by 50 %", ["5 %"]),
        ("It rose by 5 %.", "rose by 5", ["5 %"]),
        ("It rose by 5.", "rose by 5 %", ["5"]),
        ("It rose by 5 %.", "rose by five percent, 5.0%", []),
        ("It is 12 deep.", "at 12 km", []),
        ("It is 12 km deep.", "12 m", ["12 km"]),
        ("It is 12 kilometres deep.", "12 km", []),
        ("At 3 km, 5 km and 7 km.", "at 3, 5 and 7 km", []),
        ("From 5 to 10 km.", "5-10 km", []),
        ("Nothing is counted.", "", []),
        ("It is 1.50 m.", "1.5 m", []),
    ],
)
def test_every_number_of_a_claim_must_stand_in_its_quote(claim, quote, missing):
    assert missing_numbers(claim, quote) == missing


@pytest.mark.parametrize(
    ("value", "unit", "quote", "there"),
    [
        (5.0, "%", "5 %", True),
        (5.0, "percent", "5 %", True),
        (5.0, None, "5 %", False),
        (5.0, "patients", "5 patients", True),
        (1234.0, None, "1,234", True),
        (1.5e-3, "m/s", "1.5 × 10^-3 m s-1", True),
        (0.3, "km", "0.3 m", False),
    ],
)
def test_a_value_must_stand_there_with_its_unit(value, unit, quote, there):
    assert has_number(value, unit, quote) is there


def test_units_have_one_spelling():
    assert [known_unit(text) for text in ("per cent", "metres", "km/h", "furlongs", "")] == ["%", "m", "km·h-1", "", ""]
