"""Pieces of several components on one grid: runs, each anchored at its own first sample."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from s1batch.grid import ChunkGrid, index_before, time_of
from s1batch.readers.seismic.catalogue import Lane
from s1batch.readers.seismic.coverage import Coverage, Piece
from s1batch.readers.seismic.placement import first_place, is_even, parts

ROUNDING_NS = 1
"""By how much a time that was rounded may be too early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Samples first to stop of a piece, and whether they go into chunks (`selected`) or why not.

    Attributes:
        piece: The piece.
        first: Its first sample that is meant.
        stop: The sample behind.
        reason: `overlap` where another piece holds the place already, `fast_clock` where the sample before does; empty
            for what is selected.
    """

    piece: Piece
    first: int
    stop: int
    reason: str = ""


@dataclass(slots=True)
class Track:
    """The samples of one component in one run that go into chunks, as ranges of grid points, by place.

    Attributes:
        lows: First grid point whose interval holds a sample of the range; smaller than `firsts` only where the grid
            that is sent is coarser than the samples.
        firsts: First grid point of each range.
        stops: Grid point behind it.
        pieces: The piece that it is drawn from.
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
        claims: What becomes of every sample of every piece.
    """

    anchor_ns: int
    intervals: list[tuple[int, int]]
    tracks: dict[str, Track]
    claims: list[Claim]


def runs(lane: Lane, grid: ChunkGrid, rate_hz: float, sent_hz: float) -> Iterator[Run]:
    """Yield the runs of a lane, by time.

    Args:
        lane: Pieces by component.
        grid: How windows are cut.
        rate_hz: Recorded rate: of the grid on which samples take their places.
        sent_hz: Rate that is sent: of the grid on which windows are cut.
    """
    order = sorted((piece, component) for component, pieces in lane.items() for piece in pieces)
    members: list[tuple[Piece, str]] = []
    intervals: list[tuple[int, int]] = []
    for piece, component in order:
        if members:
            first, stop = _extent(piece, members[0][0].start_ns, rate_hz, sent_hz)
            if not grid.bridges(first - intervals[-1][1]):
                yield _run(members, intervals, rate_hz, sent_hz)
                members, intervals = [], []
        if not members:
            first, stop = _extent(piece, piece.start_ns, rate_hz, sent_hz)
        members.append((piece, component))
        if intervals and first <= intervals[-1][1]:
            intervals[-1] = (min(intervals[-1][0], first), max(intervals[-1][1], stop))
        else:
            intervals.append((first, stop))
    if members:
        yield _run(members, intervals, rate_hz, sent_hz)


def _run(members: list[tuple[Piece, str]], intervals: list[tuple[int, int]], rate_hz: float, sent_hz: float) -> Run:
    """Give every sample its place, in the order of precedence."""
    anchor_ns = members[0][0].start_ns
    coverages: dict[str, Coverage] = {}
    ranges: dict[str, list[tuple[int, int, int, Piece]]] = {}
    claims: list[Claim] = []
    for piece, component in sorted(members, key=lambda member: member[0].precedence):
        coverage = coverages.setdefault(component, Coverage())
        found = ranges.setdefault(component, [])
        position = 0
        for first, stop, place in parts(piece.start_ns, piece.rate_hz, piece.samples, anchor_ns, rate_hz):
            if first > position:
                claims.append(Claim(piece=piece, first=position, stop=first, reason="fast_clock"))
            position = stop
            for low, high, is_free in coverage.claim(place, place + stop - first):
                begin, end = first + low - place, first + high - place
                claims.append(Claim(piece=piece, first=begin, stop=end, reason="" if is_free else "overlap"))
                if is_free and sent_hz == rate_hz:
                    found.append((low, low, high, piece))
                elif is_free:
                    point, behind = _sent_extent(piece, begin, end, anchor_ns, sent_hz)
                    begin_ns = time_of(begin, piece.start_ns, piece.rate_hz)
                    within = index_before(begin_ns + ROUNDING_NS, anchor_ns, sent_hz)
                    found.append((min(point, within), point, behind, piece))
        if position < piece.samples:
            claims.append(Claim(piece=piece, first=position, stop=piece.samples, reason="fast_clock"))
    tracks = {}
    for component, found in ranges.items():
        found.sort()
        lows, firsts, stops, pieces = (list(column) for column in zip(*found, strict=True)) if found else ([],) * 4
        # Where the grid that is sent is coarser, a range may end behind the next one's start: `within` wants order.
        tracks[component] = Track(lows, firsts, list(accumulate(stops, max)), pieces)
    return Run(anchor_ns=anchor_ns, intervals=intervals, tracks=tracks, claims=claims)


def nearby(pieces: list[Piece], reach_ns: list[int], begin_ns: int, end_ns: int) -> list[Piece]:
    """Return the pieces that share time with a range.

    Args:
        pieces: By start.
        reach_ns: For each, the latest end of all up to it.
        begin_ns: Start of the range.
        end_ns: End of the range.
    """
    low = bisect_right(reach_ns, begin_ns)
    high = bisect_left(pieces, (end_ns,))
    return [piece for piece in pieces[low:high] if piece.stop_ns > begin_ns]


def _extent(piece: Piece, anchor_ns: int, rate_hz: float, sent_hz: float) -> tuple[int, int]:
    """Return the grid points of the windows' grid that a piece covers, from first to stop; at least one."""
    if sent_hz != rate_hz:
        return _sent_extent(piece, 0, piece.samples, anchor_ns, sent_hz)
    first = first_place(piece.start_ns, anchor_ns, rate_hz)
    if is_even(piece.rate_hz, piece.samples, rate_hz):
        return first, first + piece.samples
    last = first
    tail = max(0, piece.samples - 2)  # of the last two samples at least one is on a place of its own
    for begin, end, place in parts(
        piece.start_ns, piece.rate_hz, piece.samples, anchor_ns, rate_hz, tail, piece.samples
    ):
        last = max(last, place + end - begin - 1)
    return first, last + 1


def _sent_extent(piece: Piece, first: int, stop: int, anchor_ns: int, sent_hz: float) -> tuple[int, int]:
    """Return the points of a grid of another rate that samples first to stop of a piece cover.

    The last point is at or before the last sample, or, when the grid is finer than the samples, within the period
    that the last sample stands for.
    """
    begin_ns = time_of(first, piece.start_ns, piece.rate_hz)
    last_ns = time_of(stop - 1, piece.start_ns, piece.rate_hz)
    end_ns = time_of(stop, piece.start_ns, piece.rate_hz)
    behind = max(index_before(last_ns, anchor_ns, sent_hz) + 1, first_place(end_ns, anchor_ns, sent_hz))
    return min(first_place(begin_ns, anchor_ns, sent_hz), behind - 1), behind
