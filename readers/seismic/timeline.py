"""Pieces of several components on one grid: runs, each anchored at its own first sample.

A recorded sample belongs to the grid point nearest to it, at most half a sample away. The files of a window are those
with a sample that belongs to it or lies within its times, so that neither reading of "in the window" loses one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from s1batch.grid import ChunkGrid, index_before, index_of
from s1batch.readers.seismic.catalogue import Lane
from s1batch.readers.seismic.coverage import Piece


@dataclass(slots=True)
class Track:
    """The pieces of one component in one run, by time.

    Attributes:
        lows: First grid point whose interval or neighbourhood holds a sample, per piece.
        firsts: Grid point nearest to the first sample.
        stops: Grid point behind the last sample.
        pieces: The pieces themselves.
    """

    lows: list[int] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)

    def within(self, start: int, stop: int) -> list[tuple[Piece, int]]:
        """Return the pieces that a range of grid points draws from, each with the grid points that it fills."""
        found = []
        position = start
        for i in range(bisect_right(self.stops, start), bisect_left(self.lows, stop)):
            end = min(self.stops[i], stop)
            found.append((self.pieces[i], max(0, end - max(self.firsts[i], position))))
            position = max(position, end)
        return found


@dataclass(slots=True)
class Run:
    """Pieces with no gap that a window could not bridge.

    Attributes:
        anchor_ns: Time of grid point 0, the first sample.
        intervals: Covered ranges of grid points, sorted and disjoint.
        tracks: By component.
    """

    anchor_ns: int
    intervals: list[tuple[int, int]]
    tracks: dict[str, Track]


def runs(lane: Lane, grid: ChunkGrid, rate_hz: float) -> Iterator[Run]:
    """Yield the runs of a lane, by time.

    Args:
        lane: Pieces by component.
        grid: How windows are cut.
        rate_hz: Rate of the grid, which is the rate that is sent.
    """
    order = sorted(((piece, component) for component, pieces in lane.items() for piece in pieces))
    run: Run | None = None
    for piece, component in order:
        if run is not None:
            low, first, stop = _place(piece, run.anchor_ns, rate_hz)
            if not grid.bridges(first - run.intervals[-1][1]):
                yield run
                run = None
        if run is None:
            run = Run(anchor_ns=piece.start_ns, intervals=[], tracks={})
            low, first, stop = _place(piece, piece.start_ns, rate_hz)
        if run.intervals and first <= run.intervals[-1][1]:
            run.intervals[-1] = (min(run.intervals[-1][0], first), max(run.intervals[-1][1], stop))
        else:
            run.intervals.append((first, stop))
        track = run.tracks.setdefault(component, Track())
        track.lows.append(low)
        track.firsts.append(first)
        track.stops.append(stop)
        track.pieces.append(piece)
    if run is not None:
        yield run


def nearby(pieces: list[Piece], starts_ns: list[int], begin_ns: int, end_ns: int) -> list[Piece]:
    """Return the pieces that share time with a range, from a list by time without overlap.

    Args:
        pieces: By time.
        starts_ns: Their starts.
        begin_ns: Start of the range.
        end_ns: End of the range.
    """
    low = max(0, bisect_right(starts_ns, begin_ns) - 1)
    high = bisect_left(starts_ns, end_ns)
    return [piece for piece in pieces[low:high] if piece.stop_ns > begin_ns]


def _place(piece: Piece, anchor_ns: int, rate_hz: float) -> tuple[int, int, int]:
    """Return low, first and stop of a piece on the grid; at least one point is from first to stop.

    The last point is at or before the last sample, or, when the grid is finer than the samples, within the period
    that the last sample stands for.
    """
    stop = max(index_before(piece.last_ns, anchor_ns, rate_hz) + 1, index_of(piece.stop_ns, anchor_ns, rate_hz))
    first = min(index_of(piece.start_ns, anchor_ns, rate_hz), stop - 1)
    # One nanosecond of tolerance: both times were rounded.
    low = min(first, index_before(piece.start_ns + 1, anchor_ns, rate_hz))
    return low, first, stop
