"""The records of one part on their way: read -> prepare -> admit -> engine -> interpret -> row."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from s1batch.class_turns import Outlook
from s1batch.conversation import Conversation
from s1batch.engine.base import Engine
from s1batch.engine.feeder import Fed, Feeder
from s1batch.errors import (
    EngineError,
    EngineUnavailable,
    Interrupted,
    SourceError,
    StorageAway,
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

_RECORDS_IN_A_ROW = 64
"""Records after which a worker gives its place to whoever waits for one: another part, or a next worker of this one.
Some records need no answer that is waited for, so that nobody else would come in between."""


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
        try:
            writer.append(row)
        except StorageAway:
            await self.patience.through_async(partial(writer.append, row))
        self.tally[row.outcome] += 1


@dataclass(slots=True, eq=False)
class _Ready:
    """A record on its way: a request to ask, or the reason why there is none; and the memory that it takes."""

    entry: PlanEntry
    record: Record
    request: Request | None
    refusal: Refusal | None
    nbytes: int = 0


@dataclass(slots=True, eq=False)
class _Hand:
    """What a worker has in hand: a record, until it is being answered; the memory of it; and whether it counts."""

    ready: _Ready | None
    nbytes: int
    is_full: bool = True


class Flow:
    """The records of one part between the reading thread and the engine.

    Workers carry them, each one record after the other: as many as there is room for among all parts. (With a task for
    each record the event loop had to look after five things more for each of them.)

    Args:
        crew: The worker's actors.
        writer: The part's open journal.
        facts: Sizes and times of the part's files when they were planned.
        place: Told when the part is read.
        turn: Number of the turn that the entries belong to.
    """

    def __init__(self, crew: Crew, writer: PartWriter, facts: SourceFacts, place: OpenPart, turn: int) -> None:
        self._crew = crew
        self._writer = writer
        self._facts = facts
        self._place = place
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._ready: Handover[_Ready] = Handover(self._loop, crew.prefetch)
        self._place_due: asyncio.Future[bool] | None = None
        self._abandoned = threading.Event()

    async def run(self, entries: Sequence[PlanEntry]) -> None:
        """Give each of these entries its row.

        Raises:
            Interrupted: The run is being stopped; what was answered is in the journal.
            EngineUnavailable: The engine is gone.
            ResultsError: The journal cannot be written.
        """
        reading = self._loop.run_in_executor(self._crew.readers, self._read, entries)
        reading.add_done_callback(self._look)
        try:
            async with asyncio.TaskGroup() as group:
                while await self._ready.arrive() and await self._has_place():
                    if (ready := self._next()) is None:  # workers were faster
                        self._crew.outstanding.release()
                        continue
                    hand = _Hand(ready, ready.nbytes)
                    del ready
                    # Not in the task itself: one that is cancelled before it begins runs no code of its own.
                    group.create_task(self._work(hand)).add_done_callback(partial(self._left, hand))
                    del hand
        except BaseExceptionGroup as group_error:
            raise first_that_matters(group_error) from None
        finally:
            self._abandoned.set()
            for ready in self._ready.abandon():
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
        return _Ready(entry, slim, request, refusal, request.nbytes)

    # ------------------------------------------------------------------------------------ on the event loop

    async def _has_place(self) -> bool:
        """Wait for a place for one more worker; False when there is nothing left to do for it."""
        self._place_due = place = self._crew.outstanding.enter()
        if place is None:
            return True
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.result():
                self._crew.outstanding.release()
            raise

    def _next(self) -> _Ready | None:
        """Return the next record; None when there is none now."""
        ready = self._ready.pop()
        self._look()
        return ready

    def _look(self, reading: asyncio.Future[None] | None = None) -> None:
        """Say so when the part is read, and every record of it is in hand."""
        if self._ready.is_over:
            self._place.read()
            if self._place_due is not None and not self._place_due.done():
                self._place_due.set_result(False)

    async def _work(self, hand: _Hand) -> None:
        """Carry one record after the other, as long as there are any."""
        number = 0
        while (ready := hand.ready) is not None:
            hand.ready = None
            await self._answer(ready)
            del ready
            self._ended(hand)
            number += 1
            if number == _RECORDS_IN_A_ROW:
                return
            hand.ready = self._next()
            if hand.ready is not None:
                hand.nbytes = hand.ready.nbytes
                hand.is_full = True

    def _ended(self, hand: _Hand) -> None:
        hand.is_full = False
        self._crew.memory.give_back(hand.nbytes)
        self._crew.outlook.passed(self._turn)

    def _left(self, hand: _Hand, task: asyncio.Task[None]) -> None:
        if hand.is_full:
            self._ended(hand)
        self._crew.outstanding.release()

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
