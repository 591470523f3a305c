"""The time axis of an array: whether it is even, at what rate, and from when on.

An axis is even when every time lies within `jitter` sample intervals of a grid of one rate that begins at the first
time. The rate is the roundest one that the jitter of the times allows, so that it does not change in its last digit as
an archive grows. Times are looked at in blocks: memory does not grow with the length of an even axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s1batch.errors import SourceError
from s1batch.readers.sensors.cf_time import TimeUnits, offsets_ns, time_units
from s1batch.readers.sensors.spec import SensorsSource
from s1batch.readers.sensors.stores import ArrayInfo, ArrayStore, coordinate_of, nearby

BLOCK = 1 << 20
"""Times that are looked at together."""

NO_TIME = np.iinfo(np.int64).min
"""Stands for a time that is missing."""

_PRECISION = 1e-3
"""Share of a sample interval within which the last of precise times lies on a grid of a round rate."""

_NAMES = ("time", "t", "times", "datetime", "date_time", "date", "timestamp", "timestamps")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeAxis:
    """A time axis.

    Attributes:
        dim: The dimension.
        steps: How many times there are.
        rate_hz: The rate of an even axis; None for an uneven one.
        start_ns: UTC time of the first; None where times have no place in UTC.
        times: The array that holds them; empty without one.
        units: How its numbers are meant; None without one.
        uneven: Why it is not even, in words; empty for an even one.
    """

    dim: str
    steps: int
    rate_hz: float | None
    start_ns: int | None = None
    times: str = ""
    units: TimeUnits | None = None
    uneven: str = ""


def time_dimension(store: ArrayStore, info: ArrayInfo, spec: SensorsSource) -> tuple[str, ArrayInfo | None] | None:
    """Return which dimension of an array is time, and the array that holds the times; None where none is.

    What the job file names goes first; then CF: a coordinate in `... since ...`, of axis T or standard_name time, or a
    datetime64; then the usual names; then the only dimension, and, when `rate_hz` says that there is time, the longest.
    """
    if not info.dims:
        return None
    if spec.time is not None:
        if spec.time in info.dims:
            return spec.time, coordinate_of(store, info, spec.time)
        found = nearby(store, info, spec.time)
        if found is not None and len(found.dims) == 1 and found.dims[0] in info.dims and found is not info:
            dim = found.dims[0]
            if found.shape[0] == info.shape[info.dims.index(dim)]:
                return dim, found
        return None
    coordinates = {dim: coordinate_of(store, info, dim) for dim in info.dims}
    for dim, coordinate in coordinates.items():
        if coordinate is not None and coordinate is not info and is_time(coordinate):
            return dim, coordinate
    named = _auxiliary(store, info)
    if named is not None:
        return named.dims[0], named
    for dim in info.dims:
        if dim.lower() in _NAMES:
            return dim, coordinates[dim] if coordinates[dim] is not info else None
    if spec.rate_hz is not None and all(coordinates[dim] is not info for dim in info.dims):
        longest = info.dims[int(np.argmax(info.shape))]
        return longest, coordinates[longest]
    return None


def is_time(info: ArrayInfo) -> bool:
    """Return whether an array's attributes or type say that it holds times."""
    units = info.attrs.get("units")
    return (
        info.dtype.kind == "M"
        or (isinstance(units, str) and " since " in units)
        or info.attrs.get("axis") == "T"
        or info.attrs.get("standard_name") == "time"
    )


def _auxiliary(store: ArrayStore, info: ArrayInfo) -> ArrayInfo | None:
    """Return the 1-D array of times that an array's `coordinates` attribute names."""
    names = info.attrs.get("coordinates")
    for name in names.split() if isinstance(names, str) else ():
        found = nearby(store, info, name)
        if found is not None and len(found.dims) == 1 and found.dims[0] in info.dims and is_time(found):
            return found
    return None


def read_axis(store: ArrayStore, dim: str, steps: int, times: ArrayInfo | None, spec: SensorsSource) -> TimeAxis:
    """Read and judge a time axis.

    Args:
        store: The open store.
        dim: The dimension.
        steps: Its entries.
        times: The array that holds the times; None without one.
        spec: The source block.

    Raises:
        SourceError: The times cannot be read; `rate_missing` where nothing tells the rate.
    """
    if times is None or times.dtype.kind not in "iufmM":
        if spec.rate_hz is None:
            raise SourceError("rate_missing", f"{dim} has no times; give source.rate_hz, or name them in source.time")
        return TimeAxis(dim=dim, steps=steps, rate_hz=spec.rate_hz)
    if times.attrs.keys() & {"scale_factor", "add_offset"}:
        raise SourceError("irregular_axis", f"{times.name}: times that are packed (scale_factor, add_offset)")
    units = time_units(times.dtype, times.attrs)
    even = TimeAxis(dim=dim, steps=steps, rate_hz=None, times=times.name, units=units)
    if not steps:
        return even
    first, last = (_value(store.read(times.name, (slice(at, at + 1),))[0]) for at in (0, steps - 1))
    if first is None:
        return _uneven(even, "the first time is missing")
    start_ns = units.start_ns(first)
    even = TimeAxis(dim=dim, steps=steps, rate_hz=None, start_ns=start_ns, times=times.name, units=units)
    if steps == 1:
        if spec.rate_hz is None:
            raise SourceError("rate_missing", f"{dim} has one time only; give source.rate_hz")
        return _with_rate(even, spec.rate_hz)
    if last is None:
        return _uneven(even, "the last time is missing")
    span_ns = int(offsets_ns(np.array([last]), first, units.unit_ns)[0])
    if span_ns <= 0:
        return _uneven(even, "the last time is not later than the first one")
    exact_hz = (steps - 1) * 1e9 / span_ns
    if spec.rate_hz is not None and spec.irregular == "refuse":
        if abs(spec.rate_hz / exact_hz - 1) * (steps - 1) > spec.jitter:
            return _uneven(even, f"source.rate_hz is {spec.rate_hz:g}, the times say {exact_hz:g} Hz")
        candidates = [spec.rate_hz]
    else:
        # The first and the last time jitter like the others, which hides a round rate; precise times hide none.
        begin = offsets_ns(store.read(times.name, (slice(0, min(steps, BLOCK)),)), first, units.unit_ns)
        seen = float(np.abs(begin * (exact_hz / 1e9) - np.arange(len(begin))).max())
        candidates = [_round_rate(steps - 1, span_ns, min(2 * seen + _PRECISION, spec.jitter)), exact_hz]
    why = ""
    for rate_hz in dict.fromkeys(candidates):
        why = _first_off(store, times.name, steps, first, units, rate_hz, spec.jitter)
        if not why:
            break
    if why:
        return _uneven(even, why)
    if spec.irregular == "resample" and spec.rate_hz is not None and spec.rate_hz != rate_hz:
        return _uneven(even, f"it is sampled at {rate_hz:g} Hz")
    return _with_rate(even, rate_hz)


def all_offsets_ns(store: ArrayStore, axis: TimeAxis, start: int = 0, stop: int | None = None) -> NDArray[np.int64]:
    """Return how long after the first time of the axis each time is, in ns; `NO_TIME` for what is missing."""
    if axis.units is None:
        raise ValueError("the axis has no times")
    stop = axis.steps if stop is None else stop
    first = _value(store.read(axis.times, (slice(0, 1),))[0])
    if first is None:
        return np.full(stop - start, NO_TIME)
    return offsets_ns(store.read(axis.times, (slice(start, stop),)), first, axis.units.unit_ns)


def date_text(store: ArrayStore, axis: TimeAxis, index: int) -> str:
    """Return the date of a step as text; empty where times count from no date."""
    if axis.units is None or not axis.units.is_dated:
        return ""
    value = _value(store.read(axis.times, (slice(index, index + 1),))[0])
    return "" if value is None else axis.units.text(value)


def _value(stored: Any) -> int | float | None:
    """Return one stored time as a plain number; None for one that is missing."""
    if isinstance(stored, (np.datetime64, np.timedelta64)):
        return None if np.isnat(stored) else int(stored.astype(np.int64))
    plain = stored.item()
    return None if isinstance(plain, float) and not np.isfinite(plain) else plain


def _with_rate(axis: TimeAxis, rate_hz: float) -> TimeAxis:
    return TimeAxis(
        dim=axis.dim, steps=axis.steps, rate_hz=rate_hz, start_ns=axis.start_ns, times=axis.times, units=axis.units
    )


def _uneven(axis: TimeAxis, why: str) -> TimeAxis:
    return TimeAxis(
        dim=axis.dim,
        steps=axis.steps,
        rate_hz=None,
        start_ns=axis.start_ns,
        times=axis.times,
        units=axis.units,
        uneven=f"{axis.times}: {why}",
    )


def _first_off(
    store: ArrayStore, name: str, steps: int, first: int | float, units: TimeUnits, rate_hz: float, jitter: float
) -> str:
    """Return in words which time is the first that is off an even axis; empty where none is."""
    for begin in range(0, steps, BLOCK):
        stop = min(begin + BLOCK, steps)
        found = offsets_ns(store.read(name, (slice(begin, stop),)), first, units.unit_ns)
        off = np.abs(found - np.arange(begin, stop) * (1e9 / rate_hz)) * (rate_hz / 1e9)
        if off.max() > jitter:
            place = int(np.argmax(off > jitter))
            return _where(found, place, begin, off[place], rate_hz, jitter)
    return ""


def _round_rate(intervals: int, span_ns: int, most: float) -> float:
    """Return the roundest rate, or that of the roundest interval, that ends within `most` intervals of the last one."""
    exact_hz = intervals * 1e9 / span_ns
    for digits in range(1, 16):
        for rate_hz in (float(f"{exact_hz:.{digits}g}"), 1 / float(f"{1 / exact_hz:.{digits}g}")):
            if abs(intervals - span_ns * rate_hz / 1e9) <= most:
                return rate_hz
    return exact_hz


def _where(found: NDArray[np.int64], place: int, begin: int, off: float, rate_hz: float, jitter: float) -> str:
    step = begin + place
    if found[place] == NO_TIME:
        return f"time {step} is missing"
    if place and found[place] == found[place - 1]:
        return f"time {step} is the same as the one before"
    if place and found[place] < found[place - 1]:
        return f"time {step} is earlier than the one before"
    return (
        f"time {step} is {off:.3g} sample intervals off an even axis of {rate_hz:g} Hz (source.jitter allows {jitter:g}"
        "); `irregular: resample` interpolates"
    )
