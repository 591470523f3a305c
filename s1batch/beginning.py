"""How a run begins: alone where it has to be, with the plan of its job, and with what is asked again set free.

`s1batch run` begins so, and so does `s1batch submit` where something must be done once, before the tasks of an array.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from s1batch.assembly import EngineFacts, engine_facts, make_job, make_reader
from s1batch.engine.http.spec import HttpEngineSpec
from s1batch.errors import JobFileError, LockedError
from s1batch.jobfile import LoadedJob
from s1batch.jobs.base import Job
from s1batch.plan_store import PlanStore
from s1batch.planning import extend_plan, unplanned_files, write_plan
from s1batch.readers.base import Reader
from s1batch.records import Outcome
from s1batch.results.layout import Layout
from s1batch.results.lease import Lease
from s1batch.results.patience import Patience
from s1batch.results.schema import RowSchema
from s1batch.results.store import ResultsStore
from s1batch.runspec import RunSpec, check_same, make_run_spec, read_run_spec, write_run_spec
from s1batch.stopping import go_on
from s1batch.subset import Shard
from s1batch.wording import count

Say = Callable[[str], None]

PLAN_PATIENCE_S = 24 * 3600.0
"""How long a shard waits for another one that is making the plan, and a run for a compaction."""

TELL_AFTER_S = 3.0
"""A run that waits for longer says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What plans are made of, and compared with.

    Attributes:
        loaded: The job.
        facts: What is known of its engine.
        job: What is asked.
        reader: What is read.
        path: The results folder.
    """

    loaded: LoadedJob
    facts: EngineFacts
    job: Job
    reader: Reader
    path: Path

    @classmethod
    def of(cls, loaded: LoadedJob, facts: EngineFacts, path: Path) -> Planned:
        """Return that of a job."""
        return cls(loaded=loaded, facts=facts, job=make_job(loaded), reader=make_reader(loaded, facts.rules), path=path)

    @property
    def schema(self) -> RowSchema:
        """Columns of the rows."""
        return RowSchema(self.reader.lineage, self.job.columns)

    def check(self, *, offline: bool = False) -> None:
        """Make sure that results that are there, if any, are those of this job.

        Args:
            offline: No endpoint was asked, so what depends on its answer is not compared.

        Raises:
            ConflictError: They are of another one; names the fields that differ.
        """
        run = Layout(self.path).run
        if run.exists():
            check_same(read_run_spec(run), self._spec(), self.path, self._unknown() if offline else ())

    def _unknown(self) -> tuple[str, ...]:
        """Return how the names of fields begin that only an endpoint could tell."""
        engine = self.loaded.spec.engine
        if not isinstance(engine, HttpEngineSpec):
            return ()
        names = ["engine.dialect", "window."] if engine.dialect == "auto" else []
        return (*names, "model.", "engine.model") if engine.model == "auto" else tuple(names)

    def _spec(self) -> RunSpec:
        return make_run_spec(self.loaded, self.facts, self.job.prompt_hash)

    def open_plan(
        self,
        store: ResultsStore,
        say: Say,
        stop: threading.Event,
        *,
        extend: bool = False,
        looks_for_new: bool = True,
    ) -> PlanStore:
        """Return the plan of the results folder, made or extended when that is due.

        Args:
            store: The results.
            say: Receives lines for a person.
            stop: Ends it.
            extend: Whether files that are not in the plan are added to it.
            looks_for_new: Whether to tell of such files, which takes a look at the whole archive.

        Raises:
            ConflictError: The folder holds answers of another job.
            Interrupted: `stop` was set.
        """
        layout = Layout(self.path)
        # A plan comes to be at once, so whoever finds one need not wait for others who look as well.
        if extend or not layout.plan().exists():
            with patiently(partial(store.lease, "plan"), stop):
                self._make_plan(layout, store, say, stop, extend=extend)
            return PlanStore(self.path)
        self.check()
        plan = PlanStore(self.path)
        new = unplanned_files(self.reader, plan) if looks_for_new else 0
        if new:
            what, them = ("file is", "it") if new == 1 else ("files are", "them")
            say(f"{new:,} new {what} not in the plan; --extend adds {them}")
        return plan

    def _make_plan(self, layout: Layout, store: ResultsStore, say: Say, stop: threading.Event, *, extend: bool) -> None:
        """Make the plan, or extend it; the caller holds its lease, and may have waited for another one to do so."""
        loaded, facts, job, reader, path = self.loaded, self.facts, self.job, self.reader, self.path
        if layout.run.exists():
            self.check()
        else:
            store.patience.through(partial(write_run_spec, self._spec(), layout.run))
        if not layout.plan().exists():
            try:
                totals = store.patience.through(partial(write_plan, loaded, facts, job, reader, path, stop))
            except JobFileError:
                layout.run.unlink(missing_ok=True)  # the job will be another one when it is mended
                raise
            said = f"planned {count(totals.chunks, 'chunk')} in {count(totals.parts, 'part')}"
            said += f", {totals.asked:,} of them to be asked"
            if totals.conditional is not None:
                said += f", {totals.conditional.asked:,} only where a scan calls for it"
            say(said)
        elif extend:
            plan = PlanStore(path)
            added = store.patience.through(partial(extend_plan, loaded, facts, job, reader, plan, stop))
            them = f"{count(added, 'chunk')} {'was' if added == 1 else 'were'} added to the plan"
            say(them if added else "no chunk is missing from the plan")


def ask_again(store: ResultsStore, parts: Collection[int], outcomes: Collection[Outcome]) -> int:
    """Set the rows of parts with one of these outcomes aside, so that they are asked again; return how many.

    Raises:
        LockedError: Another run works on one of these parts.
    """
    begun = (store.finished() | store.begun()).intersection(parts)
    return sum(store.supersede(part, outcomes) for part in sorted(begun))


def lease_name(shard: Shard | None) -> str:
    """Return the name of the lease of a run, which no two runs hold at once."""
    return "run" if shard is None else f"run-{shard.index}-of-{shard.count}"


@contextmanager
def begun(
    store: ResultsStore,
    say: Say,
    stop: threading.Event,
    *,
    shard: Shard | None = None,
    retried: Collection[Outcome] = (),
    patience_s: float = 0.0,
) -> Iterator[None]:
    """Hold the lease of a run, with files of rows that it may add to; wait while they are changed.

    Rows that are asked again are taken out of large files for all shards at once: later, when others are at work, files
    that many parts share cannot be changed any more.

    Args:
        store: The results.
        say: Receives lines for a person.
        stop: Ends the waiting.
        shard: What the run is about.
        retried: Outcomes that are asked again.
        patience_s: How long to wait for the lease of a run that was lost.

    Raises:
        LockedError: Such a run is at work.
        Interrupted: `stop` was set.
    """
    give_up = time.monotonic() + patience_s
    told = False
    with ExitStack() as held:
        while True:
            try:
                with patiently(store.gate, stop, lambda error: say(f"waiting: {error}")) as gate, ExitStack() as taken:
                    taken.enter_context(store.lease(lease_name(shard)))
                    store.settle()
                    if retried:
                        store.take_out(store.large_parts_with(retried), gate)
                    held.push(taken.pop_all())
                break
            except LockedError as error:
                # That of a node that was lost; others may begin meanwhile, so the gate is not held.
                if time.monotonic() >= give_up:
                    raise
                if not told:
                    say(f"waiting up to {patience_s:g} s: {error}")
                    told = True
                stop.wait(0.5)
                go_on(stop)
        yield


@contextmanager
def patiently(
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


def prepare_results(
    loaded: LoadedJob,
    path: Path,
    *,
    say: Say,
    stop: threading.Event,
    extend: bool = False,
    retried: Collection[Outcome] = (),
) -> None:
    """Do once what the tasks of an array must not do each: make or extend the plan, set rows free to be asked again.

    Args:
        loaded: The job.
        path: The results folder.
        say: Receives lines for a person.
        stop: Ends it.
        extend: Whether files that are not in the plan are added to it.
        retried: Outcomes that are asked again.

    Raises:
        ConflictError: The folder holds answers of another job.
        LockedError: A run is at work there.
        Interrupted: `stop` was set.
    """
    planned = Planned.of(loaded, engine_facts(loaded), path)
    patience = Patience(Layout(path).journals, loaded.spec.run.storage_patience_s, say, stopped=stop.is_set)
    with ResultsStore(path, planned.schema, patience=patience) as store, begun(store, say, stop, retried=retried):
        plan = planned.open_plan(store, say, stop, extend=extend)
        if retried:
            again = ask_again(store, range(plan.parts()), retried)
            say(f"{count(again, 'row')} will be asked again" if again else "no row has such an outcome")
