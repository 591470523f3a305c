"""One call of `read`: a thread reads and decodes ahead, the caller unpacks and puts series together.

A block is 4 MB, or one window where that is larger. While the windows of one block are handed out the next one is read,
as long as the blocks that all calls of a reader read ahead stay within 64 MB together; otherwise it is read when it is
its turn. So a call holds one block, and few hold a second one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from typing import Any

from s1batch.errors import SourceError
from s1batch.long_series import LongSeries, SeriesGrid
from s1batch.readers.resample import SINC_HALF_SAMPLES
from s1batch.readers.sensors.ahead import ReadAhead
from s1batch.readers.sensors.axis import TimeAxis, all_offsets_ns, date_text, time_dimension
from s1batch.readers.sensors.cf_time import time_units
from s1batch.readers.sensors.lane import MOST_KEPT_BYTES, Lane, Need, Stored, time_dim_of
from s1batch.readers.sensors.lineage import empty_lineage
from s1batch.readers.sensors.places import Places
from s1batch.readers.sensors.selection import coordinates_text, names_of, variable_of
from s1batch.readers.sensors.series import Told, make_series
from s1batch.readers.sensors.spec import SensorsSource
from s1batch.readers.sensors.stores import ArrayStore
from s1batch.readers.sensors.values import Packing, packing_of
from s1batch.records import Chunk, Outcome, Reason, Record, Refusal
from s1batch.windows import WindowSpec

_REFUSED: frozenset[Reason] = frozenset(
    {"not_finite", "missing_chunk", "irregular_axis", "gap_too_large", "rate_missing", "wrong_shape", "no_match"}
)
"""Reasons that are verdicts on data which could be read."""


@dataclass(slots=True, eq=False)
class _Loaded:
    """A window that was read, with what is told of it."""

    stored: Stored
    told: Told | None
    lineage: dict[str, Any]


@dataclass(slots=True, eq=False)
class _Array:
    """An array that is being read."""

    lane: Lane
    packing: Packing
    axis: TimeAxis | None
    told: dict[tuple[tuple[int, ...], ...], tuple[tuple[str, ...], str]] = field(default_factory=dict)


class ReadSession:
    """Reads chunks in the order given; a context manager.

    Args:
        spec: The source block.
        window: How series were cut.
        long: What became of windows that are longer than the engine takes.
        places: Finds and opens stores.
        chunks: What is read.
        ahead: Bounds what is read ahead.
    """

    def __init__(
        self,
        spec: SensorsSource,
        window: WindowSpec,
        long: LongSeries,
        places: Places,
        chunks: Sequence[Chunk],
        ahead: ReadAhead,
    ) -> None:
        self._spec = spec
        self._window = window
        self._long = long
        self._places = places
        self._chunks = chunks
        self._ahead = ahead
        self._grids: dict[float, SeriesGrid] = {}
        self._open: tuple[str, ArrayStore] | None = None
        self._array: tuple[str, str, _Array] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="s1batch-sensors")

    def __enter__(self) -> ReadSession:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._close()

    def records(self) -> Iterator[Record]:
        """Yield one record for each chunk."""
        loads = self._loads()
        loaded = self._thread.submit(next, loads, None).result()
        while loaded is not None:
            # The next block is most likely as large as this one.
            nbytes = sum(one.stored.values.nbytes for one in loaded if one.stored.values is not None)
            is_ahead = self._ahead.begin(nbytes)
            try:
                coming = self._thread.submit(next, loads, None) if is_ahead else None
                loaded.reverse()
                while loaded:
                    yield self._record(loaded.pop())
                loaded = (coming or self._thread.submit(next, loads, None)).result()
            finally:
                if is_ahead:
                    self._ahead.end(nbytes)

    # ------------------------------------------------------------------------------- in the reading thread

    def _loads(self) -> Iterator[list[_Loaded]]:
        place = 0
        while place < len(self._chunks):
            chunk = self._chunks[place]
            lineage = empty_lineage(chunk)
            try:
                self._look(chunk, lineage)
                array = self._array_of(chunk)
                needs = self._needs(array, place)
            except SourceError as error:
                yield [_Loaded(Stored(need=_nothing(chunk), error=error), None, lineage)]
                place += 1
                continue
            count = array.lane.together(needs)
            following = needs[count] if count < len(needs) else None
            yield self._load(array, needs[:count], following)
            place += count

    def _load(self, array: _Array, needs: Sequence[Need], following: Need | None) -> list[_Loaded]:
        found: list[_Loaded] = []
        for stored in array.lane.load(needs, following, refuse_absent=self._spec.missing == "refuse"):
            lineage = empty_lineage(stored.need.chunk)
            told = None
            try:
                self._look(stored.need.chunk, lineage)
                if stored.error is not None and stored.error.reason == "decode_error":
                    self._look_again(stored.need.chunk, lineage)
                told = self._told(array, stored.need)
            except SourceError as error:
                stored.error = error if error.reason == "source_changed" else stored.error or error
            found.append(_Loaded(stored, told, lineage))
        return found

    def _needs(self, array: _Array, place: int) -> list[Need]:
        """Return what this window and those of the same array behind it read; no more than may be put together."""
        first = self._chunks[place].inputs[0]
        found = [array.lane.need(self._chunks[place], self._margin(self._chunks[place]))]
        variable = variable_of(first.source, self._spec.group)
        nbytes = 0
        for chunk in self._chunks[place + 1 :]:
            address = chunk.inputs[0] if chunk.inputs else None
            if address is None or address.path != first.path or not address.slices:
                break
            if (
                variable_of(address.source, self._spec.group) != variable
                or address.slices[0].dim != first.slices[0].dim
            ):
                break
            try:
                found.append(array.lane.need(chunk, self._margin(chunk)))
            except SourceError:
                break
            width = prod(map(len, found[-1].kept.values()))
            nbytes += (found[-1].stop - found[-1].start) * width * array.lane.info.dtype.itemsize
            if nbytes > 2 * MOST_KEPT_BYTES:
                break
        return found

    def _margin(self, chunk: Chunk) -> int:
        address = chunk.inputs[0]
        factor = self._factor(chunk)
        if factor > 1:
            return SINC_HALF_SAMPLES * factor
        return 1 if any(part.dim == "grid" for part in address.slices) else 0

    def _factor(self, chunk: Chunk) -> int:
        address = chunk.inputs[0]
        placed = next((part for part in address.slices if part.dim == "grid"), address.slices[0])
        if not address.rate_hz:
            raise SourceError("rate_missing", f"{address.source}: no rate was planned")
        grid = self._grid(address.rate_hz)
        return grid.factor(grid_steps(grid, self._window, placed.stop - placed.start))

    def _grid(self, rate_hz: float) -> SeriesGrid:
        grid = self._grids.get(rate_hz)
        if grid is None:
            grid = self._grids[rate_hz] = SeriesGrid(self._window, self._long, rate_hz)
        return grid

    def _look(self, chunk: Chunk, lineage: dict[str, Any]) -> None:
        facts = self._places.facts(chunk.inputs[0].path)
        lineage["source_sizes"], lineage["source_mtimes_ns"] = [facts.size], [facts.mtime_ns]

    def _look_again(self, chunk: Chunk, lineage: dict[str, Any]) -> None:
        """Raise `source_changed` where a store is another one than a moment ago, which is why it reads as damaged."""
        path = chunk.inputs[0].path
        facts = self._places.facts(path, now=True)
        if [facts.size] != lineage["source_sizes"] or [facts.mtime_ns] != lineage["source_mtimes_ns"]:
            lineage["source_sizes"], lineage["source_mtimes_ns"] = [facts.size], [facts.mtime_ns]
            raise SourceError("source_changed", f"{path} was written again while it was read")

    def _array_of(self, chunk: Chunk) -> _Array:
        address = chunk.inputs[0]
        if not address.slices or not address.rate_hz:
            raise SourceError("not_readable", f"{address.path}: no windows could be planned there")
        variable = variable_of(address.source, self._spec.group)
        if self._array is not None and self._array[:2] == (address.path, variable):
            return self._array[2]
        self._array = None
        if self._open is None or self._open[0] != address.path:
            self._close()
            self._open = (address.path, self._places.open(address.path))
        store = self._open[1]
        info = store.arrays.get(variable)
        if info is None:
            why = store.broken.get(variable, f"{address.path}/{variable} is not there any more")
            raise SourceError("source_changed" if variable not in store.broken else "not_readable", why)
        time_dim = time_dim_of(address, info)
        if time_dim is None:
            raise SourceError("source_changed", f"{address.path}/{variable} has other dimensions than when planned")
        array = _Array(
            lane=Lane(store, info, time_dim),
            packing=packing_of(info, self._spec.missing_values),
            axis=self._axis(store, address.source, info, time_dim),
        )
        self._array = (address.path, variable, array)
        return array

    def _axis(self, store: ArrayStore, source: str, info: Any, time_dim: str) -> TimeAxis | None:
        found = time_dimension(store, info, self._spec)
        if found is None or found[1] is None or found[1].dtype.kind not in "iufmM":
            return None
        times = found[1]
        units = time_units(times.dtype, times.attrs)
        first = store.read(times.name, (slice(0, 1),))[0]
        plain = int(first.astype("int64")) if first.dtype.kind in "mM" else first.item()
        return TimeAxis(
            dim=time_dim,
            steps=times.shape[0],
            rate_hz=None,
            start_ns=units.start_ns(plain),
            times=times.name,
            units=units,
        )

    def _told(self, array: _Array, need: Need) -> Told:
        """Return names, labels and times of a window, as far as they are read from the store."""
        lane = array.lane
        key = tuple(need.kept.values())
        if key not in array.told:
            names = names_of(lane.store, lane.info, tuple(need.kept.items()), self._spec)
            array.told[key] = names, coordinates_text(lane.store, lane.info, need.kept)
        names, coordinates = array.told[key]
        texts = calendar = ("", "")
        offsets = None
        axis = array.axis
        if axis is not None and axis.units is not None:
            if not need.is_utc and axis.units.is_dated:
                texts = (date_text(lane.store, axis, need.first), date_text(lane.store, axis, need.last - 1))
                calendar = (axis.units.calendar, "")
            if need.grid is not None:
                offsets = all_offsets_ns(lane.store, axis, need.start, need.stop)
                if need.is_utc and axis.start_ns is not None:
                    offsets = offsets + axis.start_ns
        return Told(
            info=lane.info,
            packing=array.packing,
            names=names,
            coordinates=coordinates,
            calendar=calendar[0],
            texts=texts,
            times_ns=offsets,
        )

    def _close(self) -> None:
        if self._open is not None:
            self._open[1].close()
        self._open = self._array = None

    # ------------------------------------------------------------------------------------ with the caller

    def _record(self, loaded: _Loaded) -> Record:
        stored, lineage = loaded.stored, loaded.lineage
        chunk = stored.need.chunk
        error = stored.error
        if error is None and loaded.told is not None:
            try:
                address = chunk.inputs[0]
                rate_hz = address.rate_hz or 0.0
                series = make_series(
                    stored, loaded.told, self._spec, self._window, self._grid(rate_hz), rate_hz, lineage
                )
                return Record(chunk=chunk, payload=series, lineage=lineage)
            except SourceError as refusal:
                error = refusal
        error = error or SourceError("not_readable", "nothing was read")
        outcome: Outcome = "refused" if error.reason in _REFUSED else "unreadable"
        detail = f"{chunk.inputs[0].path}: {error.detail}"
        return Record(
            chunk=chunk, lineage=lineage, refusal=Refusal(outcome=outcome, reason=error.reason, detail=detail)
        )


def grid_steps(grid: SeriesGrid, window: WindowSpec, steps: int) -> int:
    """Return how many steps a window has on the grid, padding included."""
    return max(steps, grid.whole.length) if window.tail == "pad" else steps


def _nothing(chunk: Chunk) -> Need:
    return Need(chunk=chunk, first=0, last=0, start=0, stop=0, kept={}, start_ns=None, is_utc=False, grid=None)
