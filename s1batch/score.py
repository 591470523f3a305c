"""How good the picks of a results folder are: results, truth and baselines brought together.

Results are scored on their picks merged over overlapping windows when the run was complete enough to merge, else on
the picks of the rows. Baselines read the same windows again and are merged in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import polars as pl

from s1batch.api import Results
from s1batch.assembly import make_reader
from s1batch.engine.rules import RULES
from s1batch.errors import UsageError
from s1batch.jobs.scoring.archive_files import ArchiveFiles, Stream
from s1batch.jobs.scoring.baselines import GATED, READING, BaselineName
from s1batch.jobs.scoring.bootstrap import Estimate, Resampling
from s1batch.jobs.scoring.matching import Points
from s1batch.jobs.scoring.metrics import MethodScore, Predictions, score_method
from s1batch.jobs.scoring.phases import PHASES, Phase
from s1batch.jobs.scoring.placing import median_s_minus_p_ns, place_onsets
from s1batch.jobs.scoring.stations import StationScore, score_stations
from s1batch.jobs.scoring.truth import Truth, read_truth
from s1batch.jobs.scoring.windows import Windows
from s1batch.plan_store import PlanStore
from s1batch.results.atomic import make_folder, write_atomic
from s1batch.results.layout import Layout
from s1batch.score_baselines import BaselineRows, pick_again
from s1batch.score_table import ScoredTable, nanoseconds

TOLERANCES_S = (0.1, 0.3, 0.5, 1.0)
VALID_BASELINES: tuple[BaselineName, ...] = (*READING, "median")
BASELINES: tuple[BaselineName, ...] = ("ar_pick", "sta_lta", "median")
NEEDED = ("contain", "p_time", "s_time")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthCount:
    """What became of the truth.

    Attributes:
        source: Where it was read.
        onsets: Onsets that it holds, by phase.
        elsewhere: Onsets at stations that the results do not have.
        unplaced: Entries that count samples of a file that the results do not have.
        other_phases: Entries whose phase is not asked about, or that follow the first arrival of their event.
        skipped: Files of a folder that hold no picks.
        stations_without: Stations of the results at which no onset lies in a window; picks there count as wrong.
    """

    source: str
    onsets: dict[Phase, int]
    elsewhere: int
    unplaced: int
    other_phases: int
    skipped: tuple[str, ...]
    stations_without: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreReport:
    """All that `s1batch score` tells.

    Attributes:
        results: The results folder.
        picks: Whether merged picks or the picks of rows were scored.
        model: The model that answered.
        truth: What became of the truth.
        tolerances_s: In seconds, ascending.
        outcomes: Rows by outcome.
        unplaced_rows: Rows without a window in time, such as those of unreadable files; they are not scored.
        missing_rows: Planned chunks that have no row yet.
        parse_rate: Share of the responses that are in the schema.
        responses: Rows that the model answered, in whatever form.
        stations: Stations with windows.
        resampled: What the intervals resample (`stations` or `windows`), how often, and with which seed.
        methods: The results' own scores first, then the baselines'.
        by_station: One line for each station, when asked.
        notes: What is missing of the baselines, and why.
    """

    results: str
    picks: Literal["merged", "rows"]
    model: str
    truth: TruthCount
    tolerances_s: tuple[float, ...]
    outcomes: dict[str, int]
    unplaced_rows: int
    missing_rows: int
    parse_rate: Estimate
    responses: int
    stations: int
    resampled: dict[str, Any]
    methods: tuple[MethodScore, ...]
    by_station: tuple[StationScore, ...] = ()
    notes: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return the report as plain data, as `metrics/score.json` holds it."""
        return asdict(self)


def parse_tolerances(text: str) -> tuple[float, ...]:
    """Return the seconds in a list with commas.

    Raises:
        UsageError: One of them is no number.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--tolerance {text}: write seconds with commas, such as 0.1,0.5") from None


def parse_baselines(text: str) -> tuple[str, ...]:
    """Return the names in a list with commas; `none` is no name."""
    return tuple(name.strip() for name in text.split(",") if name.strip() not in ("", "none"))


def score_results(
    results: Results,
    truth: str | Path | pl.DataFrame,
    *,
    tolerances_s: Sequence[float] = TOLERANCES_S,
    baselines: Sequence[str] = BASELINES,
    by_station: bool = False,
    seed: int = 0,
    say: Say = lambda line: None,
) -> ScoreReport:
    """Score results against truth, and write the report to `metrics/score.json`.

    Args:
        results: Results of a `seismic-pick` job.
        truth: File or folder of truth, or a table.
        tolerances_s: How far a pick may be from its onset, in seconds.
        baselines: Names out of `VALID_BASELINES`; `ar_pick` and `sta_lta` together bring `ar_pick+sta_lta` along.
            All but `median` need the archive to be still there.
        by_station: Score each station too.
        seed: Seed of the bootstrap.
        say: Receives lines for a person.

    Raises:
        UsageError: The results hold no picks, the truth is not understood, or an argument is wrong.
    """
    tolerances = tuple(sorted(set(tolerances_s)))
    if not tolerances or not all(0 < value < float("inf") for value in tolerances):
        raise UsageError(f"tolerances in seconds must be above zero, not {', '.join(map(str, tolerances_s)) or 'none'}")
    unknown = [name for name in baselines if name not in VALID_BASELINES]
    if unknown:
        raise UsageError(f"no baseline {', '.join(unknown)} (valid: {', '.join(VALID_BASELINES)}, or none)")
    if {"ar_pick", "sta_lta"} <= set(baselines):
        baselines = (*baselines, GATED)
    if any(name not in {column.name for column in results.schema.answer} for name in NEEDED):
        raise UsageError(f"{results.path}: these results hold no picks; score the results of a seismic-pick job")
    table = ScoredTable.of(results)
    plan = PlanStore(results.path)
    read = read_truth(truth, _archive_files(plan))
    onsets, elsewhere = place_onsets(read.onsets, table.instruments)
    own = table.predictions(str(table.model or "results"), table.rows, table.answered)
    resampling = Resampling.over(table.windows, seed)
    notes: list[str] = []
    said = [own, *_baselines(results, plan, table, onsets, baselines, notes, say)]
    report = ScoreReport(
        results=str(results.path),
        picks=table.picks,
        model=table.model,
        truth=_count_truth(truth, read, onsets, elsewhere, table.windows),
        tolerances_s=tolerances,
        outcomes=table.outcomes,
        unplaced_rows=table.unplaced,
        missing_rows=max(plan.chunks() - table.unplaced - len(table.windows), 0),
        parse_rate=_parse_rate(table, resampling),
        responses=int(table.responded.sum()),
        stations=len(np.unique(table.windows.station)),
        resampled={"unit": resampling.unit, "n": resampling.n_units, "repeats": resampling.repeats, "seed": seed},
        methods=tuple(score_method(table.windows, onsets, one, tolerances, resampling) for one in said),
        by_station=score_stations(table.windows, table.station_names, onsets, own, tolerances) if by_station else (),
        notes=tuple(notes),
    )
    layout = Layout(results.path)
    make_folder(layout.metrics)
    write_atomic(layout.score, orjson.dumps(report.plain(), option=orjson.OPT_INDENT_2))
    return report


def _archive_files(plan: PlanStore) -> ArchiveFiles:
    """Return the streams of the archive's files, as the plan's inventory has them."""
    found = (
        plan.inventory()
        .filter((pl.col("unit") == "samples") & (pl.col("rate_hz") > 0))
        .group_by("path", "source", "rate_hz")
        .agg(pl.col("start").min())
        .drop_nulls("start")
        .collect()
    )
    return ArchiveFiles.of(
        Stream(path=path, source=source, start_ns=start, rate_hz=rate_hz)
        for path, source, rate_hz, start in found.iter_rows()
    )


def _baselines(
    results: Results,
    plan: PlanStore,
    table: ScoredTable,
    onsets: dict[Phase, Points],
    names: Sequence[str],
    notes: list[str],
    say: Say,
) -> list[Predictions]:
    """Return the predictions of the baselines, in the order of `VALID_BASELINES`."""
    reading = [name for name in READING if name in names]
    found: list[Predictions] = []
    if reading:
        say(f"reading {len(table.windows):,} windows again for {', '.join(reading)} (--baseline none leaves this out)")
        reader = make_reader(results.loaded, RULES["replay"])
        again = pick_again(reader, plan, table.rows["chunk_key"].to_list(), reading)
        if again.unreadable:
            notes.append(f"baselines: {again.unreadable:,} windows cannot be read any more, or have no samples")
        if again.unreadable < len(table.windows):
            found = [table.predictions(name, _as_rows(table.rows, again, name), again.readable) for name in reading]
    if "median" in names:
        longest_ns = int((table.windows.stop_ns - table.windows.start_ns).max())
        delay_ns = median_s_minus_p_ns(onsets, longest_ns)
        if delay_ns is None:
            notes.append("median: the truth has no S behind a P at these stations, so there is no median S-P time")
        else:
            name = f"S = P + {delay_ns / 1e9:.2f} s"
            found.append(table.predictions(name, _delayed(table.rows, delay_ns), table.answered))
    return found


def _as_rows(rows: pl.DataFrame, again: BaselineRows, name: BaselineName) -> pl.DataFrame:
    """Return the rows with a baseline's answers in place of the model's."""
    picks = again.picks[name]
    rates = np.array(again.rates_hz)
    start_ns = nanoseconds(rows["start"])
    columns = [pl.Series("contain", [pick.contain for pick in picks], dtype=pl.Boolean)]
    for phase, indices in (
        ("p", [pick.p_index for pick in picks]),
        ("s", [pick.s_index for pick in picks]),
    ):
        times = [
            None if index is None else int(start) + round(index * 1e9 / rate)
            for index, start, rate in zip(indices, start_ns, rates, strict=True)
        ]
        columns.append(pl.Series(f"{phase}_time", times, dtype=pl.Int64).cast(pl.Datetime("ns", "UTC")))
    return rows.with_columns(columns)


def _delayed(rows: pl.DataFrame, delay_ns: int) -> pl.DataFrame:
    """Return the rows with S a fixed time behind their P, where that lies in the window."""
    s_time = pl.col("p_time") + pl.duration(nanoseconds=delay_ns, time_unit="ns")
    return rows.with_columns(pl.when(s_time < pl.col("end")).then(s_time).alias("s_time"))


def _count_truth(
    source: str | Path | pl.DataFrame, read: Truth, onsets: dict[Phase, Points], elsewhere: int, windows: Windows
) -> TruthCount:
    counts = dict(read.onsets["phase"].value_counts().iter_rows())
    inside = [windows.station[points.group[windows.covers(points)]] for points in onsets.values()]
    with_onsets = len(np.unique(np.concatenate(inside)))
    return TruthCount(
        source="a table" if isinstance(source, pl.DataFrame) else str(source),
        onsets={phase: counts.get(phase, 0) for phase in PHASES},
        elsewhere=elsewhere,
        unplaced=read.unplaced,
        other_phases=read.other_phases,
        skipped=read.skipped,
        stations_without=len(np.unique(windows.station)) - with_onsets,
    )


def _parse_rate(table: ScoredTable, resampling: Resampling) -> Estimate:
    """Return the share of the responses that are in the schema."""
    counts = [resampling.count(resampling.of_window[mask]) for mask in (table.answered, table.responded)]

    def share(totals: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        with np.errstate(invalid="ignore", divide="ignore"):
            return totals[..., :1] / totals[..., 1:]

    return resampling.of_totals(np.stack(counts, axis=1), share)[0]
