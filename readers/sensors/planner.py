"""From the descriptions of stores to the inventory and the windows of the plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from s1batch.errors import SourceError
from s1batch.grid import first_index_from, time_of
from s1batch.long_series import LongSeries, SentWindow, SeriesGrid
from s1batch.readers.sensors.axis import NO_TIME, TimeAxis, all_offsets_ns, read_axis, time_dimension
from s1batch.readers.sensors.places import ROOT_NAME, Facts, Places
from s1batch.readers.sensors.selection import GRID, OFFSET, TIME, Channels, channels_of, slice_name
from s1batch.readers.sensors.spec import SensorsSource
from s1batch.readers.sensors.stores import ArrayInfo, ArrayStore
from s1batch.readers.sensors.uneven import UnevenWindow, rate_of, uneven_windows
from s1batch.readers.sensors.values import packing_of
from s1batch.records import Address, Chunk, InventoryItem, Outcome, PlanEntry, Reason, Refusal, SeriesShape, Slice
from s1batch.windows import WindowSpec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_VERDICTS: frozenset[Reason] = frozenset({"irregular_axis", "rate_missing", "wrong_shape", "no_match"})
"""Reasons that are verdicts on arrays which could be read."""

Line = InventoryItem | PlanEntry


def plan_sensors(spec: SensorsSource, window: WindowSpec, long: LongSeries, places: Places) -> Iterator[Line]:
    """Yield the whole archive as inventory items, and every chunk once: store by store, array by array.

    Raises:
        UsageError: No store matches, or the window is impossible.
        MissingExtra: A library is not installed.
    """
    for name in places.names():
        facts = Facts(size=0, mtime_ns=0)
        try:
            facts = places.facts(name, now=True)
            store = places.open(name)
        except SourceError as error:
            yield from _unreadable(name, facts, "", "bytes", facts.size, error)
            continue
        try:
            yield from _Store(
                spec=spec, window=window, long=long, places=places, name=name, facts=facts, store=store
            ).plan()
        finally:
            store.close()


def _unreadable(
    path: str, facts: Facts, source: str, unit: str, count: int, error: SourceError, slices: tuple[Slice, ...] = ()
) -> Iterator[Line]:
    yield _item(path, facts, source, "unreadable", unit, count, reason=error.reason)
    yield PlanEntry(
        chunk=Chunk((Address(source=source, root=ROOT_NAME, path=path, slices=slices),)),
        label=f"{path}/{source}" if source else path,
        refusal=Refusal(outcome="unreadable", reason=error.reason, detail=error.detail),
    )


def _item(path: str, facts: Facts, source: str, status: Any, unit: str, count: int, **about: Any) -> InventoryItem:
    return InventoryItem(
        root=ROOT_NAME,
        path=path,
        source=source,
        status=status,
        unit=unit,
        count=count,
        size=facts.size,
        mtime_ns=facts.mtime_ns,
        **about,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Store:
    """One open store."""

    spec: SensorsSource
    window: WindowSpec
    long: LongSeries
    places: Places
    name: str
    facts: Facts
    store: ArrayStore
    axes: dict[tuple[str, str, int], TimeAxis] = field(default_factory=dict)

    def plan(self) -> Iterator[Line]:
        if not self.store.arrays and not self.store.broken:
            error = SourceError("empty_file", f"{self.name}: no array in it")
            yield from _unreadable(self.name, self.facts, "", "bytes", self.facts.size, error)
        for source, why in self.store.broken.items():
            count = self.places.bytes_below(self.name, source)
            yield from _unreadable(self.name, self.facts, source, "bytes", count, SourceError("not_readable", why))
        helpers = self._helpers()
        unknown = self._unknown_names()
        for info in self.store.arrays.values():
            is_helper = info.name in helpers
            if not _is_wanted(info, self.spec.variables, is_helper=is_helper):
                yield self._left_out(info, info.size, "coordinate" if is_helper else "variable")
                continue
            yield from self._plan_array(info, unknown)

    def _plan_array(self, info: ArrayInfo, unknown: str) -> Iterator[Line]:
        found = time_dimension(self.store, info, self.spec)
        if found is None:
            if self.spec.variables is None:
                yield self._left_out(info, info.size, "no_time")
                return
            why = f"{info.name}: none of its dimensions ({', '.join(info.dims) or 'it has none'}) is known to be time; "
            yield from self._refused(info, SourceError("wrong_shape", f"{why}name it in source.time"))
            return
        if not info.size:
            yield self._left_out(info, 0, "empty")
            return
        dim, times = found
        try:
            packing_of(info)
            if unknown:
                raise SourceError("no_match", f"{info.name}: {unknown}")
            axis = self._axis(info, dim, times)
            series = list(channels_of(self.store, info, dim, self.spec))
            first, stop = self._range(axis, info)
        except SourceError as error:
            if error.reason in _VERDICTS:
                yield from self._refused(info, error)
            else:
                whole = (Slice(dim=slice_name(info.dims[0]), start=0, stop=info.shape[0]),)
                yield from _unreadable(self.name, self.facts, info.name, "samples", info.size, error, whole)
            return
        width = sum(len(channels.names) for channels in series)
        others = info.size // axis.steps
        if others > width:
            yield self._left_out(info, axis.steps * (others - width), "select")
        if stop - first < axis.steps:
            yield self._left_out(info, (axis.steps - (stop - first)) * width, "time_range")
        if stop == first or not width:
            return
        for channels in series:
            count = (stop - first) * len(channels.names)
            yield _item(self.name, self.facts, channels.source, "selected", "samples", count, start=first, stop=stop)
        yield from self._windows(info, axis, series, first, stop)

    def _windows(
        self, info: ArrayInfo, axis: TimeAxis, series: Sequence[Channels], first: int, stop: int
    ) -> Iterator[PlanEntry]:
        if axis.uneven:
            if self.spec.irregular == "refuse":
                yield from self._whole(axis, series, first, stop, SourceError("irregular_axis", axis.uneven))
                return
            yield from self._resampled(info, axis, series, first, stop)
            return
        rate_hz = axis.rate_hz
        if rate_hz is None:
            raise ValueError("an even axis has a rate")
        grid = SeriesGrid(self.window, self.long, rate_hz)
        for sent in grid.windows([(first, stop)]):
            window = sent.window
            end = window.stop - window.pad
            timed: tuple[Slice, ...] = ()
            if axis.start_ns is not None:
                begin_ns, end_ns = (time_of(index, axis.start_ns, rate_hz) for index in (window.start, end))
                timed = (Slice(dim=TIME, start=begin_ns, stop=end_ns),)
            core = (window.core_start, window.core_stop)
            for channels in series:
                index = Slice(dim=slice_name(axis.dim), start=window.start, stop=end)
                slices = (index, *channels.slices(), *timed)
                whole = core == (window.start, end)
                yield self._entry(info, channels, slices, rate_hz, sent, None if whole else core)

    def _resampled(
        self, info: ArrayInfo, axis: TimeAxis, series: Sequence[Channels], first: int, stop: int
    ) -> Iterator[PlanEntry]:
        try:
            offsets = all_offsets_ns(self.store, axis)
            rate_hz = self.spec.rate_hz or rate_of(offsets, axis.uneven)
        except SourceError as error:
            yield from self._whole(axis, series, first, stop, error)
            return
        grid = SeriesGrid(self.window, self.long, rate_hz)
        origin_ns = axis.start_ns
        for found in uneven_windows(offsets, first, stop, rate_hz, grid, axis.uneven):
            if isinstance(found, UnevenWindow):
                shift_ns = origin_ns or 0
                timed = Slice(
                    dim=OFFSET if origin_ns is None else TIME,
                    start=found.start_ns + shift_ns,
                    stop=found.stop_ns + shift_ns,
                )
                window = found.sent.window
                placed = Slice(dim=GRID, start=window.start, stop=window.stop)
                for channels in series:
                    index = Slice(dim=slice_name(axis.dim), start=found.first, stop=found.last)
                    slices = (index, *channels.slices(), timed, placed)
                    yield self._entry(info, channels, slices, rate_hz, found.sent, None)
            else:
                low, high, why = found
                yield from self._whole(axis, series, low, high, SourceError("irregular_axis", why))

    def _entry(
        self,
        info: ArrayInfo,
        channels: Channels,
        slices: tuple[Slice, ...],
        rate_hz: float,
        sent: SentWindow,
        core: tuple[int, int] | None,
    ) -> PlanEntry:
        steps = sent.window.stop - sent.window.start
        address = Address(source=channels.source, root=ROOT_NAME, path=self.name, slices=slices, rate_hz=rate_hz)
        return PlanEntry(
            chunk=Chunk((address,), core),
            label=f"{self.name}/{channels.source}",
            series=SeriesShape(
                steps=-(-steps // sent.factor), channels=len(channels.names), rate_hz=rate_hz / sent.factor
            ),
            nbytes=(slices[0].stop - slices[0].start) * len(channels.names) * info.dtype.itemsize,
        )

    def _whole(
        self, axis: TimeAxis, series: Sequence[Channels], first: int, stop: int, error: SourceError
    ) -> Iterator[PlanEntry]:
        """Refuse a stretch of every series in one chunk each."""
        for channels in series:
            index = Slice(dim=slice_name(axis.dim), start=first, stop=stop)
            address = Address(
                source=channels.source, root=ROOT_NAME, path=self.name, slices=(index, *channels.slices())
            )
            label = f"{self.name}/{channels.source}"
            outcome: Outcome = "refused" if error.reason in _VERDICTS else "unreadable"
            refusal = Refusal(outcome=outcome, reason=error.reason, detail=f"{label}: {error.detail}")
            yield PlanEntry(chunk=Chunk((address,)), label=label, refusal=refusal)

    def _refused(self, info: ArrayInfo, error: SourceError) -> Iterator[Line]:
        """Refuse a whole array."""
        label = f"{self.name}/{info.name}"
        slices = (Slice(dim=slice_name(info.dims[0]), start=0, stop=info.shape[0]),) if info.dims else ()
        yield _item(self.name, self.facts, info.name, "selected", "samples", info.size)
        yield PlanEntry(
            chunk=Chunk((Address(source=info.name, root=ROOT_NAME, path=self.name, slices=slices),)),
            label=label,
            refusal=Refusal(outcome="refused", reason=error.reason, detail=f"{self.name}: {error.detail}"),
        )

    def _left_out(self, info: ArrayInfo, count: int, reason: str) -> InventoryItem:
        return _item(self.name, self.facts, info.name, "not_selected", "samples", count, reason=reason)

    def _axis(self, info: ArrayInfo, dim: str, times: ArrayInfo | None) -> TimeAxis:
        steps = info.shape[info.dims.index(dim)]
        key = (dim, times.name if times else "", steps)
        if key not in self.axes:
            self.axes[key] = read_axis(self.store, dim, steps, times, self.spec)
        return self.axes[key]

    def _range(self, axis: TimeAxis, info: ArrayInfo) -> tuple[int, int]:
        """Return the steps between `starttime` and `endtime`."""
        wanted = [None if time is None else _to_ns(time) for time in (self.spec.starttime, self.spec.endtime)]
        if wanted == [None, None]:
            return 0, axis.steps
        if axis.start_ns is None:
            raise SourceError("irregular_axis", f"{info.name}: it has no times in UTC to compare with source.starttime")
        if axis.rate_hz is None:
            if self.spec.irregular == "refuse":
                return 0, axis.steps  # refused as a whole
            since_ns = all_offsets_ns(self.store, axis)
            inside = since_ns != NO_TIME
            if wanted[0] is not None:
                inside &= since_ns >= wanted[0] - axis.start_ns
            if wanted[1] is not None:
                inside &= since_ns < wanted[1] - axis.start_ns
            places = np.flatnonzero(inside)
            return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
        low, high = (
            default if time is None else min(max(0, first_index_from(time, axis.start_ns, axis.rate_hz)), axis.steps)
            for time, default in zip(wanted, (0, axis.steps), strict=True)
        )
        return low, max(low, high)

    def _helpers(self) -> frozenset[str]:
        """Return the arrays that describe others: labels of dimensions, times, coordinates, bounds."""
        found: set[str] = set()
        arrays = self.store.arrays
        for info in arrays.values():
            if info.dims == (info.short,):
                found.add(info.name)
            group = f"{info.group}/" if info.group else ""
            for attribute in ("coordinates", "bounds", "climatology", "grid_mapping", "ancillary_variables"):
                names = info.attrs.get(attribute)
                found |= {group + name for name in names.split()} & arrays.keys() if isinstance(names, str) else set()
            if len(info.dims) == 1 and self.spec.time in (info.short, info.name):
                found.add(info.name)
        return frozenset(found)

    def _unknown_names(self) -> str:
        """Return what is wrong with dimensions that the job file names, in words; empty where no array lacks them."""
        dims = {dim for info in self.store.arrays.values() for dim in info.dims}
        for field_name, names in (("channels", self.spec.channels or ()), ("select", tuple(self.spec.select))):
            for name in names:
                if name not in dims:
                    return f"source.{field_name} names {name!r}; the dimensions are {', '.join(sorted(dims))}"
        return ""


def _is_wanted(info: ArrayInfo, patterns: Iterable[str] | None, *, is_helper: bool) -> bool:
    """Return whether the job file asks for an array; what describes other arrays must be named outright."""
    if patterns is None:
        return not is_helper
    for pattern in patterns:
        name, wanted = info.name if "/" in pattern else info.short, pattern.strip("/")
        if name == wanted or (not is_helper and fnmatchcase(name, wanted)):
            return True
    return False


def _to_ns(time: datetime) -> int:
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1) * 1000
