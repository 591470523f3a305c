"""One worker: an event loop in a thread, one engine, one feeder, and the parts that run on them."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from s1batch.asking import StorableEngine
from s1batch.assembly import (
    EngineFacts,
    make_job,
    make_reader,
    make_settings,
    open_engine,
    requests_of_session,
)
from s1batch.class_turns import ALL_AT_ONCE, ClassTurn, Outlook
from s1batch.deadline import Deadline
from s1batch.engine.base import CountsExperts, Engine, LooksAhead
from s1batch.engine.feeder import Feeder
from s1batch.engine.feeder_stats import FeederStats
from s1batch.errors import BudgetSpent, Interrupted, LockedError, OutOfTime
from s1batch.handover import ByteBudget, Room
from s1batch.jobfile import LoadedJob
from s1batch.known_responses import known_responses
from s1batch.pace import Pace, PacedEngine
from s1batch.part_flow import Crew
from s1batch.part_gate import READING_PARTS, PartGate
from s1batch.part_runner import PartSummary, run_part
from s1batch.plan_store import PlanStore
from s1batch.records import Outcome, PlanEntry, Refusal
from s1batch.results.experts import write_expert_use
from s1batch.results.layout import Layout
from s1batch.results.part_writer import PartWriter
from s1batch.results.patience import Patience
from s1batch.results.schema import RowSchema
from s1batch.results.store import ResultsStore
from s1batch.source_check import SourceFacts
from s1batch.tool_runner import ToolRunner

CACHED_ANSWERS = 4096
CACHED_BYTES = 32 << 20

STRAGGLER_S = 10.0
"""How long answers that come later than their pace let expect are waited for behind a deadline, of the half minute that
it keeps in reserve: asking again costs more."""


def _to_stderr(line: str) -> None:
    """Say something where a worker has nobody else to tell; its log may be on the same disk."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSetup:
    """Everything that a worker process needs to begin; pickles.

    Attributes:
        loaded: The job.
        facts: What is known of the engine.
        results: The results folder.
        run: Name of the run's lease; no two runs of one results folder have the same at once.
        share: How many sessions share the engine's endpoints, whose limits are divided by it, and the budget.
        lease_patience_s: How long to wait for a part whose worker just died.
        retried: Outcomes that are asked again: answers that ended in them do not serve other chunks.
        tokens: What all sessions together may spend on prompts and answers; None: no limit.
        sizes: How many chunks each turn of a batching class asks about; empty when one worker cannot know.
        deadline: By when the last answer must have come; None: there is no limit.
    """

    loaded: LoadedJob
    facts: EngineFacts
    results: Path
    run: str = "run"
    share: int = 1
    lease_patience_s: float = 0.0
    retried: tuple[Outcome, ...] = ()
    tokens: int | None = None
    sizes: tuple[int, ...] = ()
    deadline: Deadline | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStats:
    """Counters of one worker, or of several added up.

    Attributes:
        rows: Rows by outcome that were added since the worker began.
        feeder: The feeder's counters.
        workers: How many workers these are.
    """

    rows: Counter[str]
    feeder: FeederStats
    workers: int = 1

    @classmethod
    def total(cls, stats: Sequence[SessionStats]) -> SessionStats:
        """Add up the counters of several workers."""
        rows: Counter[str] = Counter()
        for item in stats:
            rows.update(item.rows)
        feeder = FeederStats.total([item.feeder for item in stats])
        return cls(rows=rows, feeder=feeder, workers=sum(item.workers for item in stats))


class Session:
    """Runs parts; several threads may call `run_part` at once, and all of them feed one engine.

    Args:
        setup: What it begins with.
        say: Receives a line when the disk of the results goes away, or comes back.

    Raises (on entering):
        EngineUnavailable: The engine cannot be opened.
    """

    def __init__(self, setup: SessionSetup, say: Callable[[str], None] = _to_stderr) -> None:
        self._setup = setup
        self._say = say
        loaded = setup.loaded
        self._options = loaded.spec.run
        self._job = make_job(loaded)
        self._reader = make_reader(loaded, setup.facts.rules)
        self._plan = PlanStore(setup.results)
        self._patience = Patience(Layout(setup.results).journals, self._options.storage_patience_s, say)
        schema = RowSchema(self._reader.lineage, self._job.columns)
        self._store = ResultsStore(setup.results, schema, patience=self._patience)
        self._stopped = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="s1batch-session", daemon=True)
        self._gate = PartGate(self._stopped)
        # One for each part that is read, and as many for parts that are finished meanwhile.
        self._threads = ThreadPoolExecutor(2 * READING_PARTS, thread_name_prefix="s1batch-read")
        self._crew: Crew | None = None
        self._draining: Future[int] | None = None
        self._spent = False
        self._late = False

    def __enter__(self) -> Self:
        self._thread.start()
        opening = asyncio.run_coroutine_threadsafe(self._open(), self._loop)
        try:
            self._crew = opening.result()
        except BaseException:
            opening.cancel()
            asyncio.run_coroutine_threadsafe(_others_end(), self._loop).result()
            self._end_loop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._crew is not None:
                asyncio.run_coroutine_threadsafe(self._close(self._crew), self._loop).result()
            self._store.close()
        finally:
            self._end_loop()
            if lost := self._patience.lost:
                rows = "1 row" if lost == 1 else f"{lost:,} rows"
                self._say(f"{rows} could not be stored: these answers are lost, and asked for again by the next run")

    async def _open(self) -> Crew:
        setup = self._setup
        engine = await open_engine(setup.loaded, setup.facts)
        try:
            return await self._crew_of(engine)
        except BaseException:
            await engine.aclose()
            raise

    async def _crew_of(self, engine: Engine) -> Crew:
        setup, options = self._setup, self._options
        in_flight = requests_of_session(setup.loaded, setup.share)
        asked: Engine = StorableEngine(engine, self._patience, self._stopped.is_set)
        feeder = Feeder(
            asked if setup.deadline is None else PacedEngine(asked, Pace(setup.deadline), self._stop_late),
            max_in_flight=in_flight,
            cache_entries=CACHED_ANSWERS,
            cache_bytes=CACHED_BYTES,
            budget_tokens=None if setup.tokens is None else max(1, setup.tokens // setup.share),
            on_spent=self._stop_spending,
        )
        known = await asyncio.to_thread(
            known_responses,
            self._store,
            most=CACHED_ANSWERS,
            most_chars=CACHED_BYTES,
            without=setup.retried,
        )
        feeder.remember(known)
        outlook = Outlook(setup.sizes)
        if isinstance(engine, LooksAhead):
            engine.look_ahead(outlook.left)
        return Crew(
            reader=self._reader,
            job=self._job,
            settings=make_settings(setup.loaded, engine.model),
            engine=engine,
            feeder=feeder,
            readers=self._threads,
            prefetch=options.prefetch,
            memory=ByteBudget(options.memory_mb << 20),
            # As many again wait at the feeder, so that it can group them by class and never runs dry.
            outstanding=Room(2 * in_flight),
            stopped=self._stopped,
            tally=Counter(),
            outlook=outlook,
            tools=ToolRunner(),
            patience=self._patience,
            margin_s=setup.loaded.spec.long.coarse_to_fine.margin_s,
        )

    def run_part(
        self,
        part: int,
        only: Collection[str] | None = None,
        turn: ClassTurn = ALL_AT_ONCE,
        let_in: Callable[[], None] = lambda: None,
        *,
        given_up: Sequence[tuple[str, Refusal]] = (),
    ) -> PartSummary:
        """Answer what is open in a part; blocks until it is finished.

        Args:
            part: Its number.
            only: Chunk keys to limit the work to.
            turn: Which of its entries; the part is finished when all have had their turn.
            let_in: Called once there is room for the part: until then it only waits.
            given_up: Chunks that are not asked, and why; they get their rows.

        Raises:
            LockedError: Another run holds the part.
            Interrupted: `stop` was called.
            BudgetSpent: The session has spent its tokens.
            OutOfTime: The allocation ends before another answer could come.
            EngineUnavailable: The engine is gone.
        """
        try:
            return self._run_part(part, only, turn, let_in, dict(given_up))
        except Interrupted:
            if self._spent:
                raise BudgetSpent("the tokens of this run are spent") from None
            if self._late:
                raise OutOfTime from None
            raise

    def _run_part(
        self,
        part: int,
        only: Collection[str] | None,
        turn: ClassTurn,
        let_in: Callable[[], None],
        given_up: Mapping[str, Refusal],
    ) -> PartSummary:
        if self._crew is None:
            raise RuntimeError("run_part needs an open session: use it in a with statement")
        if self._stopped.is_set():
            raise Interrupted("the run is being stopped")
        with self._gate.part(turn.number) as place:
            let_in()
            entries = self._plan.entries(part)
            if given_up:
                entries = [replace(entry, refusal=given_up.get(entry.chunk.key, entry.refusal)) for entry in entries]
            ahead = min(self._options.prefetch, len(entries))
            place.holds(
                len(entries),
                sum(entry.nbytes for entry in entries) * ahead // max(len(entries), 1),
                sum(len(entry.chunk.inputs) for entry in entries),
            )
            facts = self._facts_of(entries)
            with self._open_part(part) as writer:
                chosen = self._chosen(entries, only, turn)
                running = run_part(self._crew, writer, entries, facts, place, chosen, turn.number)
                return asyncio.run_coroutine_threadsafe(running, self._loop).result()

    def _chosen(
        self, entries: Sequence[PlanEntry], only: Collection[str] | None, turn: ClassTurn
    ) -> Collection[str] | None:
        if turn.kind is None:
            return only
        rules = self._setup.facts.rules
        mine = {entry.chunk.key for entry in entries if turn.takes(entry, rules)}
        return mine if only is None else mine.intersection(only)

    def _facts_of(self, entries: Sequence[PlanEntry]) -> SourceFacts:
        if not any(column.name == "source_files" for column in self._reader.lineage):
            return SourceFacts({})  # the reader does not say what it finds, so there is nothing to compare it with
        return SourceFacts.of(self._plan, {address.path for entry in entries for address in entry.chunk.inputs})

    def _open_part(self, part: int) -> PartWriter:
        give_up = time.monotonic() + self._setup.lease_patience_s
        while True:
            try:
                return self._store.open_part(part)
            except LockedError:
                if time.monotonic() >= give_up:
                    raise
                if self._stopped.wait(1.0):
                    raise Interrupted("the run is being stopped") from None

    def stop(self, *, at_limit: bool = False, in_vain: bool = False) -> None:
        """Take in nothing new; what the engine has already got is waited for, up to the job's `run.drain_s`.

        A second call does nothing.

        Args:
            at_limit: The allocation is about to end: answers are waited for as long as there is time.
            in_vain: The engine is gone: none are waited for.
        """
        self._stopped.set()
        if self._crew is not None and self._draining is None:
            grace_s = self._options.drain_s
            if at_limit and self._setup.deadline is not None:
                grace_s = self._setup.deadline.left_s + STRAGGLER_S
            # Answers that came may still wait for the disk.
            self._patience.by(time.monotonic() + grace_s)
            if in_vain:
                grace_s = 0.0
            self._draining = asyncio.run_coroutine_threadsafe(self._crew.feeder.drain(grace_s), self._loop)

    def share_with(self, sessions: int) -> None:
        """Say how many sessions share the engine's endpoints from now on."""
        if self._crew is not None:
            in_flight = requests_of_session(self._setup.loaded, sessions)
            self._loop.call_soon_threadsafe(self._resize, self._crew, in_flight)

    def _resize(self, crew: Crew, in_flight: int) -> None:
        crew.feeder.resize(in_flight)
        crew.outstanding.resize(2 * in_flight)

    def _stop_late(self) -> None:
        self._late = True
        self.stop(at_limit=True)

    def _stop_spending(self) -> None:
        self._spent = True
        self.stop()

    async def _close(self, crew: Crew) -> None:
        if self._draining is not None:
            await asyncio.wrap_future(self._draining)
        await crew.engine.aclose()
        if isinstance(crew.engine, CountsExperts):
            use, groups = crew.engine.expert_tokens(), crew.engine.expert_groups
            writing = partial(write_expert_use, Layout(self._setup.results), use, groups)
            await asyncio.to_thread(self._patience.through, writing)

    def stats(self) -> SessionStats | None:
        """Return the counters; None before the engine is open."""
        if self._crew is None:
            return None
        return SessionStats(rows=Counter(self._crew.tally), feeder=self._crew.feeder.stats)

    def _end_loop(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _others_end() -> None:
    """Wait until every other task of this loop, which was cancelled, has cleaned up behind itself."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
