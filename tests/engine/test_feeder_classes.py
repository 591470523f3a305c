"""Batching classes: none meets another in flight, and none starves."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.engine.feeder_stats import FeederStats
from tests.engine.build import text_request
from tests.engine.scripted import Fate, Script, feeder_of
from tests.engine.virtual_loop import run_virtually


@settings(max_examples=60, deadline=None)
@given(
    order=st.permutations([f"{letter}{number}" for letter in "-ABCD" for number in range(12)]), turn=st.integers(1, 6)
)
def test_no_class_starves_another_beyond_its_turn(order: list[str], turn: int) -> None:
    """While a class waits for its turn, each other class sends at most `switch_after_requests` requests."""
    script = Script({}, most=3)

    async def everybody() -> None:
        feeder = feeder_of(script, switch_after_requests=turn)
        await asyncio.gather(*(feeder.answer(text_request(text)) for text in order))

    run_virtually(everybody())
    assert script.faults == []
    for letter in "ABCD":
        overtaken = Counter[str]()
        left = 12
        for text in script.started:
            if text[0] == letter:
                overtaken.clear()
                left -= 1
            elif text[0] != "-" and left:
                overtaken[text[0]] += 1
                assert max(overtaken.values()) <= turn


def test_a_class_that_arrives_without_end_lets_another_in_after_the_stated_time() -> None:
    uneven = {f"A{name}-{round_}": Fate(1 + name / 10) for name in range(4) for round_ in range(100)}
    script = Script(uneven, most=4)

    async def everybody() -> float:
        feeder = feeder_of(script, switch_after_requests=10**9)
        loop = asyncio.get_running_loop()

        async def client(name: int) -> None:
            for round_ in range(100):
                await feeder.answer(text_request(f"A{name}-{round_}"))

        async with asyncio.TaskGroup() as group:
            for name in range(4):
                group.create_task(client(name))
            await asyncio.sleep(5)
            asked = loop.time()
            await feeder.answer(text_request("B"))
            return loop.time() - asked

    waited = run_virtually(everybody())
    assert script.faults == []
    assert 19 < waited < 24  # switch_after_s is 20; one call to run out, one for itself


def test_a_class_ends_before_the_next_one_begins_where_they_come_one_after_the_other() -> None:
    """However long the first one takes, what came before the other began to wait is not put off behind it."""
    script = Script({f"A{i}": Fate(15.0 + i % 7) for i in range(30)}, most=4)

    async def everybody() -> FeederStats:
        feeder = feeder_of(script)
        await asyncio.gather(*(feeder.answer(text_request(f"{'AB'[i >= 30]}{i % 30}")) for i in range(60)))
        return feeder.stats

    assert run_virtually(everybody()).switches == 1
    assert [text[0] for text in script.started] == ["A"] * 30 + ["B"] * 30


def test_mixed_classes_keep_the_engine_full() -> None:
    """600 requests of three classes that arrive one by one run with 90 % of the slots in use, in few turns."""
    script = Script({}, most=10)

    async def everybody() -> FeederStats:
        feeder = feeder_of(script)
        await asyncio.gather(*(feeder.answer(text_request(f"{'ABC'[i % 3]}{i}")) for i in range(600)))
        return feeder.stats

    stats = run_virtually(everybody())
    assert script.faults == []
    assert stats.slot_seconds / stats.busy_seconds > 9
    assert stats.switches < 12


def test_requests_without_a_class_fill_the_slots_while_a_class_runs_out() -> None:
    script = Script({"A0": Fate(10.0), "A1": Fate(1.0)}, most=2)

    async def everybody() -> None:
        feeder = feeder_of(script)
        await asyncio.gather(*(feeder.answer(text_request(text)) for text in ("A0", "A1", "B0", "-0", "-1")))

    run_virtually(everybody())
    assert script.started == ["A0", "A1", "-0", "-1", "B0"]
    assert script.faults == []


def test_within_a_class_the_order_is_that_of_arrival() -> None:
    script = Script({}, most=3)

    async def everybody() -> None:
        feeder = feeder_of(script)
        await asyncio.gather(*(feeder.answer(text_request(f"A{i}")) for i in range(40)))

    run_virtually(everybody())
    assert script.started == [f"A{i}" for i in range(40)]
