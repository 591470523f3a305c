"""Merges the picks of an archive of any size, a piece of its rows at a time; the result is that of `merge_picks`.

The pieces are gone through twice. First it is noted how early each piece begins at each station group. Then, with the
rows of the pieces so far, every merged pick is final that ends so far before the beginning of all rows still to come
that none of their picks can join it and none of their cores can cover it. What is final is yielded, and only rows that
reach beyond it are kept. In the order of the plan that is little more than one piece; in any order the result is the
same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from s1batch.jobs.pick_merge import STATION, merge_windows, merged_columns, windows_of

if TYPE_CHECKING:
    import polars as pl


def merge_pieces(pieces: Iterable[pl.DataFrame], tolerance_s: float) -> Iterator[pl.DataFrame]:
    """Merge the picks of rows that come in pieces.

    Args:
        pieces: Rows as `merge_picks` takes them; can be gone through more than once.
        tolerance_s: Picks at most this far apart, in seconds, are one.

    Yields:
        Lines as `merge_picks` returns them, each once; those of one yield come before later ones of their station.
    """
    import polars as pl

    begins = _beginnings(pieces)
    kept: pl.DataFrame | None = None
    since: pl.DataFrame | None = None
    for number, rows in enumerate(pieces):
        windows = windows_of(rows)
        if kept is not None:
            windows = pl.concat([kept, windows])
        to_come = begins.filter(pl.col("piece") > number).group_by(STATION).agg(pl.col("begin").min())
        merged = merge_windows(windows, tolerance_s, since)
        since = _ends(merged, to_come.with_columns(until=pl.col("begin") - round(tolerance_s * 1e9)).drop("begin"))
        # A station group that no later piece has is final as a whole.
        final = merged.join(since, on=STATION, how="left", maintain_order="left")
        final = final.filter(pl.col("until").is_null() | (pl.col("last") < pl.col("until")))
        yield final.select(merged_columns())
        reach = pl.max_horizontal("core_stop", "P", "S")
        kept = windows.join(since, on=STATION).filter(reach >= pl.col("until")).drop("until")


def _beginnings(pieces: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Return the earliest time (`begin`, ns) that windows of a `piece` have to do with, for each station group."""
    import polars as pl

    schema = {**dict.fromkeys(STATION, pl.String), "begin": pl.Int64, "piece": pl.Int64}
    found = [pl.DataFrame(schema=schema)]
    for number, rows in enumerate(pieces):
        begin = pl.min_horizontal("core_start", "P", "S").min().alias("begin")
        begins = windows_of(rows).group_by(STATION).agg(begin).drop_nulls("begin")
        found.append(begins.with_columns(pl.lit(number, pl.Int64).alias("piece")))
    return pl.concat(found)


def _ends(merged: pl.DataFrame, until: pl.DataFrame) -> pl.DataFrame:
    """Move the end of what is final (`until`) of each station group back to where no merged pick straddles it."""
    import polars as pl

    while True:
        straddling = (
            merged.join(until, on=STATION)
            .filter((pl.col("first") < pl.col("until")) & (pl.col("last") >= pl.col("until")))
            .group_by(STATION)
            .agg(pl.col("first").min())
        )
        if straddling.is_empty():
            return until
        until = (
            until.join(straddling, on=STATION, how="left")
            .with_columns(until=pl.min_horizontal("until", "first"))
            .drop("first")
        )
