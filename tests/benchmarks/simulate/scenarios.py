"""The tables of docs/performance.md: worlds that differ in one thing each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.simulate.run import Setup
from tests.benchmarks.simulate.service import Service, measured, with_stragglers

MEASURED = Path(__file__).parent / "measured_reference.json"
"""Times of the embedded reference engine, with where they were measured."""

Scenario = tuple[str, Setup]

HOUR_S = 3600.0

ENGINES = 64
FEWER = 16

ORDINARY = Setup(engines=ENGINES, service=Service(kind="lognormal", sigma=0.5, stragglers=0.01), fail_every_s=HOUR_S)
"""64 engines of 16 slots, lognormal times of 20 s with 1 % stragglers of ten times as much, and a failure an hour."""


def sizes(requests: int) -> Iterator[Scenario]:
    """Clusters of different sizes, with as many requests for each engine."""
    for engines in (1, 4, 16, ENGINES):
        setup = replace(ORDINARY, engines=engines, requests=max(requests * engines // ENGINES, 1))
        yield f"{engines} engine{'s' if engines > 1 else ''}, {setup.requests:,} requests", setup


def times(requests: int) -> Iterator[Scenario]:
    """Other distributions of the times."""
    ordinary = replace(ORDINARY, engines=FEWER, requests=requests)
    yield "constant", replace(ordinary, service=Service(kind="constant"))
    yield "lognormal 0.5", replace(ordinary, service=Service())
    yield "lognormal 0.5, 1 % stragglers", ordinary
    yield "the same, a request alone 2 x as fast", replace(ordinary, batching=2.0)
    yield "lognormal 1, 1 % stragglers", replace(ordinary, service=Service(sigma=1.0, stragglers=0.01))
    yield "exponential, 1 % stragglers", replace(ordinary, service=Service(kind="exponential", stragglers=0.01))
    yield "measured, 1 % stragglers", replace(ordinary, service=with_stragglers(measured(MEASURED), 0.01, 10.0))


def losses(requests: int) -> Iterator[Scenario]:
    """What goes wrong: engines that fail, and clients that end."""
    ordinary = replace(ORDINARY, engines=FEWER, requests=requests, fail_every_s=None)
    often = HOUR_S / 2
    yield "nothing", ordinary
    yield "each engine fails every half hour", replace(ordinary, each_fails_every_s=often)
    yield "each engine's node vanishes every half hour", replace(ordinary, each_fails_every_s=often, silent=True)
    yield "one engine 10 x slower", replace(ordinary, slow={5: 10.0})
    yield "4 clients", replace(ordinary, clients=4)
    yield "4 clients, limits of half an hour", replace(ordinary, clients=4, walltime_s=often)
    yield "4 clients, each killed every half hour", replace(ordinary, clients=4, preempt_every_s=often)


def shapes(requests: int) -> Iterator[Scenario]:
    """Series of different shapes, which exclude one another in an engine."""
    alone = Setup(requests=requests, engines=1, slots=64, service=Service(), in_flight=64)
    for number in (1, 2, 4):
        yield f"1 engine of 64 slots, {_shapes(number)}", replace(alone, shapes=number)
    yield "1 engine of 64 slots, 4 shapes, lognormal 1", replace(alone, shapes=4, service=Service(sigma=1.0))
    many = Setup(requests=requests, engines=16, service=Service())
    dies = {3: [(requests * 20.0 / 256 / 3, float("inf"))]}
    for number in (1, 4):
        yield f"16 engines, {_shapes(number)}", replace(many, shapes=number)
        yield (
            f"16 engines, {_shapes(number)}, one dies, one 10 x slower",
            replace(many, shapes=number, slow={5: 10.0}, given_outages=dies),
        )


def _shapes(number: int) -> str:
    return f"{number} shape{'s' if number > 1 else ''}"


TABLES: dict[str, tuple[str, Callable[[int], Iterator[Scenario]]]] = {
    "sizes": ("Lognormal times, 1 % stragglers, a failure an hour among all engines", sizes),
    "times": (f"{FEWER} engines, a failure an hour among all of them", times),
    "losses": (f"{FEWER} engines, lognormal times, 1 % stragglers; what goes wrong", losses),
    "shapes": ("Series of different shapes, lognormal times without stragglers", shapes),
}
