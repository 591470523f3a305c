"""One simulation: from its description to what came of it."""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from s1batch.engine.http import client as client_module
from s1batch.engine.http.spec import HttpEngineSpec
from s1batch.part_gate import most_open_parts
from tests.benchmarks.simulate.clients import Client, Habits, Lives
from tests.benchmarks.simulate.engines import SimulatedEngine
from tests.benchmarks.simulate.ledger import Ledger
from tests.benchmarks.simulate.meter import Meter
from tests.benchmarks.simulate.oracle import as_one, blind_s, bound_s
from tests.benchmarks.simulate.outages import Outage, Outages
from tests.benchmarks.simulate.service import Service
from tests.benchmarks.simulate.wire import MODEL
from tests.benchmarks.simulate.workload import PlanColumns, Workload
from tests.engine.virtual_loop import run_virtually

SPARE_IN_FLIGHT = 1.25
"""Requests in flight over the slots of all engines, unless something else is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is simulated; times are in seconds.

    Attributes:
        requests: How many.
        engines: How many.
        slots: Requests that each computes at a time.
        service: How long requests take.
        batching: How many times faster a request alone is than one in full slots.
        shapes: Different shapes of the series; more than one exclude one another in an engine.
        slow: Factors by which engines are slower, by number.
        fail_every_s: Mean time between failures of all engines together.
        each_fails_every_s: Mean time for which one engine works.
        repair_s: How long an engine is down.
        silent: Failures are nodes that vanish; else processes that end.
        given_outages: Outages at known times, by engine.
        clients: Shards that share the engines.
        in_flight: Requests in flight of all clients together; None takes `SPARE_IN_FLIGHT` times all slots.
        walltime_s: Limit of a client's allocation.
        preempt_every_s: Mean time after which a client is killed.
        requeue_s: From a client's end to its next beginning.
        timeout_s: `engine.timeout_s` of the job.
        parts_in_flight: `run.parts_in_flight` of the job.
        latency_s: Between clients and engines.
        seed: Of all that is drawn.
    """

    requests: int = 20_000
    engines: int = 4
    slots: int = 16
    service: Service = field(default_factory=Service)
    batching: float = 1.0
    shapes: int = 1
    slow: Mapping[int, float] = field(default_factory=dict)
    fail_every_s: float | None = None
    each_fails_every_s: float | None = None
    repair_s: float = 600.0
    silent: bool = False
    given_outages: Mapping[int, list[Outage]] = field(default_factory=dict)
    clients: int = 1
    in_flight: int | None = None
    walltime_s: float | None = None
    preempt_every_s: float | None = None
    requeue_s: float = 60.0
    timeout_s: float = 3600.0
    parts_in_flight: int | None = None
    latency_s: float = 0.01
    seed: int = 0

    @property
    def outages(self) -> Outages:
        """When engines are down."""
        return Outages(
            self.engines,
            fail_every_s=self.fail_every_s,
            each_fails_every_s=self.each_fails_every_s,
            repair_s=self.repair_s,
            given=self.given_outages,
            seed=self.seed,
        )

    @property
    def speeds(self) -> list[float]:
        """How fast each engine is."""
        return [1.0 / self.slow.get(number, 1.0) for number in range(self.engines)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        seconds: The makespan.
        oracle_s: The bound.
        blind_s: What an ideal scheduler takes that knows no times, without failures; None where that has no meaning.
        utilisation: Share of the slots of working engines that computed, until the last request had begun.
        tail_s: From then to the end.
        not_full: Share of the makespan in which less than nine tenths of those slots computed.
        again: Times that requests were computed beyond once each.
        lost: Slot seconds that came to nothing, as a share of the work.
        failed: Requests whose rows say that the engine failed.
        met: Requests that met another shape at their engine; must be 0.
        outages: Failures during the run.
        lives: Of all clients.
        cpu_us: Processor time for each request, in microseconds.
        peak_mb: Largest memory of this process so far.
    """

    seconds: float
    oracle_s: float
    blind_s: float | None
    utilisation: float
    tail_s: float
    not_full: float
    again: int
    lost: float
    failed: int
    met: int
    outages: int
    lives: list[Lives]
    cpu_us: float
    peak_mb: float

    @property
    def ratio(self) -> float:
        """Makespan over the bound."""
        return self.seconds / self.oracle_s


def simulate(setup: Setup, *, progress: bool = False) -> Outcome:
    """Run one simulation.

    Raises:
        RuntimeError: A request has not exactly one row, which is a bug in what is simulated or in the simulation.
    """
    workload = Workload(setup.requests, setup.service, shapes=setup.shapes, seed=setup.seed)
    shapes = workload.totals()
    outages = setup.outages
    oracle_s = bound_s(
        shapes if setup.shapes > 1 else as_one(shapes),
        slots=setup.slots,
        batching=setup.batching,
        speeds=setup.speeds,
        outages=outages,
    )
    is_plain = setup.shapes == 1 and setup.batching == 1.0 and not setup.slow and not setup.given_outages
    blind = blind_s(workload, setup.engines * setup.slots) if is_plain else None
    ledger, meter = Ledger(workload, progress=progress), Meter(setup.requests)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as name:
        world = _World(setup, workload, PlanColumns(workload, Path(name)), ledger, meter, outages)
        seconds = run_virtually(world.run())
    cpu_s = time.process_time() - began
    if not ledger.is_complete():
        raise RuntimeError(f"{ledger.answered + ledger.failed} of {setup.requests} requests have a row")
    return Outcome(
        seconds=seconds,
        oracle_s=oracle_s,
        blind_s=blind,
        utilisation=meter.utilisation,
        tail_s=seconds - meter.last_start_s,
        not_full=meter.not_full_s / seconds,
        again=meter.starts - meter.started,
        lost=meter.lost_s / sum(shape.work_s for shape in shapes),
        failed=ledger.failed,
        met=world.met,
        outages=sum(len(outages.of(number, seconds)) for number in range(setup.engines)),
        lives=[client.lives for client in world.clients],
        cpu_us=1e6 * cpu_s / setup.requests,
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


class _World:
    """The engines, their failures, and the clients, on one virtual loop."""

    def __init__(
        self, setup: Setup, workload: Workload, plan: PlanColumns, ledger: Ledger, meter: Meter, outages: Outages
    ) -> None:
        self._setup, self._workload, self._plan = setup, workload, plan
        self._ledger, self._meter, self._outages = ledger, meter, outages
        self.clients: list[Client] = []
        self.met = 0

    async def run(self) -> float:
        """Run to the end of the last client; return when that was."""
        setup = self._setup
        loop = asyncio.get_running_loop()
        engines = [
            SimulatedEngine(
                slots=setup.slots,
                batching=setup.batching,
                speed=speed,
                latency_s=setup.latency_s,
                silent=setup.silent,
                meter=self._meter,
            )
            for speed in setup.speeds
        ]
        habits = self._habits()
        self.clients = [
            Client(number, setup.clients, habits, engines, setup.latency_s, self._workload, self._plan, self._ledger)
            for number in range(setup.clients)
        ]
        fates = [asyncio.create_task(self._fate(number, engine)) for number, engine in enumerate(engines)]
        with patch.object(client_module, "time", SimpleNamespace(monotonic=loop.time)):
            async with asyncio.TaskGroup() as living:
                for client in self.clients:
                    living.create_task(client.live())
        for fate in fates:
            fate.cancel()
        now = loop.time()
        self._meter.advance(now)
        self.met = sum(engine.met for engine in engines)
        return now

    async def _fate(self, number: int, engine: SimulatedEngine) -> None:
        """Let an engine fail and come back."""
        loop = asyncio.get_running_loop()
        while True:
            down, up = self._outages.after(number, loop.time())
            if down == float("inf"):
                return
            await asyncio.sleep(down - loop.time())
            engine.fail()
            if up == float("inf"):
                return
            await asyncio.sleep(up - loop.time())
            engine.come_back()

    def _habits(self) -> Habits:
        setup = self._setup
        in_flight = setup.in_flight or round(SPARE_IN_FLIGHT * setup.engines * setup.slots)
        spec = HttpEngineSpec(
            urls=tuple(f"http://node{number}:23333" for number in range(setup.engines)),
            model=MODEL,
            dialect="lmdeploy",
            single_prefill=setup.shapes == 1,
            max_in_flight=max(1, in_flight // setup.clients),
            timeout_s=setup.timeout_s,
            total_timeout_s=100 * setup.timeout_s,
            # Runs that shall outlive a repair say so: the default ends them after two minutes without an engine.
            unavailable_after_s=max(120.0, 3 * setup.repair_s),
        )
        return Habits(
            spec=spec,
            parts_in_flight=most_open_parts(setup.parts_in_flight, spec.max_in_flight),
            walltime_s=setup.walltime_s,
            preempt_every_s=setup.preempt_every_s,
            requeue_s=setup.requeue_s,
            seed=setup.seed,
        )
