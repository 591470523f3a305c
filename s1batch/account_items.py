"""The inventory of an account: how much of each stretch of the archive lies in the planned chunks.

A stretch without a range, or one whose range is not in the unit that is counted, goes as a whole: planned as soon as
one asked chunk touches it. What is optional (the partners of a join) is selected as far as a chunk holds it, and else
not selected. Samples of arrays have a range of steps and no rate; each step counts as many of them as there are
channels. Pages of images are counted in pixels, by the boxes that were planned of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from s1batch.account_boxes import PAGE_KEY, page_key
from s1batch.account_windows import RATE_TOLERANCE, Streams, stream_columns
from s1batch.coverage import FAR, Stretches

_HELD = ("selected", "optional")
STATUSES = ("selected", "unreadable", "duplicate", "not_selected")


def count_items(items: pl.DataFrame, streams: Streams, areas: pl.DataFrame) -> pl.DataFrame:
    """Return counts by source and unit: one column for each status, `archive`, and the ranks of what is selected.

    Args:
        items: Lines of the inventory.
        streams: The unions of the windows.
        areas: Pixels by rank of the pages of which boxes were planned (`PlannedBoxes.areas`).
    """
    pages, items = _pages(items, areas)
    has_range = pl.col("start").is_not_null() & pl.col("rate_hz").is_not_null()
    timed = pl.col("unit").eq("samples") & has_range
    rate = pl.col("rate_hz").is_finite() & (pl.col("rate_hz") > 0)
    items = items.with_columns(
        timed.alias("timed"), *stream_columns(timed), pl.when(rate).then("rate_hz").alias("rate_hz")
    )
    held = pl.col("status").is_in(_HELD)
    selected = items.filter(held)
    covered = _covered(_with_group(selected, streams), streams)
    ranks = [pl.Series(f"rank{number}", counts) for number, counts in enumerate(covered)]
    zeros = [pl.lit(0, pl.Int64).alias(series.name) for series in ranks]
    found = pl.concat(
        [
            pages.select("source", "unit", "status", "count", *(series.name for series in ranks)),
            selected.select("source", "unit", "status", "count").with_columns(ranks),
        ]
    )
    optional = found.filter(pl.col("status") == "optional")
    called_for = pl.sum_horizontal(*(series.name for series in ranks))
    counted = pl.concat(
        [
            found.filter(pl.col("status") == "selected"),
            optional.with_columns(called_for.alias("count"), pl.lit("selected").alias("status")),
            optional.with_columns(
                (pl.col("count") - called_for).alias("count"), pl.lit("not_selected").alias("status"), *zeros
            ),
            items.filter(~held).select("source", "unit", "status", "count").with_columns(zeros),
        ]
    )
    return counted.group_by("source", "unit").agg(
        *(pl.col("count").filter(pl.col("status") == status).sum().alias(status) for status in STATUSES),
        pl.col("count").sum().alias("archive"),
        *(pl.col(series.name).sum() for series in ranks),
    )


def _pages(items: pl.DataFrame, areas: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the pages that are counted by boxes, with their ranks, and all other items."""
    counted = pl.col("status").is_in(_HELD) & (pl.col("unit") == "pixels")
    if areas.is_empty() or not items.select(counted.any()).item():
        return items.clear().join(areas.clear(), how="cross"), items
    keyed = items.with_columns(page_key())
    pages = keyed.filter(counted).join(areas, on=PAGE_KEY)
    others = keyed.filter(counted).join(areas, on=PAGE_KEY, how="anti")
    return pages, pl.concat([keyed.filter(~counted), others]).drop(PAGE_KEY)


def _with_group(items: pl.DataFrame, streams: Streams) -> pl.DataFrame:
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


def _covered(items: pl.DataFrame, streams: Streams) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
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
