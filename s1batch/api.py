"""The Python API, which the command line calls too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s1batch.accounting import Account, take_account
from s1batch.assembly import EngineFacts, engine_facts, make_job, make_reader
from s1batch.engine.rules import RULES
from s1batch.errors import ResultsError
from s1batch.execution import RunOptions, RunSummary, execute
from s1batch.jobfile import JobLike, LoadedJob, load_job
from s1batch.pilot import Pilot, pilot_of
from s1batch.plan_store import PlanStore
from s1batch.planner import PlanTotals
from s1batch.results.schema import RowSchema
from s1batch.results.status import Status, status
from s1batch.results.store import ResultsStore
from s1batch.results.verify import Verdict, verify
from s1batch.runspec import RunSpec, read_run_spec
from s1batch.source_check import check_item

if TYPE_CHECKING:
    import polars as pl

Say = Callable[[str], None]


def _silent(line: str) -> None:
    """Say nothing."""


def run(
    job: JobLike,
    output: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    options: RunOptions | None = None,
    say: Say = _silent,
    stop: threading.Event | None = None,
) -> Results:
    """Run or resume a job, and return its results.

    Args:
        job: Path of a job file, a mapping, or a `JobFile`.
        output: Results folder; the job's own when left out.
        overrides: `a.b=c` settings.
        options: Subset, retry, scheduler.
        say: Receives lines for a person.
        stop: Set it (from another thread) to end in good order.

    Raises:
        JobFileError: The job is wrong.
        ConflictError: The results hold answers of another job, or another run works on them.
        Interrupted: `stop` was set.

    Example:
        >>> results = s1batch.run("job.yaml")  # doctest: +SKIP
        >>> results.scan().filter(pl.col("outcome") == "ok").collect()  # doctest: +SKIP
    """
    loaded = load_job(job, overrides)
    path = Path(output) if output is not None else loaded.output
    summary = execute(loaded, path, options, say=say, stop=stop, terminal=False)
    return Results(path, summary=summary)


@dataclass(frozen=True)
class Plan:
    """A plan that was made without running anything.

    Attributes:
        loaded: The job.
        totals: What the plan adds up to.
        account: Where every sample of the archive goes.
        facts: What is known of the engine.
        folder: Where plan.parquet and inventory.parquet were written; None when they were not kept.
        pilot: What a pilot of the same job measured, in the results folder that the job names; None without one.
        units_left: Chunks that have no row there, not counting windows that depend on scans; None without a pilot.
    """

    loaded: LoadedJob
    totals: PlanTotals
    account: Account
    facts: EngineFacts
    folder: Path | None = None
    pilot: Pilot | None = None
    units_left: int | None = None


def plan(
    job: JobLike, *, overrides: Sequence[str] = (), offline: bool = False, folder: str | Path | None = None
) -> Plan:
    """Plan a job: read headers, cut chunks, apply the engine's rules; ask nothing.

    Args:
        job: Path of a job file, a mapping, or a `JobFile`.
        overrides: `a.b=c` settings.
        offline: Contact no endpoint, not even to resolve `auto`.
        folder: Keep plan.parquet and inventory.parquet there; a temporary folder when left out.
    """
    from tempfile import TemporaryDirectory

    from s1batch.planning import write_plan

    loaded = load_job(job, overrides)
    facts = engine_facts(loaded, offline=offline)
    task = make_job(loaded)
    reader = make_reader(loaded, facts.rules)
    with TemporaryDirectory(prefix="s1batch-plan-") as scratch:
        where = Path(folder) if folder is not None else Path(scratch)
        where.mkdir(parents=True, exist_ok=True)
        totals = write_plan(loaded, facts, task, reader, where)
        account = take_account(PlanStore(where))
    pilot, left = pilot_of(loaded, facts, task.prompt_hash, offline=offline)
    kept = Path(folder) if folder is not None else None
    return Plan(loaded, totals, account, facts, kept, pilot, left)


def open_results(path: str | Path) -> Results:
    """Open the results of an earlier run.

    Raises:
        ResultsError: There are none.
    """
    results = Results(Path(path))
    _ = results.run_spec
    return results


class Results:
    """A results folder."""

    def __init__(self, path: Path, summary: RunSummary | None = None) -> None:
        self.path = path
        self._summary = summary

    @property
    def summary(self) -> RunSummary:
        """How the run ended that returned these results.

        Raises:
            ResultsError: They were opened, not run.
        """
        if self._summary is None:
            raise ResultsError(f"{self.path} was opened, not run; `status()` counts its rows")
        return self._summary

    def __repr__(self) -> str:
        return f"Results({str(self.path)!r})"

    @cached_property
    def run_spec(self) -> RunSpec:
        """The job as written and as resolved, versions, model and prompt hash."""
        from s1batch.results.layout import Layout

        return read_run_spec(Layout(self.path).run)

    @cached_property
    def loaded(self) -> LoadedJob:
        """The job that made these results."""
        spec = self.run_spec
        return load_job(spec.job_resolved, base_dir=Path(spec.base_dir))

    @cached_property
    def schema(self) -> RowSchema:
        """The columns."""
        with ResultsStore(self.path, None) as store:
            return store.schema

    def scan(self, *, unfinished: bool = False) -> pl.LazyFrame:
        """Return the rows; those of unfinished parts too, when asked."""
        with ResultsStore(self.path, None) as store:
            return store.scan_all() if unfinished else store.scan()

    def merged(self) -> pl.LazyFrame:
        """Return the answers merged over overlapping chunks (picks, for `seismic-pick`)."""
        import polars as pl

        from s1batch.results.layout import Layout

        files = sorted(Layout(self.path).merged.glob("*.parquet"))
        if not files:
            raise ResultsError(f"{self.path}: no merged answers; `s1batch merge` makes them where a job has some")
        return pl.scan_parquet(files, glob=False)

    def status(self) -> Status:
        """Return how far the run is."""
        return status(self.path)

    def account(self) -> Account:
        """Return where every sample of the archive went."""
        return take_account(PlanStore(self.path), self.scan(unfinished=True))

    def verify(self, *, sources: bool = False) -> Verdict:
        """Prove that plan, rows and archive agree.

        Args:
            sources: Look at the input files again too: size, time, and content where a hash was recorded.
        """
        if not sources:
            return verify(self.path)
        return verify(self.path, partial(check_item, make_reader(self.loaded, RULES["replay"])))

    def merge(self) -> int | None:
        """Write merged/ again from the rows; return its number of rows, None when the job has nothing to merge."""
        from s1batch.results.merged import merge_rows

        with ResultsStore(self.path, None) as store:
            return merge_rows(store, make_job(self.loaded))

    def score(
        self,
        truth: str | Path | pl.DataFrame | None = None,
        *,
        tolerances_s: Sequence[float] | None = None,
        tolerance: float | None = None,
        baselines: Sequence[str] | None = None,
        by_station: bool = False,
        seed: int = 0,
        say: Say = _silent,
    ) -> Any:
        """Score answers by the metrics of their job; writes metrics/score.json too.

        Args:
            truth: A file or a table, in the form that the job's metrics understand; for picks also QuakeML, or a
                folder. Jobs that check themselves (paper-extract) can be scored without.
            tolerances_s: For picks: how far one may be from its onset, in seconds.
            tolerance: For numbers of other jobs: how far one may be from the true one, as a share of it.
            baselines: What to compare with; left out: what the job's metrics choose.
            by_station: For picks: score each station too.
            seed: Seed of the bootstrap.
            say: Receives lines for a person.

        Returns:
            `s1batch.score.ScoreReport` for picks, else `s1batch.score_answers.AnswerReport`; both have `plain()`.

        Raises:
            UsageError: The truth is missing or not understood, or an argument means nothing for this job.
        """
        from s1batch.scorers import ScoreOptions, scorer_of

        given = tolerances_s if tolerance is None else (tolerance,)
        options = ScoreOptions(
            tolerances=None if given is None else tuple(given),
            baselines=None if baselines is None else tuple(baselines),
            by="station" if by_station else None,
            seed=seed,
            say=say,
        )
        return scorer_of(self.loaded.spec.job.kind).score(self, truth, options)

    def picks(self) -> pl.DataFrame:
        """Return seismic picks in QuakeFlow's column names."""
        from s1batch.jobs.quakeflow import quakeflow_picks

        return quakeflow_picks(self.scan().collect())
