"""Which records of a MiniSEED file follow one another, and which of them are decoded together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from s1batch.grid import time_of
from s1batch.readers.seismic.components import RATE_TOLERANCE
from s1batch.readers.seismic.record_index import RecordIndex
from s1batch.readers.seismic.sample_buffers import Buffer
from s1batch.readers.seismic.selection import cut_to_range

Samples = NDArray[np.generic]

BLOCK_SAMPLES = 1 << 18
"""Records are decoded together up to this many samples: enough to hide the cost of a call, small in memory."""


@dataclass(slots=True, kw_only=True, eq=False)
class Block:
    """Samples of one channel that are decoded together; sample k of its run is at run_start_ns + k * 1e9 / rate_hz.

    Attributes:
        run_start_ns: Time of the first sample of the contiguous run that the block belongs to.
        rate_hz: The run's rate.
        run_count: The run's samples.
        first: Place in the run of the block's first sample.
        stop: Place in the run behind the block's last sample.
        last_use: Largest use number of the ranges that touch the block.
        rows: Which records of the index it holds (MiniSEED).
        values: The samples once loaded, int32, float32 or float64 as stored.
        memory: Lent memory that they lie in, to be given back.
        damage: Ranges (in places of the run) that could not be decoded, with the decoder's words.
    """

    run_start_ns: int
    rate_hz: float
    run_count: int
    first: int
    stop: int
    last_use: int = -1
    rows: NDArray[np.int64] | None = None
    values: Samples | None = None
    memory: Buffer | None = None
    damage: list[tuple[int, int, str]] = field(default_factory=list)

    @property
    def start_ns(self) -> int:
        """Time of the block's first sample."""
        return self.run_start_ns + round(self.first * 1e9 / self.rate_hz)

    @property
    def stop_ns(self) -> int:
        """Time one period behind the block's last sample."""
        return self.run_start_ns + round(self.stop * 1e9 / self.rate_hz)

    def select(self, time_range: tuple[int | None, int | None]) -> None:
        """Let the run be only what lies within a range of time: its samples, as planned, then count from there."""
        first, stop = cut_to_range(self.run_start_ns, self.rate_hz, self.run_count, time_range)
        self.run_start_ns = time_of(first, self.run_start_ns, self.rate_hz)
        self.run_count = stop - first
        self.first, self.stop = self.first - first, self.stop - first

    def clip(self) -> None:
        """Drop loaded samples in front of the run's first or behind its last one."""
        if self.values is None or (self.first >= 0 and self.stop <= self.run_count):
            return
        first = min(max(self.first, 0), self.stop)
        stop = max(min(self.stop, self.run_count), first)
        self.values = self.values[first - self.first : stop - self.first]
        self.first, self.stop = first, stop


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordRun:
    """Records whose samples follow one another: `rows` of the index, `first` place of each in the run, and the end."""

    rows: NDArray[np.int64]
    first: NDArray[np.int64]
    start_ns: int
    rate_hz: float

    @property
    def samples(self) -> int:
        """How many samples the run has."""
        return int(self.first[-1])


def split_runs(index: RecordIndex, rows: NDArray[np.int64]) -> list[RecordRun]:
    """Return the contiguous runs of one channel's records, in the order of the file: of their first records.

    Two records are joined when one begins within half a period of where the other ends, at a rate that is the same
    within 1e-4: neighbours in the file, and pieces of it that stand out of order. The samples of a run count on evenly
    from its first record, at the rate of the one that stands first in the file. Where its end lies more than half a
    period off that grid, it is cut into runs each of whose records lies within half a period. These are the rules of
    libmseed's trace list but for the last one, so that a scan may use that list where it shows nothing odd. (Only where
    records of one run differ in rate and also stand out of order may that list name the rate of another one.) Runs do
    not depend on which part of the file is wanted.
    """
    if not len(rows):
        return []
    # Neighbours in the file need not be gathered.
    at = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] + 1 == len(rows) else rows
    origin_ns = int(index.start_ns[rows[0]])
    since_ns, count, rate_hz = index.start_ns[at] - origin_ns, index.count[at], index.rate_hz[at]
    is_one_rate = bool((rate_hz == rate_hz[0]).all())
    rate = rate_hz[0] if is_one_rate else rate_hz
    last_ns = since_ns + np.floor((count - 1) * 1e9 / rate + 0.5).astype(np.int64)
    periods_ns = np.broadcast_to(np.floor(1e9 / rate).astype(np.int64), len(rows))

    def follows(before: NDArray[np.intp] | slice, after: NDArray[np.intp] | slice) -> NDArray[np.bool_]:
        period_ns = periods_ns[after]
        late_ns = np.abs(since_ns[after] - last_ns[before] - period_ns)
        is_near = np.asarray(late_ns <= period_ns // 2)
        if is_one_rate:
            return is_near
        return np.asarray(is_near & (np.abs(1 - rate_hz[after] / rate_hz[before]) < RATE_TOLERANCE))

    borders = np.flatnonzero(~follows(slice(-1), slice(1, None))) + 1
    places = np.arange(len(rows))
    if not len(borders):
        chains = [places]
    else:
        pieces = np.split(places, borders)
        firsts, lasts = np.array([piece[0] for piece in pieces]), np.array([piece[-1] for piece in pieces])
        by_time = np.argsort(since_ns[firsts], kind="stable")
        breaks = np.flatnonzero(~follows(lasts[by_time[:-1]], firsts[by_time[1:]])) + 1
        chains = [np.concatenate([pieces[k] for k in group]) for group in np.split(by_time, breaks)]
        chains.sort(key=lambda chain: int(chain.min()))
    found: list[RecordRun] = []
    for chain in chains:
        run_rate_hz = float(rate_hz[chain.min()])
        while len(chain):
            numbers = np.concatenate(([0], np.cumsum(count[chain])))
            begin_ns, total = int(since_ns[chain[0]]), int(numbers[-1])
            end_ns = int(last_ns[chain[-1]])
            end = len(chain)
            if not fits(end_ns, time_of(total - 1, begin_ns, run_rate_hz), run_rate_hz):
                drift_ns = np.abs(since_ns[chain] - begin_ns - numbers[:-1] * (1e9 / run_rate_hz))
                strayed = np.flatnonzero(drift_ns > 5e8 / run_rate_hz)
                end = int(strayed[0]) if len(strayed) else len(chain)
            found.append(
                RecordRun(
                    rows=rows[chain[:end]],
                    first=numbers[: end + 1],
                    start_ns=origin_ns + begin_ns,
                    rate_hz=run_rate_hz,
                )
            )
            chain = chain[end:]
            if len(chain):
                run_rate_hz = float(rate_hz[chain[0]])
    return found


def fits(time_ns: int, expected_ns: int, rate_hz: float, tolerance_ns: int = 0) -> bool:
    """Return whether a time is within half a period, less a tolerance, of where it is expected."""
    return 2 * (abs(time_ns - expected_ns) + tolerance_ns) * rate_hz <= 1_000_000_000


def run_blocks(run: RecordRun, ranges: NDArray[np.int64]) -> list[Block]:
    """Group the records of a run that touch a range into blocks of neighbours.

    Args:
        run: The run.
        ranges: Shape (n, 3): start_ns, stop_ns (half-open) and a use number per range.
    """
    period_ns = 1e9 / run.rate_hz
    edges_ns = run.first * period_ns
    low = np.searchsorted(edges_ns[1:], ranges[:, 0] - run.start_ns, side="right")
    high = np.searchsorted(edges_ns[:-1], ranges[:, 1] - run.start_ns, side="left")
    touched = np.maximum(high - low, 0)
    if not touched.any():
        return []
    last_use = np.full(len(run.rows), -1, np.int64)
    places = np.repeat(low - np.concatenate(([0], np.cumsum(touched)[:-1])), touched) + np.arange(touched.sum())
    np.maximum.at(last_use, places, np.repeat(ranges[:, 2], touched))
    wanted = np.flatnonzero(last_use >= 0)
    ends = np.flatnonzero(np.diff(wanted) > 1)
    found: list[Block] = []
    for first, last in zip(wanted[[0, *(ends + 1)]].tolist(), wanted[[*ends, -1]].tolist(), strict=True):
        found += _group_blocks(run, first, last + 1, last_use)
    return found


def _group_blocks(run: RecordRun, first: int, end: int, last_use: NDArray[np.int64]) -> list[Block]:
    """Cut neighbouring records first to end of a run into blocks of limited size."""
    found = []
    while first < end:
        stop = end
        if run.first[end] - run.first[first] > BLOCK_SAMPLES:
            stop = int(np.searchsorted(run.first, run.first[first] + BLOCK_SAMPLES, side="right")) - 1
            stop = max(stop, first + 1)
        found.append(
            Block(
                run_start_ns=run.start_ns,
                rate_hz=run.rate_hz,
                run_count=int(run.first[-1]),
                first=int(run.first[first]),
                stop=int(run.first[stop]),
                last_use=int(last_use[first:stop].max()),
                rows=run.rows[first:stop],
            )
        )
        first = stop
    return found
