"""Processes of s1batch: each carries the parts of its shard with the real feeding and routing, life after life.

A life follows what `Session`, `run_part` and `submit_all` do, on one event loop instead of several threads: parts pass
the gate in the order of their turns, as many requests again as may be in flight wait at the feeder, and a part stays
open until its last answer. It ends when all is answered, when the pace says that no answer would come in time, when it
is killed, or when all engines are gone; the next one goes on with what is open.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np

from s1batch.class_turns import ClassTurn, Outlook, TurnOrder, class_turns
from s1batch.deadline import Deadline
from s1batch.engine.base import Engine
from s1batch.engine.feeder import Feeder
from s1batch.engine.http.client import PROBE_TIMEOUT_S, HttpEngine
from s1batch.engine.http.discovery import describe
from s1batch.engine.http.retry import Backoff
from s1batch.engine.http.routing import Router
from s1batch.engine.http.spec import HttpEngineSpec
from s1batch.errors import EngineUnavailable, Interrupted, first_that_matters
from s1batch.pace import Pace, PacedEngine
from s1batch.part_gate import OpenPart, PartGate
from s1batch.plan_store import PlanStore
from s1batch.records import Message, ModelIdentity, PlanEntry, Request, Sampling, SeriesPart, SeriesShape, TextPart
from s1batch.session import CACHED_ANSWERS, CACHED_BYTES, STRAGGLER_S
from tests.benchmarks.simulate.engines import SimulatedEngine
from tests.benchmarks.simulate.ledger import Ledger
from tests.benchmarks.simulate.wire import Wire, prompt
from tests.benchmarks.simulate.workload import PlanColumns, Workload
from tests.plans import window

WALLTIME_MARGIN_S = 30.0
"""A run in an allocation wants its last answer so long before the end (docs/slurm.md)."""

_SAMPLING = Sampling(max_tokens=8)
_MODEL = ModelIdentity(name="simulated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How clients work and how their lives end.

    Attributes:
        spec: The block of the job file.
        parts_in_flight: `run.parts_in_flight` of the job file.
        walltime_s: Limit of an allocation; None: there is none.
        preempt_every_s: Mean time after which a client is killed without a word; None: never.
        requeue_s: From the end of a life to the beginning of the next.
        seed: Of the kills.
    """

    spec: HttpEngineSpec
    parts_in_flight: int
    walltime_s: float | None = None
    preempt_every_s: float | None = None
    requeue_s: float = 60.0
    seed: int = 0


@dataclass(slots=True, kw_only=True)
class Lives:
    """How the lives of a client ended, and what its feeders counted.

    Attributes:
        begun: Lives.
        killed: Of these, ended by a kill.
        late: Ended because no answer would have come in time.
        engine_gone: Ended because no engine worked.
        sent: Calls of the engine.
        switches: Changes of class at the feeder.
        slot_seconds: Calls in flight, integrated over time.
    """

    begun: int = 0
    killed: int = 0
    late: int = 0
    engine_gone: int = 0
    sent: int = 0
    switches: int = 0
    slot_seconds: float = 0.0


class Client:
    """One shard's process, and those that come after it.

    Args:
        shard: Its number.
        shards: How many there are.
        habits: See there.
        engines: The servers.
        latency_s: To them.
        workload: What is asked.
        plan: Its columns.
        ledger: What is answered.
    """

    def __init__(
        self,
        shard: int,
        shards: int,
        habits: Habits,
        engines: Sequence[SimulatedEngine],
        latency_s: float,
        workload: Workload,
        plan: PlanColumns,
        ledger: Ledger,
    ) -> None:
        self._shard, self._shards = shard, shards
        self._habits = habits
        self._wire = Wire(engines, latency_s=latency_s, connect_timeout_s=habits.spec.connect_timeout_s)
        self._workload = workload
        self._plan = plan
        self._ledger = ledger
        self._random = np.random.default_rng((habits.seed, 2, shard))
        self.lives = Lives()

    async def live(self) -> None:
        """Live until every request of the shard has its row."""
        loop = asyncio.get_running_loop()
        habits = self._habits
        while open_parts := self._ledger.open_parts(self._shard, self._shards):
            self.lives.begun += 1
            walltime_s = habits.walltime_s or math.inf
            kill_s = math.inf if habits.preempt_every_s is None else self._random.exponential(habits.preempt_every_s)
            ends_at = None if habits.walltime_s is None else loop.time() + walltime_s - WALLTIME_MARGIN_S
            limit_s = min(walltime_s, kill_s)
            life = _Life(habits, self._wire, self._workload, self._plan, self._ledger, ends_at)
            try:
                async with asyncio.timeout(None if limit_s == math.inf else limit_s):
                    await life.run(open_parts)
            except TimeoutError:
                self.lives.killed += 1
            except EngineUnavailable:
                self.lives.engine_gone += 1
            except Interrupted:
                self.lives.late += 1
            stats = life.feeder.stats
            self.lives.sent += stats.sent
            self.lives.switches += stats.switches
            self.lives.slot_seconds += stats.slot_seconds
            if self._ledger.open_parts(self._shard, self._shards):
                await asyncio.sleep(habits.requeue_s)


class _Life:
    """One process: what a session holds."""

    def __init__(
        self,
        habits: Habits,
        wire: Wire,
        workload: Workload,
        plan: PlanColumns,
        ledger: Ledger,
        ends_at: float | None,
    ) -> None:
        spec = habits.spec
        self._loop = asyncio.get_running_loop()
        self._workload, self._plan, self._ledger = workload, plan, ledger
        self._width = habits.parts_in_flight
        self._ends_at = ends_at
        self._wire = wire
        self._router = Router(spec.urls)
        backoff = Backoff(max_attempts=spec.max_attempts, base_s=spec.retry_base_s)
        self._engine = HttpEngine(spec, cast(Any, wire), {}, self._router, backoff)
        asked: Engine = self._engine
        if ends_at is not None:
            asked = PacedEngine(self._engine, Pace(Deadline(ends_at), self._loop.time), self._stop_late)
        self.feeder = Feeder(
            asked, max_in_flight=spec.max_in_flight, cache_entries=CACHED_ANSWERS, cache_bytes=CACHED_BYTES
        )
        self._outstanding = asyncio.Semaphore(2 * spec.max_in_flight)
        self._stopped = threading.Event()
        self._gate = PartGate(self._stopped)
        self._running: set[int] = set()
        self._changed = asyncio.Event()
        self._outlook = Outlook()
        self._draining: asyncio.Task[int] | None = None

    async def run(self, open_parts: Sequence[int]) -> None:
        """Carry parts to their end.

        Raises:
            Interrupted: There is no time for more.
            EngineUnavailable: No engine works.
        """
        order = class_turns(cast(PlanStore, self._plan), open_parts, self._engine.rules)
        self._outlook = Outlook(order.sizes)
        self._engine.look_ahead(self._outlook.left)
        try:
            await self._look_at_endpoints()
            async with self.feeder:
                await self._carry(order)
                if self._draining is not None:
                    await self._draining
        except BaseExceptionGroup as group:
            raise first_that_matters(group) from None
        finally:
            await self._engine.aclose()
        if self._stopped.is_set():
            raise Interrupted("no time is left")

    async def _look_at_endpoints(self) -> None:
        """Leave out what does not work, as `open_http` does."""
        urls = [each.url for each in self._router.endpoints]
        found = await asyncio.gather(*(describe(cast(Any, self._wire), url, {}, PROBE_TIMEOUT_S) for url in urls))
        for endpoint, description in zip(self._router.endpoints, found, strict=True):
            if description.error:
                self._router.eject(endpoint, description.error, self._loop.time())
                self._engine.start_probing(endpoint)

    async def _carry(self, order: TurnOrder) -> None:
        async with asyncio.TaskGroup() as parts:
            for part, turn in order.units:
                while not self._may_open(part, turn):
                    self._changed.clear()
                    await self._changed.wait()
                if self._stopped.is_set():
                    return
                entered = self._gate.part(turn.number)
                place = entered.__enter__()
                self._running.add(part)
                parts.create_task(self._part(part, turn, place)).add_done_callback(partial(self._closed, entered, part))

    def _may_open(self, part: int, turn: ClassTurn) -> bool:
        """Whether `submit_all` and the gate would let a part in now."""
        if self._stopped.is_set():
            return True
        return len(self._running) < self._width and part not in self._running and self._gate.has_room(turn.number)

    def _closed(self, entered: AbstractContextManager[OpenPart], part: int, _: asyncio.Task[None]) -> None:
        entered.__exit__(None, None, None)
        self._running.discard(part)
        self._changed.set()

    async def _part(self, number: int, turn: ClassTurn, place: OpenPart) -> None:
        part = self._workload.part(number)
        count = len(part.seconds)
        place.holds(count, 0, count)
        self._changed.set()
        journal = self._ledger.journal(number)
        rules, shapes = self._engine.rules, self._workload.shapes
        ended = partial(self._ended, turn.number)
        mine = [turn.takes(_entry(shape), rules) for shape in shapes]
        async with asyncio.TaskGroup() as answers:
            for at, (seconds, kind) in enumerate(zip(part.seconds.tolist(), part.shapes.tolist(), strict=True)):
                if not mine[kind]:
                    continue
                if at in journal:
                    self._outlook.passed(turn.number)
                    continue
                await self._outstanding.acquire()
                if self._stopped.is_set():
                    self._outstanding.release()
                    break
                shape = shapes[kind] if rules.exclusive_series else None
                request = _request(part.first + at, seconds, kind, shape)
                answers.create_task(self._answer(number, at, request)).add_done_callback(ended)
            place.read()
            self._changed.set()

    def _ended(self, turn: int, _: asyncio.Task[None]) -> None:
        self._outstanding.release()
        self._outlook.passed(turn)

    async def _answer(self, part: int, at: int, request: Request) -> None:
        try:
            fed = await self.feeder.answer(request)
        except Interrupted:
            return
        response = fed.response
        if response.error is None and response.text != request.text.partition(";")[0].removeprefix("#"):
            raise RuntimeError(f"request {request.text} got the answer {response.text}")
        self._ledger.add(part, at, self._loop.time(), failed=response.error is not None)

    def _stop_late(self) -> None:
        """As `Session` stops when its allocation ends: wait for answers as long as there is time."""
        self._stopped.set()
        self._changed.set()
        if self._draining is None and self._ends_at is not None:
            grace_s = max(self._ends_at - self._loop.time(), 0.0) + STRAGGLER_S
            self._draining = asyncio.create_task(self.feeder.drain(grace_s))


def _request(number: int, seconds: float, kind: int, shape: SeriesShape | None) -> Request:
    text = TextPart(text=prompt(number, seconds, None if shape is None else kind))
    if shape is None:
        message = Message(role="user", parts=(text,))
    else:
        values = np.broadcast_to(np.float32(1), (shape.steps, shape.channels))
        message = Message(role="user", parts=(text, SeriesPart(values, shape.rate_hz)))
    return Request(messages=(message,), sampling=_SAMPLING, model=_MODEL)


def _entry(shape: SeriesShape) -> PlanEntry:
    return replace(window(0, 1), series=shape)
