"""The account: every sample of the archive, in the archive's own units, with what became of it.

    archive = planned + refused + unreadable + duplicate + not selected

The inventory says for every stretch of the archive whether it was selected. What was selected is split by the plan: a
sample in at least one chunk that will be asked is planned, else one in a refused chunk is refused, else it is missing,
and that is an error of the program which `verify` reports. Overlap, halo and fill are never counted, because samples
are counted and not windows. A scan counts for nothing: the windows at the full rate that it decides about cover its
samples, and say whether they were asked or skipped.

Time series are matched by stream, so a window may span files; a stream that changes its rate is matched by rate too.
Other data are matched by file. Samples of arrays have a range of steps and no rate; each step counts as many of them as
there are channels. A stretch without a range, or one whose range is not in the unit that is counted, goes as a whole:
planned as soon as one asked chunk touches it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from s1batch.coverage import FAR, Stretches, Unions, merge_windows
from s1batch.outcome_ranks import BEST_FIRST, REFUSED, UNFINISHED, OutcomeRanks
from s1batch.plan_columns import plan_table
from s1batch.plan_store import PlanStore

RATE_TOLERANCE = 0.01
"""Recorded rates jitter; a window serves the stretches whose rate is this near to its grid's, relatively."""

_ITEMS_AT_ONCE = 50_000
_LINES_AT_ONCE = 8192
_STATUSES = ("selected", "unreadable", "duplicate", "not_selected")
_UNRATED, _WHOLE = -1, -2


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The account of one stream in one unit, or a sum of such.

    Attributes:
        source: The stream; empty for data without one, and in sums.
        unit: What is counted.
        archive: All there is.
        planned: In at least one chunk that is asked.
        refused: Only in chunks that the plan refuses.
        unreadable: Cannot be read.
        duplicate: Held by another file too, and taken from there.
        not_selected: The job does not ask for it.
        missing: Selected but in no chunk: always 0, or the account is wrong.
        outcomes: `planned`, by the best outcome of the chunks that hold a sample, `unfinished` where there is none yet;
            empty when no rows were given.
    """

    source: str = ""
    unit: str
    archive: int
    planned: int
    refused: int
    unreadable: int
    duplicate: int
    not_selected: int
    missing: int
    outcomes: tuple[tuple[str, int], ...] = ()

    @property
    def balanced(self) -> bool:
        """Whether the parts add up to the archive."""
        parts = self.planned + self.refused + self.unreadable + self.duplicate + self.not_selected
        return parts == self.archive and self.missing == 0


@dataclass(frozen=True)
class Account:
    """The account of a whole archive.

    Attributes:
        tallies: One for each stream and unit, sorted.
    """

    tallies: tuple[Tally, ...]

    @cached_property
    def totals(self) -> tuple[Tally, ...]:
        """The sums, one for each unit."""
        return tuple(
            _sum(unit, [tally for tally in self.tallies if tally.unit == unit])
            for unit in sorted({tally.unit for tally in self.tallies})
        )

    @property
    def balanced(self) -> bool:
        """Whether every sample is accounted for."""
        return all(tally.balanced for tally in self.tallies)

    @property
    def missing(self) -> int:
        """How many selected samples are in no chunk."""
        return sum(tally.missing for tally in self.tallies)

    def lines(self) -> list[str]:
        """Return the totals as lines of text for people."""
        lines: list[str] = []
        for tally in self.totals:
            lines.append(f"archive        {tally.archive:>18,} {tally.unit}")
            for name in ("planned", "refused", "unreadable", "duplicate", "not_selected", "missing"):
                value = getattr(tally, name)
                if name != "missing" or value:
                    share = value / tally.archive if tally.archive else 0.0
                    lines.append(f"  {name.replace('_', ' '):<13}{value:>18,} {share:>8.2%}")
                if name == "planned":
                    lines += [f"    {outcome:<11}{count:>18,}" for outcome, count in tally.outcomes if count]
        return lines

    def plain(self) -> dict[str, Any]:
        """Return the account as plain data for JSON."""

        def one(tally: Tally) -> dict[str, Any]:
            return {**asdict(tally), "outcomes": dict(tally.outcomes), "balanced": tally.balanced}

        return {
            "balanced": self.balanced,
            "totals": [one(tally) for tally in self.totals],
            "sources": [one(tally) for tally in self.tallies],
        }


def take_account(plan: PlanStore, rows: pl.LazyFrame | OutcomeRanks | None = None) -> Account:
    """Account for every sample of the archive.

    Memory holds the unions of the planned windows, not the windows, and a bounded number of inventory items.

    Args:
        plan: The plan and its inventory.
        rows: Rows with `chunk_key` and `outcome`, or what was taken of them; when given, planned samples are told
            apart by outcome.

    Raises:
        ResultsError: The plan is damaged.
    """
    ranks = (UNFINISHED, REFUSED) if rows is None else BEST_FIRST
    outcomes = OutcomeRanks.of(rows) if isinstance(rows, pl.LazyFrame) else rows
    windows = _windows(plan, outcomes, ranks)
    streams = _Streams(windows, len(ranks))
    parts = [_count_items(items, streams) for items in _item_batches(plan)]
    if not parts:
        return Account(tallies=())
    names = [f"rank{number}" for number in range(len(ranks))]
    summed = (
        pl.concat(parts)
        .group_by("source", "unit")
        .agg(pl.sum(*_STATUSES, "archive", *names))
        .sort("source", "unit")
        .iter_rows(named=True)
    )
    return Account(tallies=tuple(_tally(line, ranks, with_outcomes=rows is not None) for line in summed))


def _tally(line: dict[str, Any], ranks: tuple[str, ...], *, with_outcomes: bool) -> Tally:
    counts = [int(line[f"rank{number}"]) for number in range(len(ranks))]
    return Tally(
        source=line["source"],
        unit=line["unit"],
        archive=line["archive"],
        planned=sum(counts[:-1]),
        refused=counts[-1],
        unreadable=line["unreadable"],
        duplicate=line["duplicate"],
        not_selected=line["not_selected"],
        missing=line["selected"] - sum(counts),
        outcomes=tuple(zip(ranks[:-1], counts[:-1], strict=True)) if with_outcomes else (),
    )


def _sum(unit: str, tallies: list[Tally]) -> Tally:
    def total(name: str) -> int:
        return sum(getattr(tally, name) for tally in tallies)

    outcomes: dict[str, int] = {}
    for tally in tallies:
        for outcome, count in tally.outcomes:
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    return Tally(
        unit=unit,
        archive=total("archive"),
        planned=total("planned"),
        refused=total("refused"),
        unreadable=total("unreadable"),
        duplicate=total("duplicate"),
        not_selected=total("not_selected"),
        missing=total("missing"),
        outcomes=tuple(outcomes.items()),
    )


# ----------------------------------------------------------------------------------------------------- windows


def _windows(plan: PlanStore, outcomes: OutcomeRanks | None, ranks: tuple[str, ...]) -> pl.DataFrame:
    """Return the unions of the planned windows, by stream (`timed`, `a`, `b`, `c`), rate and rank."""
    by = ["timed", "a", "b", "c", "rate_hz", "rank"]
    refused, unfinished = ranks.index(REFUSED), ranks.index(UNFINISHED)
    columns = ["admission", "inputs", "is_scan"]
    if outcomes is not None:
        columns.append("chunk_key")
    union = merge_windows(
        _addresses(pl.DataFrame(plan_table([])).select(pl.lit(0, pl.Int8).alias("rank"), "inputs")), by
    )
    waiting: list[pl.DataFrame] = []
    for table in plan.tables(columns, _LINES_AT_ONCE):
        frame = pl.DataFrame(table).filter(~pl.col("is_scan"))
        rank = pl.lit(unfinished, pl.Int8)
        if outcomes is not None:
            rank = pl.lit(outcomes.find(frame["chunk_key"]))
        frame = frame.with_columns(
            pl.when(pl.col("admission").is_null()).then(rank).otherwise(pl.lit(refused, pl.Int8)).alias("rank")
        )
        waiting.append(merge_windows(_addresses(frame.select("rank", "inputs")), by))
        # Not after every batch: a union that is long, for it has many gaps, would be sorted each time.
        if sum(map(len, waiting)) > max(len(union), _LINES_AT_ONCE):
            union = merge_windows(pl.concat([union, *waiting]), by)
            waiting.clear()
    return merge_windows(pl.concat([union, *waiting]), by)


def _addresses(frame: pl.DataFrame) -> pl.DataFrame:
    first = pl.col("slices").list.first()
    unfolded = frame.explode("inputs").drop_nulls("inputs").unnest("inputs")
    timed = first.struct.field("dim").eq("time_ns").fill_null(False)
    return unfolded.select(
        "rank",
        timed.alias("timed"),
        *_stream(timed),
        pl.when(pl.col("rate_hz") > 0).then("rate_hz").alias("rate_hz"),
        first.struct.field("start").fill_null(-FAR).clip(-FAR, FAR).alias("start"),
        first.struct.field("stop").fill_null(FAR).clip(-FAR, FAR).alias("stop"),
    )


def _stream(timed: pl.Expr) -> list[pl.Expr]:
    """Return what tells streams apart: the source for time series, root, path and source for everything else."""
    empty = pl.lit("")
    return [
        pl.col("source").alias("a"),
        pl.when(timed).then(empty).otherwise("root").alias("b"),
        pl.when(timed).then(empty).otherwise("path").alias("c"),
    ]


class _Streams:
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


# ------------------------------------------------------------------------------------------------------- items


def _item_batches(plan: PlanStore) -> Iterator[pl.DataFrame]:
    inventory = plan.inventory().drop("sha256", "reason", "size", "mtime_ns")
    total = inventory.select(pl.len()).collect().item()
    for offset in range(0, total, _ITEMS_AT_ONCE):
        yield inventory.slice(offset, _ITEMS_AT_ONCE).collect()


def _count_items(items: pl.DataFrame, streams: _Streams) -> pl.DataFrame:
    """Return counts by source and unit: one column for each status, `archive`, and the ranks of what is selected."""
    has_range = pl.col("start").is_not_null() & pl.col("rate_hz").is_not_null()
    timed = pl.col("unit").eq("samples") & has_range
    rate = pl.col("rate_hz").is_finite() & (pl.col("rate_hz") > 0)
    items = items.with_columns(timed.alias("timed"), *_stream(timed), pl.when(rate).then("rate_hz").alias("rate_hz"))
    selected = items.filter(pl.col("status") == "selected")
    covered = _covered(_with_group(selected, streams), streams)
    ranks = [pl.Series(f"rank{number}", counts) for number, counts in enumerate(covered)]
    zeros = [pl.lit(0, pl.Int64).alias(series.name) for series in ranks]
    counted = pl.concat(
        [
            selected.select("source", "unit", "status", "count").with_columns(ranks),
            items.filter(pl.col("status") != "selected")
            .select("source", "unit", "status", "count")
            .with_columns(zeros),
        ]
    )
    return counted.group_by("source", "unit").agg(
        *(pl.col("count").filter(pl.col("status") == status).sum().alias(status) for status in _STATUSES),
        pl.col("count").sum().alias("archive"),
        *(pl.col(series.name).sum() for series in ranks),
    )


def _with_group(items: pl.DataFrame, streams: _Streams) -> pl.DataFrame:
    """Add the number of the windows' union that serves each item (-1 for none), in the items' order."""
    keys = ["timed", "a", "b", "c"]
    numbered = items.with_row_index("_item")
    nearest = (
        numbered.filter(pl.col("rate_hz").is_not_null())
        .select("_item", *keys, "rate_hz")
        .join(streams.grids, on=keys, suffix="_grid")
        .with_columns((pl.col("rate_hz_grid") / pl.col("rate_hz") - 1).abs().alias("off"))
        .filter(pl.col("off") <= RATE_TOLERANCE)
        .sort("off")
        .unique("_item", keep="first", maintain_order=True)
        .select("_item", "group")
    )
    joined = (
        numbered.join(streams.whole.rename({"group": "whole"}), on=keys, how="left")
        .join(streams.unrated.rename({"group": "unrated"}), on=keys, how="left")
        .join(nearest, on="_item", how="left")
    )
    rated = pl.coalesce("group", "unrated", -1)
    whole = pl.coalesce("whole", -1)
    return joined.with_columns(pl.when(pl.col("rate_hz").is_null()).then(whole).otherwise(rated).alias("group")).sort(
        "_item"
    )


def _covered(items: pl.DataFrame, streams: _Streams) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """Return, for each rank, how many samples of each item are in a window of that rank and in no better one."""

    def column(name: str, missing: float) -> np.ndarray[Any, Any]:
        return items.get_column(name).fill_null(missing).to_numpy()

    group, count, rate_hz = column("group", -1), column("count", 0), column("rate_hz", 0.0)
    start, stop = column("start", -FAR), column("stop", FAR)
    timed = items.get_column("timed").to_numpy()
    ranged = items.get_column("start").is_not_null().to_numpy()
    # Steps of arrays, of several channels each.
    length = np.where(ranged, np.maximum(stop - start, 1), 1)
    steps = items.get_column("unit").eq("samples").to_numpy() & ~timed & ranged & (count % length == 0)
    weight = np.where(steps, count // length, 1)
    # Counted sample by sample: time series with a rate, and ranges of indices in the unit that is counted.
    single = ranged & np.where(timed, rate_hz > 0, (stop - start) * weight == count)
    stretches = Stretches(
        group=np.where(single, group, -1), start=start, rate_hz=np.where(timed, rate_hz, 0.0), count=count // weight
    )
    covered = []
    so_far = np.zeros(len(items), np.int64)
    for union in streams.unions:
        whole = np.where(union.touched(np.where(single, -1, group), start, stop), count, 0)
        reached = np.where(single, union.count(stretches) * weight, whole)
        covered.append(reached - so_far)
        so_far = reached
    return covered
