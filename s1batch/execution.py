"""One run from a job to its rows: open or make the plan, answer what is open, merge, count."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from s1batch.assembly import EngineFacts, check_engine, engine_facts, make_job, make_reader
from s1batch.budget import allowance
from s1batch.errors import BudgetSpent, LockedError, UsageError
from s1batch.jobfile import LoadedJob
from s1batch.jobs.base import Job
from s1batch.pilot import Forecast, forecast, measure_pilot, write_pilot
from s1batch.plan_store import PlanStore
from s1batch.planning import extend_plan, unplanned_files, write_plan
from s1batch.readers.base import Reader
from s1batch.records import Outcome
from s1batch.results.layout import Layout
from s1batch.results.lease import Lease
from s1batch.results.merged import merge_rows
from s1batch.results.schema import RowSchema
from s1batch.results.store import ResultsStore
from s1batch.runspec import check_same, make_run_spec, read_run_spec, write_run_spec
from s1batch.stopping import Stop, at_once, go_on
from s1batch.subset import Shard, Subset
from s1batch.wording import count
from s1batch.work import Work, carry_out

PLAN_PATIENCE_S = 24 * 3600.0
"""How long a shard waits for another one that is making the plan, and a run for a compaction."""

TELL_AFTER_S = 3.0
"""A run that waits for longer says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How to run, as the command line says it.

    Attributes:
        scheduler: auto, inline, local, slurm, allocation or an address; None takes the job's.
        workers: Worker processes; None takes the job's.
        shard: Only these parts.
        limit: Only the first chunks of the (shard's) plan.
        retry: Rows with these outcomes are asked again.
        extend: Files that are not in the plan are added to it.
        pilot: Only so many chunks, spread over the (shard's) plan, to find out what the rest will take.
        accept: Outcomes besides ok that leave the exit code at 0; None takes the job's.
        patience_s: How long to wait for what another run holds: that of a node that was lost, until it counts as dead.
        ends_at: By when the run must be over, seconds since 1970; None: there is no limit.
    """

    scheduler: str | None = None
    workers: int | None = None
    shard: Shard | None = None
    limit: int | None = None
    retry: tuple[Outcome, ...] = ()
    extend: bool = False
    pilot: int | None = None
    accept: tuple[Outcome, ...] | None = None
    patience_s: float = 0.0
    ends_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """How a run ended; judged on its subset when it was limited.

    Attributes:
        path: The results folder.
        chunks: Chunks of the subset.
        outcomes: Rows of the subset by outcome.
        reasons: Rows that are not ok, by (outcome, reason).
        added: Rows that this run added.
        seconds: How long it took.
        accept: Outcomes that count as good.
        merged: Rows of merged/, when it was written.
        prompt_tokens: Tokens of the prompts of the subset.
        cached_tokens: How many of them came from the engine's cache, as far as it says so.
        pilot: What a pilot found out about the rest.
    """

    path: Path
    chunks: int
    outcomes: Counter[str]
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    added: int = 0
    seconds: float = 0.0
    accept: tuple[Outcome, ...] = ()
    merged: int | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    pilot: Forecast | None = None

    @property
    def exit_code(self) -> int:
        """0 when every row is ok or accepted, else 3; 1 when chunks have no row.

        A window that its scan did not call for is as good as an answer.
        """
        if self.outcomes.total() < self.chunks:
            return 1
        good = {"ok", *self.accept}
        bad = sum(count for name, count in self.outcomes.items() if name not in good)
        if "skipped" not in good:
            bad -= self.reasons["skipped", "not_triggered"]
        return 3 if bad else 0


Say = Callable[[str], None]


def execute(
    loaded: LoadedJob,
    output: Path | None = None,
    options: RunOptions | None = None,
    *,
    say: Say = lambda line: None,
    stop: threading.Event | None = None,
    terminal: bool | None = None,
) -> RunSummary:
    """Run or resume a job.

    Args:
        loaded: The job.
        output: The results folder; None takes the job's.
        options: Subset, retry, scheduler.
        say: Receives plain lines for the user.
        stop: Set it to end the run in good order.
        terminal: Whether to draw a progress bar; None finds out.

    Raises:
        ConflictError: The results hold answers of another job.
        LockedError: Another run works on these results.
        Interrupted: `stop` was set.
        BudgetSpent: The job's budget is spent.
        OutOfTime: The allocation ends.
        S1BatchError: The run could not be finished.
    """
    options = options or RunOptions()
    if options.pilot is not None and (options.limit is not None or options.retry):
        raise UsageError("--pilot goes with neither --limit nor --retry: it is a sample of what has no row yet")
    stop = stop or Stop()
    began = time.monotonic()
    path = output if output is not None else loaded.output
    check_engine(loaded)
    with at_once(stop):
        facts = engine_facts(loaded)
    if facts.told:
        say(facts.told)
    job = make_job(loaded)
    reader = make_reader(loaded, facts.rules)
    schema = RowSchema(reader.lineage, job.columns)
    with ResultsStore(path, schema) as store, _begun(store, options, say, stop):
        with at_once(stop):
            plan = _open_plan(loaded, facts, job, reader, path, store, options, say, stop)
        subset = Subset.of(plan, options.shard, options.limit)
        if options.pilot is not None:
            subset = Subset.sample(plan, options.shard, options.pilot)
        if options.retry:
            _supersede(store, subset, options)
        before = subset.answered(store)
        tasks = subset.open_tasks(store)
        if not tasks:
            say(f"{path}: all {subset.chunks:,} chunks have their row; nothing to do")
        else:
            work = Work(
                loaded=loaded,
                facts=facts,
                path=path,
                plan=plan,
                tasks=tasks,
                chunks=subset.chunks,
                done=before,
                run=_lease_name(options.shard),
                shard=options.shard,
                retried=options.retry,
                allowance=allowance(loaded.spec.run, store, _lease_name(options.shard), options.shard),
                scheduler=options.scheduler or loaded.spec.run.scheduler,
                workers=options.workers if options.workers is not None else loaded.spec.run.workers,
                patience_s=options.patience_s,
                ends_at=options.ends_at,
            )
            known = subset.answered_keys(store) if options.pilot is not None else frozenset()
            try:
                stats = carry_out(work, say=say, stop=stop, terminal=terminal)
            except BudgetSpent as spent:
                left = count(subset.chunks - subset.answered(store), "chunk")
                raise BudgetSpent(f"{spent}; {left} without a row: raise it and run again to go on") from None
            if options.pilot is not None and stats is not None:
                measured = measure_pilot(store, subset, known, stats, loaded)
                if measured is not None:
                    write_pilot(measured, Layout(path).pilot)
        merged = _merge(job, store, plan)
        outcomes, reasons, tokens = subset.tally(store)
        rest = forecast(store, plan) if options.pilot is not None else None
    accept = options.accept if options.accept is not None else loaded.spec.run.accept
    return RunSummary(
        path=path,
        chunks=subset.chunks,
        outcomes=outcomes,
        reasons=reasons,
        added=outcomes.total() - before,
        seconds=time.monotonic() - began,
        accept=accept,
        merged=merged,
        prompt_tokens=tokens["prompt_tokens"],
        cached_tokens=tokens["cached_tokens"],
        pilot=rest,
    )


def _supersede(store: ResultsStore, subset: Subset, options: RunOptions) -> None:
    if options.limit is not None:
        raise UsageError("--retry and --limit do not go together: a part is retried as a whole")
    for part in sorted((store.finished() | store.begun()) & subset.parts.keys()):
        store.supersede(part, options.retry)


def _lease_name(shard: Shard | None) -> str:
    return "run" if shard is None else f"run-{shard.index}-of-{shard.count}"


def _open_plan(
    loaded: LoadedJob,
    facts: EngineFacts,
    job: Job,
    reader: Reader,
    path: Path,
    store: ResultsStore,
    options: RunOptions,
    say: Say,
    stop: threading.Event,
) -> PlanStore:
    """Return the plan of a results folder, made or extended when that is due; refuse another job's folder."""
    layout = Layout(path)
    spec = make_run_spec(loaded, facts, job.prompt_hash)
    with _patiently(partial(store.lease, "plan"), stop):
        if layout.run.exists():
            check_same(read_run_spec(layout.run), spec, path)
        else:
            write_run_spec(spec, layout.run)
        if not layout.plan().exists():
            totals = write_plan(loaded, facts, job, reader, path, stop)
            said = f"planned {count(totals.chunks, 'chunk')} in {count(totals.parts, 'part')}"
            said += f", {totals.asked:,} of them to be asked"
            if totals.conditional is not None:
                said += f", {totals.conditional.asked:,} only where a scan calls for it"
            say(said)
            return PlanStore(path)
        plan = PlanStore(path)
        if options.extend:
            added = extend_plan(loaded, facts, job, reader, plan, stop)
            say(f"{added:,} chunks were added to the plan" if added else "no chunk is missing from the plan")
            return PlanStore(path)
        new = unplanned_files(reader, plan)
        if new:
            what, them = ("file is", "it") if new == 1 else ("files are", "them")
            say(f"{new:,} new {what} not in the plan; --extend adds {them}")
        return plan


@contextmanager
def _begun(store: ResultsStore, options: RunOptions, say: Say, stop: threading.Event) -> Iterator[None]:
    """Hold the lease of a run, with files of rows that it may add to; wait while they are changed.

    Rows that are asked again are taken out of large files for all shards at once: later, when others are at work, files
    that many parts share cannot be changed any more.
    """
    give_up = time.monotonic() + options.patience_s
    with ExitStack() as held:
        while True:
            try:
                with _patiently(store.gate, stop, lambda error: say(f"waiting: {error}")) as gate, ExitStack() as begun:
                    begun.enter_context(store.lease(_lease_name(options.shard)))
                    store.settle()
                    if options.retry and options.limit is None:
                        store.take_out(store.large_parts_with(options.retry), gate)
                    held.push(begun.pop_all())
                break
            except LockedError:
                # That of a node that was lost; others may begin meanwhile, so the gate is not held.
                if time.monotonic() >= give_up:
                    raise
                stop.wait(0.5)
                go_on(stop)
        yield


@contextmanager
def _patiently(
    lease: Callable[[], AbstractContextManager[Lease]],
    stop: threading.Event,
    waits: Callable[[LockedError], None] = lambda error: None,
) -> Iterator[Lease]:
    """Hold a lease that others give back soon: who makes the plan, who begins, who compacts."""
    give_up = time.monotonic() + PLAN_PATIENCE_S
    told = time.monotonic() + TELL_AFTER_S
    with ExitStack() as held:
        while True:
            try:
                taken = held.enter_context(lease())
                break
            except LockedError as error:
                now = time.monotonic()
                if now > give_up:
                    raise
                if now > told:
                    waits(error)
                    told = give_up
                stop.wait(0.1)
                go_on(stop)
        yield taken


def _merge(job: Job, store: ResultsStore, plan: PlanStore) -> int | None:
    """Merge the answers over overlaps once every part is there; None before, and where there is nothing to merge."""
    if len(store.finished()) < plan.parts():
        return None
    return merge_rows(store, job)
