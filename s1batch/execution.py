"""One run from a job to its rows: open or make the plan, answer what is open, merge, count."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from s1batch.assembly import check_engine, engine_facts
from s1batch.beginning import Planned, ask_again, begun, lease_name
from s1batch.budget import allowance
from s1batch.deadline import Deadline
from s1batch.errors import BudgetSpent, UsageError
from s1batch.jobfile import LoadedJob
from s1batch.jobs.base import Job
from s1batch.pilot import Forecast, forecast, measure_pilot, write_pilot
from s1batch.plan_store import PlanStore
from s1batch.records import Outcome
from s1batch.results.experts import add_up_expert_use
from s1batch.results.layout import Layout
from s1batch.results.merged import merge_rows
from s1batch.results.patience import Patience
from s1batch.results.store import ResultsStore
from s1batch.stopping import Stop, at_once
from s1batch.subset import Shard, Subset
from s1batch.wording import count
from s1batch.work import Work, carry_out


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
        deadline: By when the run must be over; None: there is no limit.
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
    deadline: Deadline | None = None


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
    patience = Patience(
        Layout(path).journals,
        loaded.spec.run.storage_patience_s,
        say,
        stopped=stop.is_set,
        end_process=stop.end_process if isinstance(stop, Stop) and stop.owns_process else None,
        grace_s=loaded.spec.run.drain_s,
    )
    check_engine(loaded)
    with at_once(stop):
        facts = engine_facts(loaded)
    if facts.told:
        say(facts.told)
    planned = Planned.of(loaded, facts, path)
    if options.retry and options.limit is not None:
        raise UsageError("--retry and --limit do not go together: a part is retried as a whole")
    beginning = partial(begun, shard=options.shard, retried=options.retry, patience_s=options.patience_s)
    with ResultsStore(path, planned.schema, patience=patience) as store, beginning(store, say, stop):
        with at_once(stop):
            first = options.shard is None or options.shard.index == 0
            plan = planned.open_plan(store, say, stop, extend=options.extend, looks_for_new=first)
        subset = Subset.of(plan, options.shard, options.limit)
        if options.pilot is not None:
            subset = Subset.sample(plan, options.shard, options.pilot)
        if options.retry:
            ask_again(store, subset.parts.keys(), options.retry)
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
                run=lease_name(options.shard),
                shard=options.shard,
                retried=options.retry,
                allowance=allowance(loaded.spec.run, store, lease_name(options.shard), options.shard),
                scheduler=options.scheduler or loaded.spec.run.scheduler,
                workers=options.workers if options.workers is not None else loaded.spec.run.workers,
                patience_s=options.patience_s,
                deadline=options.deadline,
            )
            known = subset.answered_keys(store) if options.pilot is not None else frozenset()
            try:
                unfinished = partial(_left, subset, store)
                stats = carry_out(work, left=unfinished, say=say, stop=stop, terminal=terminal)
                patience.through(partial(add_up_expert_use, Layout(path)))
            except BudgetSpent as spent:
                left = count(subset.chunks - subset.answered(store), "chunk")
                raise BudgetSpent(f"{spent}; {left} without a row: raise it and run again to go on") from None
            if options.pilot is not None and stats is not None:
                measured = measure_pilot(store, subset, known, stats, loaded)
                if measured is not None:
                    write_pilot(measured, Layout(path).pilot)
        store.refresh()
        merged = patience.through(partial(_merge, planned.job, store, plan))
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


def _left(subset: Subset, store: ResultsStore) -> bool:
    return bool(subset.open_tasks(store))


def _merge(job: Job, store: ResultsStore, plan: PlanStore) -> int | None:
    """Merge the answers over overlaps once every part is there; None before, and where there is nothing to merge."""
    if len(store.finished()) < plan.parts():
        return None
    return merge_rows(store, job)
