"""The planned chunks of an account: unions of windows by stream, and the boxes of images.

Time series are matched by stream, so a window may span files; a stream that changes its rate is matched by rate too.
Other data are matched by file. Of both, only what is covered is kept, not the windows.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from s1batch.account_boxes import PlannedBoxes, is_box
from s1batch.coverage import FAR, Unions, merge_windows
from s1batch.outcome_ranks import REFUSED, UNFINISHED, OutcomeRanks
from s1batch.plan_columns import plan_table
from s1batch.plan_store import PlanStore

RATE_TOLERANCE = 0.01
"""Recorded rates jitter; a window serves the stretches whose rate is this near to its grid's, relatively."""

LINES_AT_ONCE = 8192

CHUNKS_AT_ONCE = 1024
"""Chunks of a plan that are looked at together; each of them may have many addresses."""

_UNRATED, _WHOLE = -1, -2


def planned_windows(
    plan: PlanStore, outcomes: OutcomeRanks | None, ranks: tuple[str, ...], boxes: PlannedBoxes
) -> pl.DataFrame:
    """Return the unions of the planned windows, by stream (`timed`, `a`, `b`, `c`), rate and rank.

    Args:
        plan: The plan.
        outcomes: What became of its chunks; None when that is not asked.
        ranks: The outcomes, the best first.
        boxes: Gets the addresses that are boxes of images.
    """
    by = ["timed", "a", "b", "c", "rate_hz", "rank"]
    nothing = pl.DataFrame(plan_table([])).select(pl.lit(0, pl.Int8).alias("rank"), "inputs")
    union = merge_windows(_windows(_unfolded(nothing)), by)
    waiting: list[pl.DataFrame] = []
    for unfolded in planned_addresses(plan, outcomes, ranks):
        boxed = is_box(unfolded)
        if boxed.any():
            boxes.add(unfolded.filter(boxed))
            unfolded = unfolded.filter(~boxed)
        waiting.append(merge_windows(_windows(unfolded), by))
        # Not after every batch: a union that is long, for it has many gaps, would be sorted each time.
        if sum(map(len, waiting)) > max(len(union), LINES_AT_ONCE):
            union = merge_windows(pl.concat([union, *waiting]), by)
            waiting.clear()
    return merge_windows(pl.concat([union, *waiting]), by)


def planned_addresses(plan: PlanStore, outcomes: OutcomeRanks | None, ranks: tuple[str, ...]) -> Iterator[pl.DataFrame]:
    """Yield the addresses of all chunks that count, with the rank of their chunk's outcome."""
    refused, unfinished = ranks.index(REFUSED), ranks.index(UNFINISHED)
    columns = ["admission", "inputs", "is_scan"]
    if outcomes is not None:
        columns.append("chunk_key")
    for table in plan.tables(columns, CHUNKS_AT_ONCE):
        frame = pl.DataFrame(table).filter(~pl.col("is_scan"))
        rank = pl.lit(unfinished, pl.Int8)
        if outcomes is not None:
            rank = pl.lit(outcomes.find(frame["chunk_key"]))
        frame = frame.with_columns(
            pl.when(pl.col("admission").is_null()).then(rank).otherwise(pl.lit(refused, pl.Int8)).alias("rank")
        )
        yield _unfolded(frame.select("rank", "inputs"))


def _unfolded(frame: pl.DataFrame) -> pl.DataFrame:
    """Return one line for each address."""
    return frame.explode("inputs").drop_nulls("inputs").unnest("inputs")


def _windows(unfolded: pl.DataFrame) -> pl.DataFrame:
    first = pl.col("slices").list.first()
    timed = first.struct.field("dim").eq("time_ns").fill_null(False)
    return unfolded.select(
        "rank",
        timed.alias("timed"),
        *stream_columns(timed),
        pl.when(pl.col("rate_hz") > 0).then("rate_hz").alias("rate_hz"),
        first.struct.field("start").fill_null(-FAR).clip(-FAR, FAR).alias("start"),
        first.struct.field("stop").fill_null(FAR).clip(-FAR, FAR).alias("stop"),
    )


def stream_columns(timed: pl.Expr) -> list[pl.Expr]:
    """Return what tells streams apart: the source for time series, root, path and source for everything else."""
    empty = pl.lit("")
    return [
        pl.col("source").alias("a"),
        pl.when(timed).then(empty).otherwise("root").alias("b"),
        pl.when(timed).then(empty).otherwise("path").alias("c"),
    ]


class Streams:
    """Unions of windows for every stream, one for each rank and all better ones.

    A stream has a union for every grid, that is for windows of one rate, jitter aside; windows without a rate serve
    every grid. Two more unions hold only the windows without a rate, and all windows.
    """

    def __init__(self, windows: pl.DataFrame, ranks: int) -> None:
        keys = ["timed", "a", "b", "c"]
        apart = pl.col("rate_hz") > pl.col("rate_hz").shift(1) * (1 + RATE_TOLERANCE)
        grids = (
            windows.filter(pl.col("rate_hz").is_not_null())
            .select(*keys, "rate_hz")
            .unique()
            .sort(*keys, "rate_hz")
            .with_columns(apart.fill_null(False).cum_sum().over(keys).cast(pl.Int64).alias("grid"))
        )
        streams = windows.select(keys).unique()
        both = pl.DataFrame({"grid": [_UNRATED, _WHOLE]}, schema={"grid": pl.Int64})
        numbers = pl.concat([streams.join(both, how="cross"), grids.select(*keys, "grid").unique()])
        numbers = numbers.sort(*keys, "grid").with_row_index("group").with_columns(pl.col("group").cast(pl.Int64))
        self.grids = grids.join(numbers, on=[*keys, "grid"]).drop("grid")
        self.unrated = numbers.filter(pl.col("grid") == _UNRATED).drop("grid")
        self.whole = numbers.filter(pl.col("grid") == _WHOLE).drop("grid")
        everything = pl.concat(
            [
                frame.select("group", "rank", "start", "stop")
                for frame in (
                    windows.join(self.grids, on=[*keys, "rate_hz"]),
                    windows.filter(pl.col("rate_hz").is_null()).join(numbers.filter(pl.col("grid") != _WHOLE), on=keys),
                    windows.join(self.whole, on=keys),
                )
            ]
        )
        self.unions = [
            Unions(merge_windows(everything.filter(pl.col("rank") <= rank).drop("rank"), ["group"]), len(numbers))
            for rank in range(ranks)
        ]
