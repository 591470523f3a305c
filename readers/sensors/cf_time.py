"""CF time units: from stored numbers to nanoseconds, and to dates as text where a calendar has no place in UTC.

Formats: CF conventions 1.11, section 4.4. Times of the standard, gregorian and proleptic_gregorian calendars are UTC
without leap seconds. All arithmetic is relative to the first value, in whole nanoseconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s1batch.errors import SourceError
from s1batch.readers.extras import need
from s1batch.times import format_ns

_UNIT_NS = {
    1: ("ns", "nanosecond", "nanoseconds", "nanosec", "nanosecs"),
    10**3: ("us", "microsecond", "microseconds", "microsec", "microsecs"),
    10**6: ("ms", "msec", "msecs", "millisec", "millisecs", "millisecond", "milliseconds"),
    10**9: ("s", "sec", "secs", "second", "seconds"),
    60 * 10**9: ("min", "mins", "minute", "minutes"),
    3600 * 10**9: ("h", "hr", "hrs", "hour", "hours"),
    86400 * 10**9: ("d", "day", "days"),
}
UNIT_NS = {name: nanoseconds for nanoseconds, names in _UNIT_NS.items() for name in names}
"""Nanoseconds of each unit of time that has a fixed length."""

_GREGORIAN = ("standard", "gregorian", "proleptic_gregorian")
_DATE = re.compile(
    r"(\d{1,4})-(\d{1,2})-(\d{1,2})"
    r"(?:[T\s]+(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d*))?)?)?"
    r"\s*(Z|UTC|GMT|([+-])(\d{1,2}):?(\d{2})?)?",
)
_EPOCH = date(1970, 1, 1).toordinal()
_SWITCH = date(1582, 10, 15)
_NS = 10**9
_FIRST_NS, _LAST_NS = -(1 << 63) + 1, (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeUnits:
    """How numbers of a time coordinate are meant.

    Attributes:
        unit_ns: Nanoseconds of one unit.
        units: The CF text, for dates of other calendars.
        calendar: Lower-case name.
        reference_ns: UTC time of 0, ns since 1970; None where numbers count from no date, or from one that has no
            place in UTC.
        is_dated: Whether numbers count from a date.
    """

    unit_ns: int
    units: str = ""
    calendar: str = "standard"
    reference_ns: int | None = None
    is_dated: bool = False

    def start_ns(self, first: int | float) -> int | None:
        """Return the UTC time of a stored number; None without one, or where int64 nanoseconds do not reach."""
        if self.reference_ns is None:
            return None
        time_ns = self.reference_ns + scaled(first, self.unit_ns)
        return time_ns if _FIRST_NS < time_ns < _LAST_NS else None

    def text(self, value: int | float) -> str:
        """Return the date of a stored number; empty where numbers count from no date.

        Raises:
            SourceError: The calendar or its units are not understood.
            MissingExtra: cftime is needed and not installed.
        """
        if not self.is_dated:
            return ""
        time_ns = self.start_ns(value)
        if time_ns is not None:
            try:
                return format_ns(time_ns)
            except (OverflowError, ValueError):
                return ""
        cftime = _cftime()
        try:
            found = cftime.num2date(value, self.units, calendar=self.calendar, only_use_cftime_datetimes=True)
        except (ValueError, OverflowError) as error:
            raise SourceError("irregular_axis", f"{self.units!r} in the {self.calendar} calendar: {error}") from error
        return f"{found.isoformat()} ({self.calendar})"


def time_units(dtype: np.dtype[Any], attrs: Mapping[str, Any]) -> TimeUnits:
    """Return what a coordinate's numbers mean.

    Numbers without units are seconds from the first one on.

    Raises:
        SourceError: `irregular_axis`: units of no fixed length, such as months, or that are none of time.
    """
    if dtype.kind in "mM":
        unit, count = np.datetime_data(dtype)
        scale = {"W": 7 * 86400 * _NS, "D": 86400 * _NS, "h": 3600 * _NS, "m": 60 * _NS, "s": _NS}
        scale |= {"ms": 10**6, "us": 10**3, "ns": 1}
        if unit not in scale:
            raise SourceError("irregular_axis", f"times in units of {unit} have no fixed length")
        is_dated = dtype.kind == "M"
        return TimeUnits(unit_ns=scale[unit] * count, reference_ns=0 if is_dated else None, is_dated=is_dated)
    units = attrs.get("units")
    text = units.strip() if isinstance(units, str) else ""
    if not text or text == "1":
        return TimeUnits(unit_ns=_NS)
    unit, since, reference = (
        (part.strip() for part in re.split(r"(\bsince\b)", text, maxsplit=1))
        if (re.search(r"\bsince\b", text))
        else (text, "", "")
    )
    unit_ns = UNIT_NS.get(unit.lower())
    if unit_ns is None:
        raise SourceError("irregular_axis", f"the units {text!r} are no time of a fixed length")
    if not since:
        return TimeUnits(unit_ns=unit_ns, units=text)
    calendar = str(attrs.get("calendar", "standard")).lower()
    reference_ns = _reference_ns(reference, text, calendar, unit_ns) if calendar in _GREGORIAN else None
    return TimeUnits(unit_ns=unit_ns, units=text, calendar=calendar, reference_ns=reference_ns, is_dated=True)


def scaled(value: int | float, unit_ns: int) -> int:
    """Return a number of units in nanoseconds, exact for whole numbers."""
    if isinstance(value, int):
        return value * unit_ns
    whole = int(value)
    return whole * unit_ns + round((value - whole) * unit_ns)


def offsets_ns(values: NDArray[Any], first: int | float, unit_ns: int) -> NDArray[np.int64]:
    """Return how long after the first value each one is, in nanoseconds; the smallest int64 for what is no number.

    Args:
        values: As stored: integers, floats, datetime64 or timedelta64.
        first: The first value of the whole axis.
        unit_ns: Nanoseconds of one unit.
    """
    no_time = np.iinfo(np.int64).min
    if values.dtype.kind in "mM":
        missing = np.isnat(values)
        values = values.astype(np.int64)
    elif values.dtype.kind == "f":
        missing = ~np.isfinite(values)
    else:
        missing = np.zeros(0, np.bool_)
    most = 2**62 // unit_ns
    if values.dtype.kind in "iu":
        found = values.astype(np.int64) - np.int64(first)
        beyond = np.abs(found) > most
        found = np.where(beyond, 0, found) * unit_ns
    else:
        relative = np.where(missing, 0.0, values.astype(np.float64)) - float(first)
        beyond = np.abs(relative) > most
        found = np.rint(np.where(beyond, 0.0, relative) * unit_ns).astype(np.int64)
    found[beyond] = no_time
    if missing.any():
        found[missing] = no_time
    return found


def _reference_ns(text: str, units: str, calendar: str, unit_ns: int) -> int | None:
    """Return the UTC time of a reference date; None before the Gregorian calendar, except where it is proleptic."""
    match = _DATE.fullmatch(text.strip())
    if match is None:
        raise SourceError("irregular_axis", f"the units {units!r} name no date that is understood")
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    try:
        day_one = date(year, month, day)
        datetime(2000, 1, 1, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise SourceError("irregular_axis", f"the units {units!r}: {error}") from error
    fraction = match.group(7) or ""
    total = ((day_one.toordinal() - _EPOCH) * 86400 + hour * 3600 + minute * 60 + second) * _NS
    total += int(fraction[:9].ljust(9, "0")) if fraction else 0
    if match.group(9):
        shift = int(match.group(10)) * 3600 + int(match.group(11) or 0) * 60
        total -= (shift if match.group(9) == "+" else -shift) * _NS
    if calendar != "proleptic_gregorian" and day_one < _SWITCH:
        # The standard calendar counts Julian days before 1582.
        cftime = _cftime()
        anchor = cftime.datetime(2000, 1, 1, calendar="standard")
        days = cftime.date2num(anchor, f"days since {text}", calendar="standard")
        total = (date(2000, 1, 1).toordinal() - _EPOCH) * 86400 * _NS - scaled(float(days), 86400 * _NS)
    return total


def _cftime() -> Any:
    return need("cftime", "sensors", "calendars other than UTC's")
