"""The planned boxes of images: how many pixels of each page lie in chunks of each outcome.

A page is a file's page (root, path and source). A box is an address whose first two slices are `y` and `x`. A chunk
that shows a whole image besides its tiles (third slice `overview`) counts for nothing, as a scan does: the tiles hold
the same pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from s1batch.box_coverage import Boxes, union_areas

BOXES_AT_ONCE = 1_000_000
"""Chunks of a plan up to which all boxes are looked at together; of more, those of a share of the pages at a time."""

PAGE_KEY = "page_key"


def page_key() -> pl.Expr:
    """Return what tells pages apart, as a hash of 64 bits."""
    return pl.concat_str("root", "path", "source", separator="\0").hash().alias(PAGE_KEY)


def is_box(unfolded: pl.DataFrame) -> pl.Series:
    """Return which addresses are boxes.

    Args:
        unfolded: One line for each address, with a column `slices`.
    """
    slices = pl.col("slices")
    first = slices.list.first().struct.field("dim").eq("y").fill_null(False)
    if not unfolded.select(first.any()).item():
        return pl.Series("boxed", np.zeros(len(unfolded), bool))
    second = slices.list.get(1, null_on_oob=True).struct.field("dim").eq("x").fill_null(False)
    return unfolded.select((first & second).alias("boxed"))["boxed"]


class PlannedBoxes:
    """Gathers the boxes of a share of the pages.

    Args:
        ranks: How many outcomes there are, the best first.
        share: Number of the share.
        shares: How many shares there are.
    """

    def __init__(self, ranks: int, share: int = 0, shares: int = 1) -> None:
        self._ranks = ranks
        self._share, self._shares = share, shares
        self._parts: list[dict[str, NDArray[Any]]] = []
        self.seen = False

    def add(self, unfolded: pl.DataFrame) -> None:
        """Take addresses that are boxes: columns `rank`, `root`, `path`, `source` and `slices`."""
        if unfolded.is_empty():
            return
        self.seen = True
        slices = pl.col("slices")
        y, x = slices.list.get(0), slices.list.get(1)
        over = slices.list.get(2, null_on_oob=True).struct.field("dim").eq("overview").fill_null(False)
        taken = (
            unfolded.filter(~over)
            .select(
                page_key(),
                pl.col("rank").cast(pl.Int8),
                *(
                    # Behind 2**31 there is no pixel, and boxes are kept in few bytes.
                    side.struct.field(end).clip(0, 2**31 - 1).cast(pl.Int32).alias(name)
                    for side, end, name in (
                        (y, "start", "top"),
                        (y, "stop", "bottom"),
                        (x, "start", "left"),
                        (x, "stop", "right"),
                    )
                ),
            )
            .filter(pl.col(PAGE_KEY) % self._shares == self._share)
        )
        self._parts.append({name: taken[name].to_numpy() for name in taken.columns})

    def areas(self) -> pl.DataFrame:
        """Return for each page (`page_key`) the pixels whose best outcome is each rank, as `rank0`, `rank1` ..."""
        names = [f"rank{number}" for number in range(self._ranks)]
        if not self._parts:
            return pl.DataFrame(schema={PAGE_KEY: pl.UInt64, **dict.fromkeys(names, pl.Int64)})
        columns = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        keys, page = np.unique(columns[PAGE_KEY], return_inverse=True)
        boxes = Boxes(page, *(columns[side].astype(np.int64) for side in ("top", "bottom", "left", "right")))
        rank = columns["rank"]
        found, so_far = [pl.Series(PAGE_KEY, keys)], np.zeros(len(keys), np.int64)
        there = set(np.unique(rank).tolist())
        for number, name in enumerate(names):
            reached = union_areas(boxes[rank <= number], len(keys)) if number in there else so_far
            found.append(pl.Series(name, reached - so_far))
            so_far = reached
        return pl.DataFrame(found)
