"""How close a run comes to a scheduler that knows everything: the real feeder, turns and routing on a virtual clock.

    python -m tests.benchmarks.bench_scheduler [--requests 40000]

Requests are those of a plan whose stations have different shapes; how long each takes is drawn from a lognormal
distribution and known to nobody before it ends. The oracle is a bound that no scheduler can pass, whatever it knows:

    one endpoint       classes cannot run together, so their times add up: for each class the larger of its work over
                       the slots and its longest request
    many endpoints     all work over the slots, at full speed (of endpoints that take any number at a time: over the
                       requests that may be in flight; of endpoints that compute 16 at a time: over their slots, the
                       slow one's at a tenth, the dying one's until it dies)
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from s1batch.class_turns import Outlook, TurnOrder, class_turns  # noqa: E402
from s1batch.engine.feeder import Feeder, FeederStats  # noqa: E402
from s1batch.engine.http import client as client_module  # noqa: E402
from s1batch.engine.http import routing  # noqa: E402
from s1batch.engine.http.client import HttpEngine  # noqa: E402
from s1batch.engine.http.parse import Answered  # noqa: E402
from s1batch.engine.http.retry import Backoff, Failure  # noqa: E402
from s1batch.engine.http.routing import Endpoint, Router  # noqa: E402
from s1batch.engine.http.spec import HttpEngineSpec  # noqa: E402
from s1batch.engine.rules import RULES  # noqa: E402
from s1batch.plan_store import PlanStore, PlanWriter  # noqa: E402
from s1batch.planner import part_sizes  # noqa: E402
from s1batch.records import (  # noqa: E402
    Message,
    ModelIdentity,
    PlanEntry,
    Request,
    Sampling,
    SeriesPart,
    SeriesShape,
    TextPart,
)
from tests.benchmarks.harness import table  # noqa: E402
from tests.engine.virtual_loop import run_virtually  # noqa: E402
from tests.plans import window  # noqa: E402

MEAN_S = 20.0
SHAPES = ((200, 3, 100.0), (200, 3, 50.0), (200, 3, 40.0), (400, 3, 100.0))
SHARES = (0.55, 0.25, 0.15, 0.05)
Entries = Mapping[int, list[PlanEntry]]

_SEED = re.compile(rb'"seed":(\d+)')


@dataclass(kw_only=True)
class World:
    """What the endpoints do.

    Attributes:
        seconds: Time of each request on an endpoint of full speed.
        slots: How many requests an endpoint computes at a time; None: any number.
        slow: Factors by which endpoints are slower, by number.
        dies: When endpoints die, by number.
    """

    seconds: NDArray[np.float64]
    slots: int | None = None
    slow: Mapping[int, float] = field(default_factory=dict)
    dies: Mapping[int, float] = field(default_factory=dict)


class Simulated(HttpEngine):
    """The HTTP engine with its queues, routing and retries; only the wire is replaced."""

    def __init__(self, world: World, endpoints: int, in_flight: int) -> None:
        urls = tuple(f"http://node{number}:1" for number in range(endpoints))
        spec = HttpEngineSpec(
            urls=urls, model="m", dialect="lmdeploy", max_in_flight=in_flight, timeout_s=1e6, total_timeout_s=1e7
        )
        super().__init__(spec, cast(Any, None), {}, Router(urls), Backoff())
        self._world = world
        self._numbers = {url: number for number, url in enumerate(urls)}
        self._computing = [asyncio.Semaphore(world.slots or 10**9) for _ in urls]
        self.met: Counter[str] = Counter()
        self._in: dict[int, Counter[bytes]] = defaultdict(Counter)

    async def _attempt(
        self, endpoint: Endpoint, body: bytes, expected: Mapping[str, bool], deadline: float
    ) -> Answered | Failure:
        number = self._numbers[endpoint.url]
        found = _SEED.search(body)
        seconds = self._world.seconds[int(found[1]) if found else 0] * self._world.slow.get(number, 1.0)
        shape = body[body.index(b"S:") : body.index(b":E")]
        inside = self._in[number]
        inside[shape] += 1
        if sum(count > 0 for count in inside.values()) > 1:
            self.met["classes"] += 1
        loop = asyncio.get_running_loop()
        try:
            with self._router.using(endpoint):
                async with asyncio.timeout_at(self._world.dies.get(number, 1e9)), self._computing[number]:
                    await asyncio.sleep(seconds)
        except TimeoutError:
            return Failure(reason="connection", detail="died", retry=True, blames_endpoint=True)
        finally:
            inside[shape] -= 1
        if loop.time() >= self._world.dies.get(number, 1e9):
            return Failure(reason="connection", detail="dead", retry=True, blames_endpoint=True)
        return Answered(
            text="{}",
            reasoning=None,
            finish_reason="stop",
            prompt_tokens=1,
            cached_tokens=0,
            output_tokens=1,
            model="m",
        )

    def start_probing(self, endpoint: Endpoint) -> None:
        """The dead stay dead."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one run went."""

    seconds: float
    stats: FeederStats
    met: int


async def _drive(order: TurnOrder, entries: Entries, engine: Simulated, in_flight: int) -> Outcome:
    """Feed the engine as a session does: parts in their order, twice as many requests at a time as may be in flight."""
    rules = RULES["lmdeploy"]
    loop = asyncio.get_running_loop()
    outlook = Outlook(order.sizes)
    engine.look_ahead(outlook.left)
    feeder = Feeder(engine, max_in_flight=in_flight, cache_entries=0, cache_bytes=0)
    room = asyncio.Semaphore(2 * in_flight)

    async def one(request: Request, turn: int) -> None:
        try:
            fed = await feeder.answer(request)
            if fed.response.error is not None:
                raise SystemExit(f"a request was lost: {fed.response.detail}")
        finally:
            outlook.passed(turn)
            room.release()

    async with asyncio.TaskGroup() as group:
        for part, turn in order.units:
            for entry in entries[part]:
                if turn.takes(entry, rules):
                    await room.acquire()
                    group.create_task(one(_request(entry), turn.number))
    return Outcome(seconds=loop.time(), stats=feeder.stats, met=engine.met["classes"])


def _request(entry: PlanEntry) -> Request:
    shape = cast(SeriesShape, entry.series)
    values = np.broadcast_to(np.float32(1), (shape.steps, shape.channels))
    text = f"S:{shape.steps},{shape.channels},{shape.rate_hz:g}:E"
    message = Message(role="user", parts=(TextPart(text=text), SeriesPart(values, shape.rate_hz)))
    return Request(
        messages=(message,), sampling=Sampling(max_tokens=8), model=ModelIdentity(name="m"), seed=int(entry.label)
    )


def _run(world: World, order: TurnOrder, entries: Entries, endpoints: int, each: int) -> Outcome:
    in_flight = endpoints * each

    async def everything() -> Outcome:
        loop = asyncio.get_running_loop()
        clock = SimpleNamespace(monotonic=loop.time)
        with patch.object(client_module, "time", clock):
            return await _drive(order, entries, Simulated(world, endpoints, in_flight), in_flight)

    return run_virtually(everything())


def _plan(folder: Path, count: int, shapes: Sequence[int], seed: int) -> tuple[PlanStore, dict[int, list[PlanEntry]]]:
    """Write the plan of an archive whose stations alternate between shapes, 40 windows of each at a time."""
    draw = np.random.default_rng(seed)
    weights = np.array([SHARES[shape] for shape in shapes])
    kinds = np.repeat(draw.choice(list(shapes), size=count // 40 + 1, p=weights / weights.sum()), 40)[:count]
    entries: dict[int, list[PlanEntry]] = defaultdict(list)
    sizes = part_sizes()
    part, room = -1, 0
    with PlanWriter(folder) as writer:
        for number, kind in enumerate(kinds):
            if room == 0:
                part, room = part + 1, next(sizes)
            room -= 1
            steps, channels, rate_hz = SHAPES[kind]
            shape = SeriesShape(steps=steps, channels=channels, rate_hz=rate_hz)
            where = window(number * 10**9, (number + 1) * 10**9)
            entry = replace(where, label=str(number), series=shape, part=part)
            entries[part].append(entry)
            writer.add(entry)
    return PlanStore(folder), entries


def _bound_one(entries: Entries, seconds: NDArray[np.float64], slots: int) -> float:
    by_class: dict[SeriesShape | None, list[float]] = defaultdict(list)
    for entry in _all(entries):
        by_class[entry.series].append(seconds[int(entry.label)])
    return sum(max(sum(times) / slots, max(times)) for times in by_class.values())


def _bound_many(world: World, endpoints: int, in_flight: int) -> float:
    work, longest = float(world.seconds.sum()), float(world.seconds.max())
    if world.slots is None:
        return max(work / in_flight, longest)
    low, high = 0.0, work
    while high - low > 1e-6:
        middle = (low + high) / 2
        done = sum(
            world.slots * min(middle, world.dies.get(number, middle)) / world.slow.get(number, 1.0)
            for number in range(endpoints)
        )
        low, high = (low, middle) if done >= work else (middle, high)
    return max(high, longest)


def _all(entries: Entries) -> Iterator[PlanEntry]:
    for part in entries.values():
        yield from part


def _lognormal(count: int, sigma: float, seed: int) -> NDArray[np.float64]:
    draw = np.random.default_rng(seed)
    return MEAN_S * draw.lognormal(-(sigma**2) / 2, sigma, count)


def _row(name: str, outcome: Outcome, bound: float) -> list[str]:
    share = outcome.stats.slot_seconds / outcome.seconds
    if outcome.met:
        raise SystemExit(f"{name}: {outcome.met} requests met another class on their endpoint")
    return [
        name,
        f"{outcome.seconds / 3600:.2f}",
        f"{bound / 3600:.2f}",
        f"{outcome.seconds / bound:.3f}",
        str(outcome.stats.switches),
        f"{share:.0f}",
    ]


def _shapes(number: int) -> str:
    return f"{number} shape{'s' if number > 1 else ''}"


def one_endpoint(count: int) -> Iterator[list[str]]:
    """Shapes that alternate at one endpoint that computes 64 requests at a time."""
    for sigma in (0.5, 1.0):
        for number in (1, 2, 4):
            with tempfile.TemporaryDirectory() as name:
                store, entries = _plan(Path(name), count, range(number), seed=number)
                world = World(seconds=_lognormal(count, sigma, seed=7))
                order = class_turns(store, entries, RULES["lmdeploy"])
                bound = _bound_one(entries, world.seconds, 64)
                outcome = _run(world, order, entries, 1, 64)
                yield _row(f"{_shapes(number)}, sigma {sigma:g}", outcome, bound)
                if number == 4 and sigma == 0.5:
                    plain = class_turns(store, entries, replace(RULES["lmdeploy"], exclusive_series=False))
                    yield _row("the same, in the order of the plan", _run(world, plain, entries, 1, 64), bound)


def sixteen_endpoints(count: int) -> Iterator[list[str]]:
    """Sixteen endpoints, one of which dies and one of which is ten times slower."""
    for number in (1, 4):
        with tempfile.TemporaryDirectory() as name:
            store, entries = _plan(Path(name), count, range(number), seed=number)
            order = class_turns(store, entries, RULES["lmdeploy"])
            seconds = _lognormal(count, 0.5, seed=9)
            dies = {3: seconds.sum() / 256 / 3}
            for world, said in (
                (World(seconds=seconds), "all well"),
                (World(seconds=seconds, slow={5: 10.0}, dies=dies), "one dies, one slow"),
                (World(seconds=seconds, slow={5: 10.0}, dies=dies, slots=16), "the same, 16 at a time each"),
            ):
                bound = _bound_many(world, 16, 256)
                yield _row(f"{_shapes(number)}, {said}", _run(world, order, entries, 16, 16), bound)
                if number == 1 and said == "one dies, one slow":
                    with patch.object(routing, "SLOW", float("inf")):
                        yield _row("the same, by least in flight alone", _run(world, order, entries, 16, 16), bound)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000, help="the tables of docs/performance.md have 40,000")
    given = parser.parse_args()
    head = ["what", "hours", "oracle", "ratio", "changes of class", "in flight"]
    said = f"{given.requests:,} requests of {MEAN_S:g} s on average"
    print(table(f"One endpoint, 64 at a time; {said}", head, list(one_endpoint(given.requests))))
    print(table(f"Sixteen endpoints, 256 at a time; {said}", head, list(sixteen_endpoints(given.requests))))


if __name__ == "__main__":
    main()
