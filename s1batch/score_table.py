"""The rows of a results folder as what is scored: windows of instruments, and the picks in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import polars as pl

from s1batch.api import Results
from s1batch.assembly import make_job
from s1batch.errors import UsageError
from s1batch.jobs.base import Job
from s1batch.jobs.pick_merge import band_of
from s1batch.jobs.scoring.matching import Points
from s1batch.jobs.scoring.metrics import Predictions
from s1batch.jobs.scoring.phases import PHASES, Phase
from s1batch.jobs.scoring.placing import Instrument
from s1batch.jobs.scoring.windows import Mask, Windows
from s1batch.results.layout import Layout

_INSTRUMENT = ("network", "station", "location", "band")
_COLUMNS = (
    *("chunk_key", "source", "start", "end", "outcome", "model"),
    *("network", "station", "location", "channels", "rate_sent_hz", "core_start_ns", "core_stop_ns"),
    *("contain", "p_time", "s_time"),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredTable:
    """The rows with a window in time, sorted by instrument and start, and what follows from them.

    Attributes:
        rows: The rows, with `_group` (the number of the instrument) and the instrument's codes.
        windows: Their windows, in the same order.
        instruments: The instrument of each group.
        station_names: NET.STA of each station number.
        answered: Rows whose answer is in the schema.
        responded: Rows that the model answered, in whatever form.
        picks: Whether picks of overlapping windows are merged.
        unplaced: Rows without a window in time.
        outcomes: All rows by outcome.
        model: The model that answered; empty where none did.
        job: The job, which merges.
    """

    rows: pl.DataFrame
    windows: Windows
    instruments: tuple[Instrument, ...]
    station_names: tuple[str, ...]
    answered: Mask
    responded: Mask
    picks: Literal["merged", "rows"]
    unplaced: int
    outcomes: dict[str, int]
    model: str
    job: Job

    @classmethod
    def of(cls, results: Results) -> ScoredTable:
        """Read the rows.

        Raises:
            UsageError: None of them has a window in time.
        """
        lazy = results.scan(unfinished=True)
        present = lazy.collect_schema().names()
        everything = lazy.select(name for name in _COLUMNS if name in present).collect()
        rows = everything.drop_nulls(["start", "end"])
        if rows.is_empty():
            raise UsageError(f"{results.path}: there are no rows with a window in time; run the job first")
        # The merge then takes the band from here, and so agrees on the instruments.
        rows = rows.with_columns(_instrument_columns(rows)).drop("channels", strict=False)
        keys = list(_INSTRUMENT)
        found = rows.select(keys).unique().sort(keys)
        instruments = tuple(cast("list[Instrument]", found.rows()))
        rows = rows.join(found.with_row_index("_group"), on=keys, how="left", maintain_order="left")
        rows = rows.sort("_group", "start", "end", "chunk_key")
        stations = sorted({instrument[:2] for instrument in instruments})
        answered = (rows["outcome"] == "ok").to_numpy()
        windows = Windows(
            group=rows["_group"].cast(pl.Int64).to_numpy(),
            start_ns=nanoseconds(rows["start"]),
            stop_ns=nanoseconds(rows["end"]),
            answered=answered,
            station=np.array([stations.index(instrument[:2]) for instrument in instruments], np.int64),
        )
        named = rows.filter(pl.col("model") != "")["model"]
        return cls(
            rows=rows,
            windows=windows,
            instruments=instruments,
            station_names=tuple(".".join(codes) for codes in stations),
            answered=answered,
            responded=rows["outcome"].is_in(["ok", "unparsed", "length"]).to_numpy(),
            picks="merged" if any(Layout(results.path).merged.glob("*.parquet")) else "rows",
            unplaced=everything.height - rows.height,
            outcomes=dict(everything["outcome"].value_counts(sort=True).iter_rows()),
            model=str(named[0]) if len(named) else "",
            job=make_job(results.loaded),
        )

    def predictions(self, name: str, rows: pl.DataFrame, readable: Mask) -> Predictions:
        """Return what rows with the columns of the results say, for the windows in their order.

        Args:
            name: What tables call it.
            rows: One row for each window.
            readable: Which windows have an answer of this way of picking.
        """
        within = readable & self.answered
        return Predictions(
            name=name,
            contain=rows["contain"].fill_null(False).to_numpy() & readable,
            picks=self._points(rows, within),
            picks_all=self._points(rows, readable),
            window_ns={phase: self._named(rows, phase, within) for phase in PHASES},
        )

    def _points(self, rows: pl.DataFrame, chosen: Mask) -> dict[Phase, Points]:
        """Return the picks of the chosen windows."""
        kept = rows.filter(pl.Series(chosen)).with_columns(pl.lit("ok").alias("outcome"))
        merged = self.job.merge(kept) if self.picks == "merged" else None
        if merged is None:
            return {phase: self._row_points(kept, phase) for phase in PHASES}
        groups = {instrument: group for group, instrument in enumerate(self.instruments)}
        numbers = [groups[row] for row in merged.select("network", "station", "location", "band").iter_rows()]
        group, times = np.array(numbers, np.int64), nanoseconds(merged["time"])
        is_p = (merged["phase"] == "P").to_numpy()
        return {
            phase: Points(group=group[chosen], time_ns=times[chosen])
            for phase, chosen in zip(PHASES, (is_p, ~is_p), strict=True)
        }

    def _row_points(self, rows: pl.DataFrame, phase: Phase) -> Points:
        named = rows.drop_nulls(f"{phase.lower()}_time")
        return Points(
            group=named["_group"].cast(pl.Int64).to_numpy(), time_ns=nanoseconds(named[f"{phase.lower()}_time"])
        )

    def _named(self, rows: pl.DataFrame, phase: Phase, chosen: Mask) -> tuple[np.ndarray[Any, Any], Mask]:
        times = rows[f"{phase.lower()}_time"]
        known = times.is_not_null().to_numpy() & chosen
        return np.where(known, nanoseconds(times.fill_null(rows["start"])), 0), known


def _instrument_columns(rows: pl.DataFrame) -> list[pl.Series]:
    """Return network, station, location and band of each row; rows refused by the plan name them in `source` only."""
    given = [
        (rows[name] if name in rows.columns else pl.Series([None] * rows.height, dtype=pl.String)).alias(name)
        for name in _INSTRUMENT[:3]
    ]
    band = band_of(rows["channels"]) if "channels" in rows.columns else pl.Series([""] * rows.height)
    frame = pl.DataFrame([*given, band.alias("band"), rows["source"].str.split(".").alias("label")])
    unknown = pl.col("station").fill_null("") == ""
    told = [
        pl.when(unknown)
        .then(pl.col("label").list.get(number, null_on_oob=True))
        .otherwise(pl.col(name))
        .fill_null("")
        .alias(name)
        for number, name in enumerate(_INSTRUMENT)
    ]
    return frame.select(told).get_columns()


def nanoseconds(times: pl.Series) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return UTC times as nanoseconds since 1970."""
    return times.dt.cast_time_unit("ns").cast(pl.Int64).to_numpy()
