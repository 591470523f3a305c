"""One pick for each onset, from windows that overlap.

Picks of one phase at one station group (network, station, location, band) form a chain: sorted by time, a pick that
is farther than the tolerance from the one before begins a new merged pick. The merged time is the median. So every
pick lies in exactly one merged pick, no two merged picks of a phase at a station group are within the tolerance of
one another, and the order of the rows does not matter. A chain may be longer than the tolerance: `spread_s` tells.

A pick in the halo of its window (outside its core) is dropped when the core of another answered window covers its
time: that window saw the place in better context, and what it says, or does not say, counts. Where no core covers it
(that window failed), the pick stays.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

MERGE_COLUMNS = frozenset(
    [
        "chunk_key",
        "outcome",
        "source",
        "start",
        "end",
        "core_start_ns",
        "core_stop_ns",
        "p_time",
        "s_time",
        "network",
        "station",
        "location",
        "band",
        "channels",
        "rate_sent_hz",
    ]
)
"""The columns of results that `merge_picks` looks at."""

STATION = ("network", "station", "location", "band")
"""The columns that tell station groups apart."""


def merge_picks(rows: pl.DataFrame, tolerance_s: float) -> pl.DataFrame:
    """Merge the picks of overlapping windows.

    Args:
        rows: Results of a `seismic-pick` job: `chunk_key`, `outcome`, `p_time`, `s_time`; further, where there are
            any, `source`, `start`, `end`, `network`, `station`, `location`, `channels` (list, or text with commas),
            `rate_sent_hz`, and the core of each window, `core_start_ns` and `core_stop_ns` (null or missing: the
            whole window).
        tolerance_s: Picks at most this far apart, in seconds, are one.

    Returns:
        One line for each merged pick, sorted by station group, phase and time: `group_id` (hash of the phase and the
        chunk keys), `network`, `station`, `location`, `band`, `phase` (P or S), `time` (UTC), `count` (picks that
        were merged), `spread_s` (from the first to the last), `rate_hz` (lowest rate sent), `source_chunk_keys` (by
        time).
    """
    return merge_windows(windows_of(rows), tolerance_s).select(merged_columns())


def merged_columns() -> list[str]:
    """Return the names of the columns of merged picks, in their order."""
    return ["group_id", *STATION, "phase", "time", "count", "spread_s", "rate_hz", "source_chunk_keys"]


def merge_windows(windows: pl.DataFrame, tolerance_s: float, since: pl.DataFrame | None = None) -> pl.DataFrame:
    """Merge the picks of windows.

    Args:
        windows: What `windows_of` returned.
        tolerance_s: Picks at most this far apart, in seconds, are one.
        since: Where given, station groups with a time `until` (ns): picks before it are left out.

    Returns:
        What `merge_picks` returns, and the times (ns) of the `first` and `last` pick of each merged one.
    """
    import polars as pl

    # Integers sort and compare several times faster than the names and hashes they stand for.
    stations = windows.select(STATION).unique().sort(STATION).with_row_index("group")
    windows = windows.join(stations, on=STATION, how="left").sort("chunk_key").with_row_index("window")
    picks = _drop_halo(windows)
    if since is not None:
        begins = stations.join(since, on=STATION).select("group", "until")
        picks = picks.join(begins, on="group", how="left").filter((pl.col("time") >= pl.col("until")).fill_null(True))
    picks = picks.sort("group", "phase", "time", "window")
    gap = pl.col("time").diff() > round(tolerance_s * 1e9)
    changes = [pl.col(name) != pl.col(name).shift() for name in ("group", "phase")]
    first = pl.col("time").first()
    merged = (
        picks.with_columns(pl.any_horizontal(gap, *changes).fill_null(True).cum_sum().alias("chain"))
        .join(windows.select("window", "chunk_key", "rate_hz"), on="window", how="left", maintain_order="left")
        .group_by("chain", maintain_order=True)
        .agg(
            pl.col("group").first(),
            pl.col("phase").first(),
            # The offset keeps the median exact: nanoseconds since 1970 do not fit a float.
            time=first + (pl.col("time") - first).median().floor().cast(pl.Int64),
            first=first,
            last=pl.col("time").last(),
            count=pl.len().cast(pl.Int64),
            spread_s=(pl.col("time").last() - first) / 1e9,
            rate_hz=pl.col("rate_hz").min(),
            source_chunk_keys=pl.col("chunk_key"),
        )
        .with_columns(pl.when(pl.col("phase") == 0).then(pl.lit("P")).otherwise(pl.lit("S")).alias("phase"))
        .join(stations, on="group", how="left", maintain_order="left")
    )
    identities = merged.select(pl.concat_str("phase", pl.col("source_chunk_keys").list.join(" "), separator=" "))
    group_ids = [hashlib.sha256(text.encode()).hexdigest()[:32] for text in identities.to_series()]
    return merged.with_columns(
        pl.Series("group_id", group_ids, dtype=pl.String), pl.col("time").cast(pl.Datetime("ns", "UTC"))
    ).select(*merged_columns(), "first", "last")


def band_of(channels: pl.Series) -> pl.Series:
    """Return the band and instrument of channels: HH for HHZ, HHN or BW.RJOB..HHE; several are joined by +."""
    import polars as pl

    joined = channels.list.join(",", ignore_nulls=True) if channels.dtype == pl.List(pl.String) else channels
    joined = joined.cast(pl.String).alias("channels")
    # A million rows name few different sets of channels.
    distinct = joined.unique()
    codes = distinct.str.split(",").list.eval(
        pl.element()
        .str.replace(r"^.*\.", "")
        .str.strip_chars()
        .str.slice(0, 2)
        .filter(pl.element().str.len_chars() > 0)
    )
    bands = pl.DataFrame([distinct, codes.list.unique().list.sort().list.join("+").alias("band")])
    found = joined.to_frame().join(bands, on="channels", how="left", maintain_order="left")
    return found["band"].fill_null("")


def windows_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the answered windows with all columns that merging needs, of fixed types."""
    import polars as pl

    answered = rows.filter(pl.col("outcome") == "ok")

    def text(name: str, otherwise: str = "") -> pl.Series:
        if name in answered.columns:
            return answered[name].cast(pl.String).fill_null("").alias(name)
        if otherwise in answered.columns:
            return text(otherwise).alias(name)
        return pl.Series(name, [""] * answered.height, dtype=pl.String)

    def nanoseconds(name: str) -> pl.Series:
        if name not in answered.columns:
            return pl.Series(name, [None] * answered.height, dtype=pl.Int64)
        values = answered[name]
        if isinstance(values.dtype, pl.Datetime):
            values = values.dt.cast_time_unit("ns")
        return values.cast(pl.Int64)

    band = band_of(answered["channels"]) if "channels" in answered.columns else text("band")
    rate = answered["rate_sent_hz"] if "rate_sent_hz" in answered.columns else pl.Series([None] * answered.height)
    return pl.DataFrame(
        [
            text("chunk_key"),
            text("network"),
            text("station", otherwise="source"),
            text("location"),
            band.alias("band"),
            rate.cast(pl.Float64).alias("rate_hz"),
            nanoseconds("core_start_ns").fill_null(nanoseconds("start")).alias("core_start"),
            nanoseconds("core_stop_ns").fill_null(nanoseconds("end")).alias("core_stop"),
            nanoseconds("p_time").alias("P"),
            nanoseconds("s_time").alias("S"),
        ]
    )


def _drop_halo(windows: pl.DataFrame) -> pl.DataFrame:
    """Return the picks (`phase` 0 for P, 1 for S; `time`), without those outside their core and inside another's."""
    import polars as pl

    kept = ["group", "window", "core_start", "core_stop"]
    picks = pl.concat(
        [
            windows.select(*kept, pl.lit(code).alias("phase"), pl.col(phase).alias("time")).drop_nulls("time")
            for code, phase in enumerate(("P", "S"))
        ]
    )
    # Walking in time through the starts of cores and the picks, the farthest stop so far tells whether a core covers.
    cores = windows.select(
        "group", pl.col("core_start").alias("time"), pl.col("core_stop").alias("reach"), pl.lit(0).alias("order")
    ).drop_nulls()
    walk = (
        pl.concat([cores, picks.with_columns(pl.lit(1).alias("order"))], how="diagonal")
        .sort("group", "time", "order")
        .with_columns(pl.col("reach").cum_max().forward_fill().over("group"))
        .filter(pl.col("order") == 1)
    )
    in_core = pl.col("time").is_between(pl.col("core_start"), pl.col("core_stop"), closed="left").fill_null(True)
    covered = (pl.col("reach") > pl.col("time")).fill_null(False)
    return walk.filter(in_core | ~covered).select("group", "window", "phase", "time")
