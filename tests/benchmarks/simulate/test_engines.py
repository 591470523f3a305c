"""Simulated servers compute what their model says, and lose what a failure takes."""

from __future__ import annotations

import asyncio

import pytest

from tests.benchmarks.simulate.engines import Job, SimulatedEngine, WrongEngineError
from tests.benchmarks.simulate.meter import Meter
from tests.engine.virtual_loop import run_virtually


def engine(slots: int, *, batching: float = 1.0, speed: float = 1.0, silent: bool = False) -> SimulatedEngine:
    return SimulatedEngine(slots=slots, batching=batching, speed=speed, latency_s=0.0, silent=silent, meter=Meter(100))


def ends(slots: int, jobs: list[tuple[float, float]], *, batching: float = 1.0, speed: float = 1.0) -> list[float]:
    """Return when requests end that come at the given times and take so long."""

    async def one(server: SimulatedEngine, number: int, at: float, seconds: float) -> float:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(at)
        job = Job(number, seconds, None, loop.create_future())
        server.take(job)
        await job.future
        return loop.time()

    async def everything() -> list[float]:
        server = engine(slots, batching=batching, speed=speed)
        return await asyncio.gather(*(one(server, number, *job) for number, job in enumerate(jobs)))

    return run_virtually(everything())


def test_what_finds_no_slot_waits_in_order():
    assert ends(1, [(0.0, 5.0), (1.0, 1.0), (2.0, 1.0)]) == pytest.approx([5.0, 6.0, 7.0])


def test_requests_in_different_slots_do_not_slow_one_another_down_unless_told_to():
    assert ends(4, [(0.0, 5.0), (1.0, 5.0), (2.0, 5.0)]) == pytest.approx([5.0, 6.0, 7.0])


def test_a_request_alone_is_faster_and_shares_with_those_that_come():
    # Alone at twice the speed until 2.5; both at speed 1 until 7.5; the second alone again.
    assert ends(2, [(0.0, 10.0), (2.5, 10.0)], batching=2.0) == pytest.approx([7.5, 10.0])


def test_a_slow_engine_takes_longer():
    assert ends(1, [(0.0, 5.0)], speed=0.1) == pytest.approx([50.0])


def test_a_failure_resets_what_runs_and_what_waits_and_counts_what_was_done():
    async def story() -> Meter:
        loop = asyncio.get_running_loop()
        meter = Meter(10)
        server = SimulatedEngine(slots=1, batching=1.0, speed=1.0, latency_s=0.0, silent=False, meter=meter)
        jobs = [Job(number, 10.0, None, loop.create_future()) for number in range(2)]
        for job in jobs:
            server.take(job)
        await asyncio.sleep(4.0)
        server.fail()
        for job in jobs:
            with pytest.raises(ConnectionResetError):
                await job.future
        with pytest.raises(WrongEngineError):
            server.take(Job(2, 1.0, None, loop.create_future()))
        server.come_back()
        last = Job(3, 1.0, None, loop.create_future())
        server.take(last)
        await last.future
        return meter

    meter = run_virtually(story())
    assert meter.lost_s == pytest.approx(4.0)
    assert (meter.starts, meter.started) == (2, 2)


def test_a_slot_whose_client_went_away_is_free_for_the_next():
    async def story() -> list[float]:
        loop = asyncio.get_running_loop()
        server = engine(1)
        first, second = (Job(number, 10.0, None, loop.create_future()) for number in range(2))
        server.take(first)
        server.take(second)
        await asyncio.sleep(3.0)
        server.drop(first)
        await second.future
        return [loop.time(), server._meter.lost_s]

    assert run_virtually(story()) == pytest.approx([13.0, 3.0])


def test_shapes_that_meet_are_noticed():
    async def story() -> int:
        loop = asyncio.get_running_loop()
        server = engine(4)
        for shape in (0, 0, 1):
            server.take(Job(shape, 1.0, shape, loop.create_future()))
        await asyncio.sleep(2.0)
        return server.met

    assert run_virtually(story()) == 1


def test_the_meter_knows_how_many_slots_computed_until_the_last_request_began():
    meter = Meter(2)
    meter.change(0.0, live=2)
    meter.start(0.0, 0)
    meter.start(10.0, 1)
    meter.change(12.0, busy=-2)
    meter.advance(20.0)
    assert [meter.utilisation, meter.last_start_s, meter.not_full_s] == pytest.approx([0.5, 10.0, 18.0])
