"""What is asked: a plan whose parts are drawn when they are opened, the same each time, so that none is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from s1batch.planner import part_sizes
from s1batch.records import SeriesShape
from tests.benchmarks.simulate.service import Service

SHAPES = tuple(
    SeriesShape(steps=steps, channels=3, rate_hz=rate_hz)
    for steps, rate_hz in ((200, 100.0), (200, 50.0), (200, 40.0), (400, 100.0))
)
SHARES = (0.55, 0.25, 0.15, 0.05)

RUN_OF_A_STATION = 40
"""Windows of one shape in a row: stations have one each, and come one after the other."""

_COLUMNS = pa.schema(
    [
        ("part", pa.int32()),
        ("admission", pa.string()),
        ("steps", pa.int64()),
        ("channels", pa.int32()),
        ("rate_hz", pa.float64()),
        ("images", pa.int32()),
        ("condition", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartOfWork:
    """The requests of one part.

    Attributes:
        first: Number of the first one in the whole plan.
        seconds: How long each takes.
        shapes: Which of the shapes each has.
    """

    first: int
    seconds: NDArray[np.float64]
    shapes: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeTotals:
    """What the requests of one shape add up to.

    Attributes:
        work_s: Their times.
        longest_s: The longest of them.
    """

    work_s: float
    longest_s: float


class Workload:
    """A plan as the planner would cut it, with the times that nobody knows.

    Args:
        requests: How many.
        service: How long they take.
        shapes: How many shapes the series have.
        seed: Of everything that is drawn.
        part_chunks: Fixed size of the parts; None takes that of plans.
    """

    def __init__(
        self, requests: int, service: Service, *, shapes: int = 1, seed: int = 0, part_chunks: int | None = None
    ) -> None:
        self.requests = requests
        self.shapes = SHAPES[:shapes]
        self._service = service
        self._seed = seed
        weights = np.array(SHARES[:shapes])
        self._weights = weights / weights.sum()
        self._firsts = _firsts(requests, part_chunks)

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return len(self._firsts) - 1

    def size(self, part: int) -> int:
        """Return how many requests a part has."""
        return self._firsts[part + 1] - self._firsts[part]

    def part(self, number: int) -> PartOfWork:
        """Return the requests of a part."""
        count = self.size(number)
        random = np.random.default_rng((self._seed, number))
        stations = random.choice(len(self.shapes), size=count // RUN_OF_A_STATION + 1, p=self._weights)
        return PartOfWork(
            first=self._firsts[number],
            seconds=self._service.draw(random, count),
            shapes=np.repeat(stations, RUN_OF_A_STATION)[:count],
        )

    def totals(self) -> list[ShapeTotals]:
        """Return what the requests of each shape add up to; draws all parts once."""
        work, longest = np.zeros(len(self.shapes)), np.zeros(len(self.shapes))
        for number in range(self.parts):
            part = self.part(number)
            np.add.at(work, part.shapes, part.seconds)
            np.maximum.at(longest, part.shapes, part.seconds)
        return [
            ShapeTotals(work_s=float(sum_s), longest_s=float(most_s))
            for sum_s, most_s in zip(work, longest, strict=True)
        ]


class PlanColumns:
    """What decides about the order of the parts, as `class_turns` asks a `PlanStore` for it.

    Args:
        workload: The plan.
        folder: Where its columns are written once they are scanned.
    """

    def __init__(self, workload: Workload, folder: Path) -> None:
        self._workload = workload
        self._path = folder / "plan.parquet"

    def asked(self) -> NDArray[np.int64]:
        """Return how many chunks of each part are asked about: all."""
        return np.array([self._workload.size(number) for number in range(self._workload.parts)], np.int64)

    def scan(self) -> pl.LazyFrame:
        """Return the plan."""
        if not self._path.exists():
            with pq.ParquetWriter(self._path, _COLUMNS) as writer:
                for number in range(self._workload.parts):
                    shapes = self._workload.part(number).shapes
                    writer.write_table(_columns_of(shapes, self._workload.shapes, number))
        return pl.scan_parquet(self._path, glob=False)


def _columns_of(kinds: NDArray[np.int64], shapes: Sequence[SeriesShape], part: int) -> pa.Table:
    count = len(kinds)
    return pa.table(
        {
            "part": pa.array(np.full(count, part, np.int32)),
            "admission": pa.nulls(count, pa.string()),
            "steps": pa.array(np.array([shape.steps for shape in shapes])[kinds]),
            "channels": pa.array(np.array([shape.channels for shape in shapes], np.int32)[kinds]),
            "rate_hz": pa.array(np.array([shape.rate_hz for shape in shapes])[kinds]),
            "images": pa.array(np.zeros(count, np.int32)),
            "condition": pa.nulls(count, pa.string()),
        },
        schema=_COLUMNS,
    )


def _firsts(requests: int, part_chunks: int | None) -> list[int]:
    """Return the number of the first request of each part, and behind them that of all requests."""
    firsts = [0]
    sizes = part_sizes(part_chunks)
    while firsts[-1] < requests:
        firsts.append(min(firsts[-1] + next(sizes), requests))
    return firsts
