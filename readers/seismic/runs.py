"""Which records of a MiniSEED file follow one another, and which of them are decoded together."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from s1batch.readers.seismic.record_index import RecordIndex

Samples = NDArray[np.generic]

BLOCK_SAMPLES = 1 << 18
"""Records are decoded together up to this many samples: enough to hide the cost of a call, small in memory."""

_RATE_TOLERANCE = 1e-4
"""Relative difference of rate within which records still belong together; libmseed's default."""


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
    damage: list[tuple[int, int, str]] = field(default_factory=list)

    @property
    def start_ns(self) -> int:
        """Time of the block's first sample."""
        return self.run_start_ns + round(self.first * 1e9 / self.rate_hz)

    @property
    def stop_ns(self) -> int:
        """Time one period behind the block's last sample."""
        return self.run_start_ns + round(self.stop * 1e9 / self.rate_hz)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordRun:
    """Records whose samples follow one another: `rows` of the index, `first` place of each in the run, and the end."""

    rows: NDArray[np.int64]
    first: NDArray[np.int64]
    start_ns: int
    rate_hz: float


def split_runs(index: RecordIndex, rows: NDArray[np.int64]) -> list[RecordRun]:
    """Return the contiguous runs of one channel's records, in the order of the file.

    A record continues a run when it begins within half a period of where the record before it ended, at a rate that
    is the same within 1e-4. Where the start times of records drift away from the run's even grid by more than a
    period, a new run begins, so that no sample is placed further from its time than that. Runs do not depend on
    which part of the file is wanted.
    """
    if not len(rows):
        return []
    begin_ns = int(index.start_ns[rows[0]])
    since_ns = (index.start_ns[rows] - begin_ns).astype(np.float64)
    count, rate_hz = index.count[rows], index.rate_hz[rows]
    period_ns = 1e9 / rate_hz
    late_ns = np.abs(since_ns[1:] - (since_ns[:-1] + count[:-1] * period_ns[:-1]))
    is_break = (late_ns > 0.5 * period_ns[:-1]) | (np.abs(rate_hz[1:] / rate_hz[:-1] - 1) > _RATE_TOLERANCE)
    borders = [0, *(int(place) + 1 for place in np.flatnonzero(is_break)), len(rows)]
    runs = []
    for first, stop in pairwise(borders):
        while first < stop:
            rate = float(rate_hz[first])
            if not (rate_hz[first:stop] == rate).all():
                rate = float(np.median(rate_hz[first:stop]))
            places = np.concatenate(([0], np.cumsum(count[first:stop])))
            drift_ns = np.abs(since_ns[first:stop] - since_ns[first] - places[:-1] * (1e9 / rate))
            strayed = np.flatnonzero(drift_ns > 1e9 / rate)
            end = first + int(strayed[0]) if len(strayed) else stop
            runs.append(
                RecordRun(
                    rows=rows[first:end],
                    first=places[: end - first + 1],
                    start_ns=int(index.start_ns[rows[first]]),
                    rate_hz=rate,
                )
            )
            first = end
    return runs


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
    last_use = np.full(len(run.rows), -1, np.int64)
    touched = np.maximum(high - low, 0)
    if not touched.any():
        return []
    places = np.repeat(low - np.concatenate(([0], np.cumsum(touched)[:-1])), touched) + np.arange(touched.sum())
    np.maximum.at(last_use, places, np.repeat(ranges[:, 2], touched))
    wanted = np.flatnonzero(last_use >= 0)
    groups = np.flatnonzero(np.diff(wanted) > 1) + 1
    found: list[Block] = []
    for group in np.split(wanted, groups):
        found += _group_blocks(run, int(group[0]), int(group[-1]) + 1, last_use)
    return found


def _group_blocks(run: RecordRun, first: int, end: int, last_use: NDArray[np.int64]) -> list[Block]:
    """Cut neighbouring records first to end of a run into blocks of limited size."""
    found = []
    while first < end:
        stop = int(np.searchsorted(run.first, run.first[first] + BLOCK_SAMPLES, side="right")) - 1
        stop = min(max(stop, first + 1), end)
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
