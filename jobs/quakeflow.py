"""Picks with the column names of QuakeFlow and SeisBench, for associators such as GaMMA and PyOcto."""

from __future__ import annotations

from typing import TYPE_CHECKING

from s1batch.errors import UsageError
from s1batch.jobs.pick_merge import band_of

if TYPE_CHECKING:
    import polars as pl


def quakeflow_picks(table: pl.DataFrame) -> pl.DataFrame:
    """Return picks as QuakeFlow names them, sorted by station, time and phase.

    Args:
        table: Rows of a `seismic-pick` job, or its merged picks.

    Returns:
        `station_id` (NET.STA.LOC.BAND, such as `BW.RJOB..EH`), `phase_time` (UTC, nanoseconds), `phase_type` (P or
        S), `phase_score`, `phase_index` (in the window, at the rate that was sent; null for merged picks),
        `phase_amplitude`, `phase_polarity`, `event_id`. The model gives no score, amplitude or polarity, and events
        are an associator's work, so these are null.

    Raises:
        UsageError: The table holds no picks of either form.
    """
    import polars as pl

    if {"phase", "time", "source_chunk_keys"} <= set(table.columns):
        picks = table.select(
            _station_id(table),
            pl.col("time").alias("phase_time"),
            pl.col("phase").alias("phase_type"),
            pl.lit(None, dtype=pl.Int64).alias("phase_index"),
        )
    elif {"p_time", "s_time", "p_index", "s_index"} <= set(table.columns):
        rows = table.with_columns(_station_id(table)).filter(pl.col("outcome") == "ok")
        if {"core_start_ns", "core_stop_ns"} <= set(rows.columns):
            # A scan answers for nothing by itself; what it found is asked again at the full rate.
            rows = rows.filter((pl.col("core_start_ns") < pl.col("core_stop_ns")).fill_null(True))
        picks = pl.concat(
            [
                rows.select(
                    "station_id",
                    pl.col(f"{phase}_time").alias("phase_time"),
                    pl.lit(phase.upper()).alias("phase_type"),
                    pl.col(f"{phase}_index").cast(pl.Int64).alias("phase_index"),
                )
                for phase in ("p", "s")
            ]
        ).drop_nulls("phase_time")
    else:
        raise UsageError("no picks: give the rows of a seismic-pick job, or its merged picks")
    return picks.sort("station_id", "phase_time", "phase_type", "phase_index").select(
        "station_id",
        pl.col("phase_time").cast(pl.Datetime("ns", "UTC")),
        "phase_type",
        pl.lit(None, dtype=pl.Float64).alias("phase_score"),
        "phase_index",
        pl.lit(None, dtype=pl.Float64).alias("phase_amplitude"),
        pl.lit(None, dtype=pl.String).alias("phase_polarity"),
        pl.lit(None, dtype=pl.String).alias("event_id"),
    )


def _station_id(table: pl.DataFrame) -> pl.Series:
    import polars as pl

    if "station" not in table.columns:
        source = table["source"] if "source" in table.columns else pl.Series([""] * table.height, dtype=pl.String)
        return source.alias("station_id")
    band = band_of(table["channels"]) if "channels" in table.columns else table["band"]
    codes = [table[name].fill_null("") for name in ("network", "station", "location")]
    return pl.DataFrame([*codes, band.alias("band")]).select(
        pl.concat_str("network", "station", "location", "band", separator=".").alias("station_id")
    )["station_id"]
