"""From stored numbers of a window to the series that is sent."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s1batch.errors import SourceError
from s1batch.grid import time_of
from s1batch.long_series import SeriesGrid
from s1batch.readers.resample import resample
from s1batch.readers.sensors.axis import NO_TIME
from s1batch.readers.sensors.lane import Need, Stored
from s1batch.readers.sensors.spec import SensorsSource
from s1batch.readers.sensors.stores import ArrayInfo
from s1batch.readers.sensors.uneven import onto_grid
from s1batch.readers.sensors.values import Mended, Packing, mend, unpack
from s1batch.records import Series
from s1batch.windows import WindowSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Told:
    """What is known of a window besides its values.

    Attributes:
        info: The array.
        packing: How its numbers are packed.
        names: Its channels.
        coordinates: Their labels, as JSON.
        calendar: The calendar, where it has no place in UTC.
        texts: Dates of the first and last sample in that calendar.
        times_ns: Times of the samples that were read, where they are not even.
    """

    info: ArrayInfo
    packing: Packing
    names: tuple[str, ...]
    coordinates: str
    calendar: str = ""
    texts: tuple[str, str] = ("", "")
    times_ns: NDArray[np.int64] | None = None


def make_series(
    stored: Stored,
    told: Told,
    spec: SensorsSource,
    window: WindowSpec,
    grid: SeriesGrid,
    rate_hz: float,
    lineage: dict[str, Any],
) -> Series:
    """Unpack, mend, interpolate, decimate and pad a window; fills the lineage as far as it comes.

    Raises:
        SourceError: The window must not be asked (`not_finite`, `gap_too_large`).
    """
    need, info = stored.need, told.info
    is_pad = window.tail == "pad"
    placed = need.last - need.first if need.grid is None else need.grid[1] - need.grid[0]
    steps = max(placed, grid.whole.length) if is_pad else placed
    factor = grid.factor(steps)
    units, long_name = info.attrs.get("units"), info.attrs.get("long_name") or info.attrs.get("standard_name")
    lineage.update(
        variable=info.name,
        channels=list(told.names),
        units=units if isinstance(units, str) else "",
        long_name=long_name if isinstance(long_name, str) else "",
        coordinates=told.coordinates,
        rate_hz=rate_hz,
        rate_sent_hz=rate_hz / factor,
        decimation=factor,
        steps=-(-steps // factor),
        absent_frac=stored.absent_frac,
        resampled=need.grid is not None,
        calendar=told.calendar,
        start_text=told.texts[0],
        end_text=told.texts[1],
    )
    if need.is_utc and need.start_ns is not None:
        lineage["core_start_ns"], lineage["core_stop_ns"] = _core_ns(need, rate_hz)
    if stored.values is None:
        raise SourceError("not_readable", "nothing was read")
    flat = stored.values.reshape(len(stored.values), -1)
    stored.values = None
    values_TC, doubtful = unpack(flat, told.packing, owned=stored.owned)
    del flat
    mended = mend(values_TC, spec.nan, spec.nan_longest, told.names) if doubtful else Mended()
    gaps = data_steps = 0
    first = need.start - need.first
    if need.grid is not None:
        values_TC, gaps, data_steps = _even(values_TC, told, need, placed, rate_hz, is_pad=is_pad)
        first = 0
    else:
        data_steps = placed
    if factor > 1:
        values_TC = _decimated(values_TC, first, -(-data_steps // factor), factor)
    elif first or len(values_TC) > data_steps:
        values_TC = np.ascontiguousarray(values_TC[-first : data_steps - first])
    sent = -(-steps // factor)
    if len(values_TC) < sent:
        values_TC = np.concatenate([values_TC, np.zeros((sent - len(values_TC), values_TC.shape[1]), np.float32)])
    gap_frac = gaps / steps
    lineage.update(
        nan_frac=mended.nan_frac,
        gap_frac=gap_frac,
        pad_frac=(steps - data_steps) / steps,
        fill=", ".join(told.names[column] for column in mended.empty),
    )
    if gap_frac > window.max_gap_frac:
        raise SourceError(
            "gap_too_large",
            f"{gap_frac:.3f} of the window lies in gaps, window.max_gap_frac is {window.max_gap_frac:g}",
        )
    return Series(
        values_TC=values_TC,
        rate_hz=rate_hz / factor,
        channels=told.names,
        start_ns=need.start_ns if need.is_utc and need.start_ns is not None else 0,
        units=lineage["units"],
    )


def _even(
    values_TC: NDArray[np.float32], told: Told, need: Need, steps: int, rate_hz: float, *, is_pad: bool
) -> tuple[NDArray[np.float32], int, int]:
    """Return values on the grid, how many points lie in gaps, and how many stand before the padding."""
    if told.times_ns is None or need.start_ns is None:
        raise SourceError("irregular_axis", f"{told.info.name}: its times are gone")
    times_ns = told.times_ns
    # The neighbour on either side counts only when its time does not go back.
    low, high = 0, len(times_ns)
    if need.start < need.first and (times_ns[0] == NO_TIME or times_ns[0] > times_ns[1]):
        low = 1
    if need.stop > need.last and (times_ns[-1] == NO_TIME or times_ns[-1] < times_ns[-2]):
        high -= 1
    times_ns, values_TC = times_ns[low:high], values_TC[low:high]
    if (times_ns == NO_TIME).any() or (np.diff(times_ns) < 0).any():
        raise SourceError("source_changed", f"{told.info.name}: its times are not those of the plan")
    data_steps = steps
    if is_pad:
        last = int((times_ns[-1] - need.start_ns) * rate_hz // 1_000_000_000) + 1
        data_steps = min(max(last, 1), steps)
    found, gaps = onto_grid(times_ns, values_TC, need.start_ns, data_steps, rate_hz)
    return found, gaps, data_steps


def _decimated(values_TC: NDArray[np.float32], first: int, count: int, factor: int) -> NDArray[np.float32]:
    """Return every factor-th sample from step 0 on, anti-aliased; `first` is the step of the first value."""
    columns = [
        resample(values_TC[:, column].astype(np.float64), -first, count, Fraction(1, factor))
        for column in range(values_TC.shape[1])
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _core_ns(need: Need, rate_hz: float) -> tuple[int | None, int | None]:
    chunk = need.chunk
    clock = next(part for part in chunk.inputs[0].slices if part.dim == "time_ns")
    if chunk.core is None:
        return clock.start, clock.stop
    return tuple(time_of(index - need.first, clock.start, rate_hz) for index in chunk.core)  # type: ignore[return-value]
