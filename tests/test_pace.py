"""Nothing is asked whose answer would come after the end, as far as earlier answers tell."""

from __future__ import annotations

import asyncio

import pytest

from s1batch.deadline import Deadline
from s1batch.engine.replay import ReplayEngine
from s1batch.errors import OutOfTime
from s1batch.pace import Pace, PacedEngine
from s1batch.records import ModelIdentity, Request
from tests.engine.http.requests import ask


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def called(pace: Pace, clock: Clock, seconds: float, *, answered: bool = True) -> None:
    number = pace.begin()
    clock.now += seconds
    pace.end(number, answered=answered)


def test_before_anything_was_answered_a_call_fits_until_the_end():
    clock = Clock()
    pace = Pace(Deadline(1010.0), clock)
    assert pace.fits()
    clock.now = 1010.0
    assert not pace.fits()


def test_calls_as_slow_as_the_last_ones_must_end_in_time():
    clock = Clock()
    pace = Pace(Deadline(1100.0), clock)
    for _ in range(4):
        called(pace, clock, 20.0)
    assert (clock.now, pace.expected_s, pace.fits()) == (1080.0, 20.0, False)


def test_one_straggler_in_a_hundred_does_not_end_an_allocation_early():
    clock = Clock()
    pace = Pace(Deadline(100_000.0), clock)
    called(pace, clock, 3600.0)
    for _ in range(99):
        called(pace, clock, 1.0)
    assert pace.expected_s == 1.0


def test_what_failed_says_nothing_about_the_pace():
    clock = Clock()
    pace = Pace(Deadline(2000.0), clock)
    called(pace, clock, 300.0, answered=False)
    assert pace.expected_s == 0.0


def test_the_oldest_call_is_the_pace_until_one_has_ended():
    clock = Clock()
    pace = Pace(Deadline(1100.0), clock)
    pace.begin()
    clock.now += 40
    pace.begin()
    clock.now += 15
    assert (pace.expected_s, pace.fits()) == (55.0, False)


async def test_a_request_that_comes_too_late_is_not_asked():
    asked: list[str] = []

    def answer(request: Request) -> str:
        asked.append(request.text)
        return "{}"

    clock, late = Clock(), []
    engine = PacedEngine(
        ReplayEngine(answer, model=ModelIdentity(name="x")),
        Pace(Deadline(1010.0), clock),
        lambda: late.append(clock.now),
    )
    assert (await engine.answer(ask("one"))).text == "{}"
    clock.now = 1011.0
    with pytest.raises(OutOfTime, match="run again to go on"):
        await engine.answer(ask("two"))
    await asyncio.sleep(0)
    assert (asked, late) == (["one"], [1011.0])
