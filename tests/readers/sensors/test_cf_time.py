"""Times of coordinates: exact in UTC, text in calendars that have no place there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import cftime
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1batch.errors import SourceError
from s1batch.readers.sensors.axis import NO_TIME
from s1batch.readers.sensors.cf_time import offsets_ns, time_units

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DATED = np.dtype("f8")


def units(text: str, calendar: str = "standard"):
    return time_units(DATED, {"units": text, "calendar": calendar})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seconds since 1970-01-01", 0),
        ("days since 2000-1-1", 1.5),
        ("hours since 1900-01-01 00:00:0.0", 1_000_000),
        ("milliseconds since 2020-02-29T12:30:15.25Z", 250),
        ("minutes since 2020-01-01 00:00:00 +02:00", 0),
        ("minutes since 2020-01-01 00:00 -01:30", 0),
        ("microseconds since 1970-01-01 UTC", 1_600_000_000_000_001),
        ("days since 1858-11-17", 59000),
        ("days since 0001-01-01 00:00:00", 737425),
        ("days since 1582-10-04", 160_000),
    ],
)
def test_utc_times_are_those_of_cftime(text, value):
    found = units(text).start_ns(value)
    assert found is not None
    expected = datetime.fromisoformat(cftime.num2date(value, text, "standard").isoformat())
    assert EPOCH + timedelta(microseconds=found // 1000) == expected.replace(tzinfo=UTC)


def test_the_proleptic_calendar_has_no_julian_days():
    found = units("days since 0001-01-01", "proleptic_gregorian").start_ns(719162)
    assert found == 0


@pytest.mark.parametrize("calendar", ["360_day", "noleap", "365_day", "all_leap", "julian"])
def test_other_calendars_have_text_and_no_instant(calendar):
    found = units("days since 2001-02-01", calendar)
    assert found.start_ns(27) is None
    expected = cftime.num2date(27, "days since 2001-02-01", calendar).isoformat()
    assert found.text(27) == f"{expected} ({calendar})"


@pytest.mark.parametrize("text", ["months since 2000-01-01", "kelvin", "days since yesterday", "days since 2000-13-01"])
def test_units_that_give_no_even_time_are_refused(text):
    with pytest.raises(SourceError) as error:
        units(text)
    assert error.value.reason == "irregular_axis"


def test_numbers_without_units_are_seconds_from_no_date():
    found = time_units(DATED, {})
    assert found.unit_ns == 10**9
    assert found.start_ns(3) is None
    assert found.text(3) == ""


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=30), st.sampled_from(["i4", "i8", "u4", "f8"]))
def test_offsets_are_exact(values, dtype):
    found = offsets_ns(np.array(values, dtype), values[0], 10**6)
    assert found.tolist() == [(value - values[0]) * 10**6 for value in values]


def test_missing_times_are_told():
    assert offsets_ns(np.array([1.0, np.nan, np.inf]), 1.0, 10**9).tolist() == [0, NO_TIME, NO_TIME]
    stamps = np.array(["2020-01-01", "NaT", "2020-01-02"], "M8[ns]")
    first = int(stamps[0].astype(np.int64))
    assert offsets_ns(stamps, first, 1).tolist() == [0, NO_TIME, 86400 * 10**9]


@given(st.integers(1, 10**6), st.integers(2, 50))
def test_offsets_rise_with_the_values(step, count):
    found = offsets_ns(np.arange(count) * step * 0.001, 0.0, 86400 * 10**9)
    assert all(low < high for low, high in pairwise(found.tolist()))
