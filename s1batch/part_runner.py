"""Carries one part from its plan to its result file: read -> prepare -> admit -> engine -> interpret -> row.

A part with scans is carried in two phases: first everything that no scan decides about, then, of the windows that
depend on scans, those that the rows of the scans call for; the others become rows `skipped`. A scan and its windows lie
in one part, so one writer decides under one lease, no worker waits for another one's part, shards stay free to take any
parts, and the decision needs nothing but rows that are stored already: after a kill it is the same.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

from s1batch.class_turns import Outlook
from s1batch.conversation import Conversation
from s1batch.engine.base import Engine
from s1batch.engine.feeder import Fed, Feeder
from s1batch.errors import (
    EngineError,
    EngineUnavailable,
    Interrupted,
    ResultsError,
    SourceError,
    first_that_matters,
)
from s1batch.handover import ByteBudget, Handover, Room
from s1batch.jobs.base import Job, Settings
from s1batch.part_gate import OpenPart
from s1batch.readers.base import Reader
from s1batch.records import Answer, PlanEntry, Record, Refusal, Request, Response, Row, Turn
from s1batch.results.part_writer import PartWriter
from s1batch.results.patience import Patience
from s1batch.rows import answered_row, refused_row, request_facts
from s1batch.source_check import SourceFacts
from s1batch.tool_runner import ToolRunner
from s1batch.triggers import Triggers


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSummary:
    """How a part ended.

    Attributes:
        part: Its number.
        outcomes: Rows by outcome, those of earlier runs included.
        finished: Whether the part's file is complete.
        asked: Rows that this run added.
    """

    part: int
    outcomes: Counter[str] = field(default_factory=Counter)
    finished: bool = False
    asked: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Everything that a part needs of its worker; all parts of a worker share it.

    Attributes:
        reader: Reads chunks, in threads.
        job: Prepares and interprets, in threads too (it is pure).
        settings: How requests are resolved.
        engine: Adapts and admits.
        feeder: Answers.
        readers: Threads for reading and preparing.
        prefetch: Records that are ready in each part before the event loop takes them.
        memory: Bounds the memory of the requests that are ready or asked, of all parts.
        outstanding: Bounds their number, apart from those that are read ahead.
        stopped: Set when no new record may be read.
        tally: Rows by outcome that this worker added; changed on the event loop only.
        outlook: What is left of the turn of a batching class; likewise.
        tools: Runs what the model calls.
        patience: Waits for the disk of the results.
        margin_s: How near to a place that a scan found windows are asked.
    """

    reader: Reader
    job: Job
    settings: Settings
    engine: Engine
    feeder: Feeder
    readers: Executor
    prefetch: int
    memory: ByteBudget
    outstanding: Room
    stopped: threading.Event
    tally: Counter[str]
    outlook: Outlook
    tools: ToolRunner
    patience: Patience
    margin_s: float = 0.0

    async def add(self, writer: PartWriter, row: Row) -> None:
        """Write a row into its part's journal and count it; wait for a disk that is away."""
        await self.patience.through_async(partial(writer.append, row))
        self.tally[row.outcome] += 1


@dataclass(slots=True, eq=False)
class _Ready:
    """A record on its way: a request to ask, or the reason why there is none."""

    entry: PlanEntry
    record: Record
    request: Request | None
    refusal: Refusal | None

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return 0 if self.request is None else self.request.nbytes


async def run_part(
    crew: Crew,
    writer: PartWriter,
    entries: Sequence[PlanEntry],
    facts: SourceFacts,
    place: OpenPart,
    only: Collection[str] | None = None,
    turn: int = 0,
) -> PartSummary:
    """Answer every entry of a part that has no row yet, and write the part's file when all have one.

    Args:
        crew: The worker's actors.
        writer: The part's open journal.
        entries: The part's lines of the plan.
        facts: Sizes and times of the part's files when they were planned.
        place: Told when the part is read.
        only: Chunk keys that this run is limited to; None means all.
        turn: Number of the turn that they belong to.

    Raises:
        Interrupted: The run is being stopped; what was answered is in the journal.
        EngineUnavailable: The engine is gone.
        ResultsError: The journal cannot be written.
    """
    done = writer.rows
    todo: list[PlanEntry] = []
    for entry in entries:
        if only is not None and entry.chunk.key not in only:
            continue
        if entry.chunk.key in done:
            crew.outlook.passed(turn, entry.refusal is None)
            continue
        if entry.refusal is not None:
            await crew.add(writer, refused_row(entry, entry.refusal))
        else:
            todo.append(entry)
    if first := [entry for entry in todo if entry.condition is None]:
        await _Flow(crew, writer, facts, place, turn).run(first)
    if later := [entry for entry in todo if entry.condition is not None]:
        called_for = await _called_for(crew, writer, later)
        crew.outlook.passed(turn, len(later) - len(called_for))
        if called_for:
            place.reads_again()
            await _Flow(crew, writer, facts, place, turn).run(called_for)
    rows = writer.rows
    order = [entry.chunk.key for entry in entries]
    finished = all(key in rows for key in order)
    outcomes: Counter[str] = Counter(row.outcome for row in rows.values())
    asked = len(rows) - len(done)
    if finished:
        await asyncio.get_running_loop().run_in_executor(crew.readers, writer.finish, order)
    return PartSummary(part=writer.part, outcomes=outcomes, finished=finished, asked=asked)


async def _called_for(crew: Crew, writer: PartWriter, entries: Sequence[PlanEntry]) -> list[PlanEntry]:
    """Return the conditional windows that their scans call for; the others get their rows."""
    triggers = Triggers(crew.job, crew.margin_s)
    rows = writer.rows
    chosen = []
    for number, entry in enumerate(entries):
        scan = rows.get(entry.condition or "")
        if scan is None:
            raise ResultsError(f"chunk {entry.chunk.key} depends on the scan {entry.condition}, which has no row")
        refusal = triggers.refusal(entry, scan)
        if refusal is None:
            chosen.append(entry)
        else:
            await crew.add(writer, refused_row(entry, refusal))
        if number % 256 == 255:
            await asyncio.sleep(0)  # the answers of other parts are waiting
    return chosen


class _Flow:
    """The records of one part between the reading thread and the engine."""

    def __init__(self, crew: Crew, writer: PartWriter, facts: SourceFacts, place: OpenPart, turn: int) -> None:
        self._crew = crew
        self._writer = writer
        self._facts = facts
        self._place = place
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._ready: Handover[_Ready] = Handover(self._loop, crew.prefetch)
        self._abandoned = threading.Event()

    async def run(self, entries: Sequence[PlanEntry]) -> None:
        reading = self._loop.run_in_executor(self._crew.readers, self._read, entries)
        taken: list[_Ready] = []
        try:
            async with asyncio.TaskGroup() as group:
                while taken := await self._ready.take():
                    taken.reverse()
                    while taken:
                        await self._crew.outstanding.acquire()
                        ready = taken.pop()
                        ended = partial(self._ended, ready.nbytes)
                        # Not in the task itself: one that is cancelled before it begins runs no code of its own.
                        group.create_task(self._answer(ready)).add_done_callback(ended)
                        del ready
                self._place.read()
        except BaseExceptionGroup as group_error:
            raise first_that_matters(group_error) from None
        finally:
            self._abandoned.set()
            for ready in [*taken, *self._ready.abandon()]:
                self._crew.memory.give_back(ready.nbytes)
            self._crew.memory.wake()
            await asyncio.wait([reading])
        await reading
        if self._crew.stopped.is_set():
            rows = self._writer.rows
            if any(entry.chunk.key not in rows for entry in entries):
                raise Interrupted("stopped before every chunk of the part was asked")

    # ------------------------------------------------------------------------------ in a reading thread

    def _read(self, entries: Sequence[PlanEntry]) -> None:
        memory = self._crew.memory
        try:
            for ready in self._prepared(entries):
                if not memory.take(ready.nbytes, self._abandoned):
                    return
                if not self._ready.put(ready):
                    memory.give_back(ready.nbytes)
                    return
        finally:
            self._ready.end()

    def _prepared(self, entries: Sequence[PlanEntry]) -> Iterator[_Ready]:
        records = self._crew.reader.read([entry.chunk for entry in entries])
        for entry, record in zip(entries, records, strict=True):
            if self._crew.stopped.is_set():
                return
            yield self._prepare(entry, record)

    def _prepare(self, entry: PlanEntry, record: Record) -> _Ready:
        # Tools may look at the payload later.
        slim = record if self._crew.job.toolbox is not None else self._judged(record)
        refusal = self._facts.changed(record) or record.refusal
        if refusal is not None:
            return _Ready(entry, slim, None, refusal)
        try:
            request = self._crew.engine.adapt(self._crew.job.prepare(record, self._crew.settings))
        except SourceError as error:
            return _Ready(entry, slim, None, Refusal(outcome="refused", reason=error.reason, detail=error.detail))
        refusal = self._crew.engine.admit(request)
        if refusal is None:
            request.fingerprint  # noqa: B018  (hashes megabytes: here, and not on the event loop)
        return _Ready(entry, slim, request, refusal)

    # ------------------------------------------------------------------------------------ on the event loop

    def _ended(self, nbytes: int, task: asyncio.Task[None]) -> None:
        self._crew.memory.give_back(nbytes)
        self._crew.outstanding.release()
        self._crew.outlook.passed(self._turn)

    async def _answer(self, ready: _Ready) -> None:
        try:
            await self._crew.add(self._writer, await self._row(ready))
        except Interrupted:
            # Raising would cancel the part's other requests, whose answers are still awaited; `run` raises at the end.
            return

    async def _row(self, ready: _Ready) -> Row:
        entry, record, request = ready.entry, ready.record, ready.request
        if ready.refusal is not None or request is None:
            refusal = ready.refusal or Refusal(outcome="refused", reason="prompt_error", detail="no request was made")
            return refused_row(entry, refusal, record.lineage, request)
        facts = request_facts(request)
        first = [request]
        request = ready.request = None
        ended = await self._conversation(entry, record).hold(first)
        return answered_row(entry, record, ended.response, ended.answer, facts, shared=ended.shared, turns=ended.turns)

    def _conversation(self, entry: PlanEntry, record: Record) -> Conversation:
        key = entry.chunk.key
        return Conversation(
            job=self._crew.job,
            record=record,
            runner=self._crew.tools,
            ask=self._ask,
            admit=self._crew.engine.admit,
            judge=partial(interpret, self._crew.job, self._judged(record)),
            again=partial(asyncio.to_thread, self._request_of, entry),
            keep=partial(self._keep, key),
            known=self._writer.turns(key),
        )

    async def _keep(self, key: str, number: int, turn: Turn) -> None:
        await self._crew.patience.through_async(partial(self._writer.append_turn, key, number, turn))

    def _judged(self, record: Record) -> Record:
        """Return what the job sees of a record when it interprets the answer."""
        return record.without_media() if self._crew.job.checks_values else record.without_payload()

    def _request_of(self, entry: PlanEntry) -> Request | None:
        """Return the question about a chunk, read once more; None when it cannot be asked as it was."""
        (record,) = self._crew.reader.read([entry.chunk])
        ready = self._prepare(entry, record)
        return ready.request if ready.refusal is None else None

    async def _ask(self, request: Request) -> Fed:
        """Put a question to the feeder; neither this nor the caller need hold it while it waits."""
        fingerprint, asking = request.fingerprint, self._crew.feeder.answer(request)
        del request
        try:
            return await asking
        except EngineUnavailable:
            raise
        except EngineError as error:
            return Fed(response=_failure(fingerprint, error, self._crew.engine), shared=False)


def _failure(fingerprint: str, error: EngineError, engine: Engine) -> Response:
    return Response(
        fingerprint=fingerprint,
        finish_reason="error",
        engine=engine.name,
        model=engine.model.name,
        error=error.reason,
        detail=error.detail,
    )


def interpret(job: Job, record: Record, response: Response) -> Answer:
    """Return what a response means: the engine's failure as it is, everything else as the job reads it."""
    if response.error is not None:
        return Answer(outcome="failed", reason=response.error, detail=response.detail)
    return job.interpret(record, response)
