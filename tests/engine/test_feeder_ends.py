"""How feeding ends: an engine that is gone, a drain, a bound that changes, a run that is left."""

from __future__ import annotations

import asyncio

import pytest

from s1batch.engine.feeder import UNWIND_S, Fed
from s1batch.errors import EngineUnavailable, Interrupted
from tests.engine.build import text_request
from tests.engine.scripted import Fate, Script, feeder_of
from tests.engine.virtual_loop import run_virtually


def test_what_the_engine_raises_reaches_every_waiter_and_no_other_request() -> None:
    script = Script({"-x": Fate(end="bug")}, most=2)

    async def everybody() -> list[Fed | BaseException]:
        feeder = feeder_of(script)
        texts = ("-x", "-x", "-y")
        return await asyncio.gather(*(feeder.answer(text_request(text)) for text in texts), return_exceptions=True)

    first, second, other = run_virtually(everybody())
    assert isinstance(first, ZeroDivisionError)
    assert isinstance(second, ZeroDivisionError)
    assert isinstance(other, Fed)


def test_an_engine_that_is_gone_ends_everything_and_takes_nothing_more() -> None:
    script = Script({"-x": Fate(2.0, "gone"), "-slow": Fate(100.0), "-stuck": Fate(100.0, "stubborn")}, most=3)

    async def everybody() -> tuple[list[Fed | BaseException], float]:
        feeder = feeder_of(script)
        texts = ("-x", "-slow", "-stuck", "-waits", "Awaits", "-x")
        outcomes = await asyncio.gather(*(feeder.answer(text_request(text)) for text in texts), return_exceptions=True)
        ended = asyncio.get_running_loop().time()
        with pytest.raises(EngineUnavailable, match="as told"):
            await feeder.answer(text_request("-new"))
        assert feeder.stats.waiting == 0
        return outcomes, ended

    outcomes, ended = run_virtually(everybody())
    assert [type(outcome) for outcome in outcomes] == [EngineUnavailable] * 6
    assert ended == 2.0
    assert script.started == ["-x", "-slow", "-stuck"]


def test_an_answer_that_arrives_with_the_end_of_the_engine_is_not_lost() -> None:
    script = Script({"-x": Fate(2.0, "gone"), "-y": Fate(2.0)}, most=2)

    async def everybody() -> list[Fed | BaseException]:
        feeder = feeder_of(script)
        asked = (feeder.answer(text_request(text)) for text in ("-x", "-y"))
        return await asyncio.gather(*asked, return_exceptions=True)

    gone, answered = run_virtually(everybody())
    assert isinstance(gone, EngineUnavailable)
    assert isinstance(answered, Fed)


def test_the_bound_follows_the_share_of_the_endpoints_while_calls_are_in_flight() -> None:
    """More workers: what is in flight goes on, and nothing begins before it has shrunk; fewer: calls begin at once."""
    script = Script({}, most=4)

    async def everybody() -> list[tuple[float, int]]:
        feeder = feeder_of(script)
        tasks = [asyncio.create_task(feeder.answer(text_request(f"-{number}"))) for number in range(12)]
        seen = []
        for after, most in ((0.5, 2), (1.0, 2), (1.0, 4), (0.1, 4)):
            await asyncio.sleep(after)
            seen.append((asyncio.get_running_loop().time(), feeder.stats.in_flight))
            feeder.resize(most)
        await asyncio.gather(*tasks)
        return seen

    assert run_virtually(everybody()) == [(0.5, 4), (1.5, 2), (2.5, 2), (2.6, 4)]
    assert script.faults == []


def test_draining_lets_what_is_in_flight_end_and_cuts_off_the_rest() -> None:
    script = Script({"-quick": Fate(3.0), "-slow": Fate(500.0)}, most=2)

    async def everybody() -> tuple[list[Fed | BaseException], int, float]:
        feeder = feeder_of(script)
        tasks = [asyncio.create_task(feeder.answer(text_request(text))) for text in ("-quick", "-slow", "-waits")]
        await asyncio.sleep(1)
        feeder.stop()
        with pytest.raises(Interrupted, match="run again"):
            await feeder.answer(text_request("-new"))
        cut = await feeder.drain(10.0)
        ended = asyncio.get_running_loop().time()
        return await asyncio.gather(*tasks, return_exceptions=True), cut, ended

    (quick, slow, waits), cut, ended = run_virtually(everybody())
    assert isinstance(quick, Fed)
    assert isinstance(slow, Interrupted)
    assert isinstance(waits, Interrupted)
    assert (cut, ended) == (1, 11.0)
    assert script.started == ["-quick", "-slow"]


def test_draining_ends_even_when_the_engine_holds_on_to_its_calls() -> None:
    script = Script({"-stuck": Fate(500.0, "stubborn")}, most=2)

    async def everybody() -> float:
        feeder = feeder_of(script)
        task = asyncio.create_task(feeder.answer(text_request("-stuck")))
        await asyncio.sleep(1)
        await feeder.drain(2.0)
        ended = asyncio.get_running_loop().time()
        with pytest.raises(Interrupted):
            await task
        await asyncio.sleep(1000)
        return ended

    assert run_virtually(everybody()) == 1 + 2 + UNWIND_S


def test_cancelling_the_drain_cancels_what_is_in_flight_at_once() -> None:
    script = Script({"-slow": Fate(500.0)}, most=2)

    async def everybody() -> float:
        feeder = feeder_of(script)
        task = asyncio.create_task(feeder.answer(text_request("-slow")))
        await asyncio.sleep(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await feeder.drain(100.0)
        with pytest.raises(Interrupted):
            await task
        return asyncio.get_running_loop().time()

    assert run_virtually(everybody()) == 3.0


def test_leaving_the_context_stops_at_once() -> None:
    script = Script({"-slow": Fate(500.0)}, most=2)

    async def everybody() -> None:
        async with feeder_of(script) as feeder:
            task = asyncio.create_task(feeder.answer(text_request("-slow")))
            await asyncio.sleep(1)
        assert script.live.total() == 0
        with pytest.raises(Interrupted):
            await task

    run_virtually(everybody())
