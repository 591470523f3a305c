"""One array while windows of it are read: blocks of stored values, each decoded once.

Neighbouring windows share chunks: they overlap, or a chunk reaches over a window's end. What a read decodes beyond its
last window is kept for the next one, at most one overlap and one chunk. Small windows are read together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s1batch.errors import SourceError
from s1batch.readers.sensors.selection import GRID, OFFSET, TIME, slice_name
from s1batch.readers.sensors.stores import ArrayInfo, ArrayStore, Box
from s1batch.records import Address, Chunk

BLOCK_BYTES = 4 << 20
"""Windows are read together up to this size."""

MOST_KEPT_BYTES = 64 << 20
"""More than this is neither read beyond a window's end nor for channels that are other windows'."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Need:
    """What a window reads.

    Attributes:
        chunk: The window.
        first: Its first sample.
        last: Its first sample behind.
        start: First step that is read, margin included.
        stop: First step behind that.
        kept: Entries of each dimension but time.
        start_ns: Its time, on the clock that its address names; None without one.
        is_utc: Whether that is UTC.
        grid: Its place on an even grid; None where the samples are even themselves.
    """

    chunk: Chunk
    first: int
    last: int
    start: int
    stop: int
    kept: dict[str, tuple[int, ...]]
    start_ns: int | None
    is_utc: bool
    grid: tuple[int, int] | None


@dataclass(slots=True, kw_only=True, eq=False)
class Stored:
    """A window as it is stored.

    Attributes:
        need: What was asked for.
        values: Stored numbers of `need.start` to `need.stop`, (T, ...) with the other dimensions in the array's order.
        owned: Whether nobody else looks at that memory.
        absent_frac: Share of it in chunks that the store does not hold.
    """

    need: Need
    values: NDArray[Any] | None = None
    owned: bool = False
    absent_frac: float = 0.0
    error: SourceError | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class _Kept:
    """Decoded values beyond the last window that was read."""

    start: int
    values: NDArray[Any]
    box: tuple[tuple[int, int], ...] = field(default=())

    @property
    def nbytes(self) -> int:
        return self.values.nbytes


class Lane:
    """Reads windows of one array, in ascending order where that saves decoding.

    Args:
        store: The open store.
        info: The array.
        time_dim: Its dimension of time.
        margin: Steps that are read around each window.
    """

    def __init__(self, store: ArrayStore, info: ArrayInfo, time_dim: str) -> None:
        self.store = store
        self.info = info
        self.time_dim = time_dim
        self._axis = info.dims.index(time_dim)
        self._steps = info.shape[self._axis]
        self._kept: _Kept | None = None

    def need(self, chunk: Chunk, margin: int) -> Need:
        """Return what a window reads.

        Raises:
            SourceError: `source_changed`: the array has no such entries any more.
        """
        address = chunk.inputs[0]
        index = address.slices[0]
        kept = {dim: _entries(address, dim) for dim in self.info.dims if dim != self.time_dim}
        sizes = dict(zip(self.info.dims, self.info.shape, strict=True))
        beyond = [dim for dim, entries in kept.items() if not entries or max(entries) >= sizes[dim]]
        if index.stop > self._steps or beyond:
            raise SourceError("source_changed", f"{address.path}/{address.source} is smaller than when it was planned")
        clock = next((part for part in address.slices[1:] if part.dim in (TIME, OFFSET)), None)
        grid = next((part for part in address.slices[1:] if part.dim == GRID), None)
        return Need(
            chunk=chunk,
            first=index.start,
            last=index.stop,
            start=max(index.start - margin, 0),
            stop=min(index.stop + margin, self._steps),
            kept=kept,
            start_ns=clock.start if clock is not None else None,
            is_utc=clock is not None and clock.dim == TIME,
            grid=(grid.start, grid.stop) if grid is not None else None,
        )

    def together(self, needs: Sequence[Need]) -> int:
        """Return how many of the next windows are read at once: those of about 4 MB, at least one."""
        first = needs[0]
        low, high = first.start, first.stop
        columns = self._columns(needs[:1])
        for number, need in enumerate(needs[1:], start=1):
            if need.start < low or need.start > high:
                return number
            wider = tuple(
                (min(a, min(entries)), max(b, max(entries) + 1))
                for (a, b), entries in zip(columns, need.kept.values(), strict=True)
            )
            nbytes = (max(high, need.stop) - low) * self._row_bytes(wider)
            # Channels that are windows of their own lie in the same chunks.
            if nbytes > (MOST_KEPT_BYTES if need.start == low and need.stop == high else BLOCK_BYTES):
                return number
            columns, high = wider, max(high, need.stop)
        return len(needs)

    def load(self, needs: Sequence[Need], following: Need | None, *, refuse_absent: bool) -> list[Stored]:
        """Read windows that were put together; what cannot be read of one of them costs it alone.

        Args:
            needs: The windows.
            following: The one that is read next, of the same array.
            refuse_absent: Whether chunks that the store does not hold are errors.
        """
        columns = self._columns(needs)
        low, high = min(need.start for need in needs), max(need.stop for need in needs)
        found: list[Stored] = []
        try:
            absent = self.store.absent(self.info.name, self._box(low, high, columns))
            block, shared = self._block(low, high, columns, following)
        except SourceError as error:
            self._kept = None
            if len(needs) == 1 or error.reason == "source_unreachable":
                return [Stored(need=need, error=error) for need in needs]
            return [one for need in needs for one in self.load([need], None, refuse_absent=refuse_absent)]
        for need in needs:
            stored = Stored(need=need, owned=len(needs) == 1 and not shared)
            if absent:
                stored.absent_frac = self.store.absent(
                    self.info.name, self._box(need.first, need.last, self._columns([need]))
                )
            if stored.absent_frac and refuse_absent:
                stored.error = SourceError(
                    "missing_chunk",
                    f"{self.info.name}: {stored.absent_frac:.1%} of the window lies in chunks that the store does not "
                    "hold (source.missing: refuse)",
                )
            else:
                stored.values = self._window(block, need, low, columns)
            found.append(stored)
        return found

    def _window(self, block: NDArray[Any], need: Need, low: int, columns: tuple[tuple[int, int], ...]) -> NDArray[Any]:
        """Return a window of a block, time first."""
        part = np.moveaxis(block, self._axis, 0)[need.start - low : need.stop - low]
        for axis, ((start, stop), entries) in enumerate(zip(columns, need.kept.values(), strict=True), start=1):
            if len(entries) == stop - start:
                continue
            if entries[-1] - entries[0] + 1 == len(entries):
                part = part[(slice(None),) * axis + (slice(entries[0] - start, entries[-1] + 1 - start),)]
            else:
                part = np.take(part, [entry - start for entry in entries], axis=axis)
        return part

    def _block(
        self, low: int, high: int, columns: tuple[tuple[int, int], ...], following: Need | None
    ) -> tuple[NDArray[Any], bool]:
        """Return steps low to high, and whether what is kept shares their memory."""
        kept, self._kept = self._kept, None
        have: NDArray[Any] | None = None
        begin = low
        if kept is not None and kept.box == columns and kept.start <= low < kept.start + self._length(kept.values):
            have = self._along(kept.values, low - kept.start, None)
            begin = low + self._length(have)
        end = max(high, begin)
        goes_on = following is not None and low <= following.start and self._columns([following]) == columns
        if goes_on and following is not None and end > begin:
            chunk = self.info.chunks[self._axis] if self.info.chunks else 1
            aligned = min(-(-end // chunk) * chunk, self._steps)
            if following.start < aligned and (aligned - end) * self._row_bytes(columns) <= MOST_KEPT_BYTES:
                end = aligned
        block = have
        if end > begin:
            fresh = self.store.read(self.info.name, self._box(begin, end, columns))
            block = fresh if have is None else np.concatenate([have, fresh], axis=self._axis)
        if block is None:
            raise ValueError("an empty window")
        shared = False
        if goes_on and following is not None and following.start < end:
            rest = self._along(block, following.start - low, None)
            shared = 2 * rest.nbytes > block.nbytes
            if rest.nbytes <= 2 * MOST_KEPT_BYTES or not shared:
                self._kept = _Kept(start=following.start, values=rest if shared else rest.copy(), box=columns)
        return self._along(block, 0, high - low), shared or have is not None

    def _along(self, values: NDArray[Any], start: int, stop: int | None) -> NDArray[Any]:
        return values[(slice(None),) * self._axis + (slice(start, stop),)]

    def _length(self, values: NDArray[Any]) -> int:
        return int(values.shape[self._axis])

    def _columns(self, needs: Sequence[Need]) -> tuple[tuple[int, int], ...]:
        """Return the range of entries that some windows need, for each dimension but time."""
        by_dim = zip(*(need.kept.values() for need in needs), strict=True)
        return tuple((min(map(min, entries)), max(map(max, entries)) + 1) for entries in by_dim)

    def _box(self, start: int, stop: int, columns: tuple[tuple[int, int], ...]) -> Box:
        parts = [slice(*column) for column in columns]
        parts.insert(self._axis, slice(start, stop))
        return tuple(parts)

    def _row_bytes(self, columns: tuple[tuple[int, int], ...]) -> int:
        width = 1
        for start, stop in columns:
            width *= stop - start
        return width * self.info.dtype.itemsize


def time_dim_of(address: Address, info: ArrayInfo) -> str | None:
    """Return which dimension of an array the first slice of an address counts."""
    wanted = address.slices[0].dim if address.slices else ""
    return next((dim for dim in info.dims if slice_name(dim) == wanted), None)


def _entries(address: Address, dim: str) -> tuple[int, ...]:
    name = slice_name(dim)
    return tuple(entry for part in address.slices[1:] if part.dim == name for entry in range(part.start, part.stop))
