"""Claims about `s1batch.engine.feeder`, all in virtual time on a real event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.engine.feeder import Fed, Feeder
from s1batch.engine.feeder_stats import FeederStats
from s1batch.engine.replay import ReplayEngine
from s1batch.errors import EngineError, EngineUnavailable, Interrupted
from s1batch.records import Reason, Request, Response
from tests.engine.build import MODEL, text_request
from tests.engine.scripted import Fate, Script, feeder_of
from tests.engine.virtual_loop import run_virtually


@dataclass(frozen=True)
class Arrival:
    """Somebody asks `text` at `at` seconds, and loses patience `patience` seconds later."""

    at: float
    text: str
    patience: float | None


TEXTS = [letter + digit for letter in "-ABC" for digit in "01234"]
arrivals = st.lists(
    st.builds(
        Arrival,
        at=st.integers(0, 12).map(float),
        text=st.sampled_from(TEXTS),
        patience=st.none() | st.none() | st.floats(0.0, 30.0, allow_subnormal=False),
    ),
    max_size=60,
)
fates = st.dictionaries(
    st.sampled_from(TEXTS),
    st.builds(
        Fate,
        seconds=st.sampled_from([0.0, 0.5, 3.0, 40.0]),
        end=st.sampled_from(["ok", "ok", "error", "stubborn", "bug", "gone"]),
    ),
)


@settings(max_examples=150, deadline=None)
@given(
    arrivals=arrivals,
    fates=fates,
    most=st.integers(1, 5),
    turn=st.integers(1, 4),
    stop_at=st.none() | st.sampled_from([0.0, 2.0, 7.0]),
    grace_s=st.sampled_from([0.0, 1.0, 60.0]),
)
def test_whatever_arrives_every_waiter_gets_one_outcome_and_no_rule_is_broken(
    arrivals: list[Arrival], fates: dict[str, Fate], most: int, turn: int, stop_at: float | None, grace_s: float
) -> None:
    """Never two classes in flight, never too many, no question asked twice, no deadlock, nobody left out, whether
    calls fail, the engine dies, waiters leave, or the run is stopped in the middle."""
    script = Script(fates, most)

    async def everybody() -> tuple[list[Fed | BaseException], FeederStats]:
        feeder = feeder_of(script, switch_after_requests=turn)

        async def one(arrival: Arrival) -> Fed:
            await asyncio.sleep(arrival.at)
            async with asyncio.timeout(arrival.patience):
                return await feeder.answer(text_request(arrival.text))

        async def stop() -> None:
            if stop_at is not None:
                await asyncio.sleep(stop_at)
                await feeder.drain(grace_s)

        stopper = asyncio.create_task(stop())
        outcomes = await asyncio.gather(*(one(arrival) for arrival in arrivals), return_exceptions=True)
        await stopper
        await feeder.drain(1000.0)
        await asyncio.sleep(1000.0)  # the stubborn ones end
        return outcomes, feeder.stats

    outcomes, stats = run_virtually(everybody())
    assert script.faults == []
    paid = Counter[str]()
    for arrival, outcome in zip(arrivals, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            assert (
                (isinstance(outcome, TimeoutError) and arrival.patience is not None)
                or (isinstance(outcome, ZeroDivisionError) and fates[arrival.text].end == "bug")
                or (isinstance(outcome, EngineUnavailable) and "gone" in {fate.end for fate in fates.values()})
                or (isinstance(outcome, Interrupted) and stop_at is not None)
            )
            continue
        assert outcome.response.fingerprint == text_request(arrival.text).fingerprint
        assert (outcome.response.attempts == 0) == outcome.shared
        assert outcome.response.text in ("", arrival.text)
        paid[arrival.text] += not outcome.shared
    assert all(count <= script.started.count(text) for text, count in paid.items())
    assert (stats.in_flight, stats.waiting) == (0, 0)
    # A call that is cancelled in the moment in which it is sent never reaches the engine's code.
    assert len(script.started) <= stats.sent <= len(script.started) + stats.cancelled
    assert stats.answered + stats.failed <= stats.sent <= stats.answered + stats.failed + stats.cancelled
    assert stats.busy_seconds <= stats.slot_seconds <= most * stats.busy_seconds + 1e-6


def test_identical_requests_are_sent_once_and_counted_once() -> None:
    script = Script({}, most=4)

    async def everybody() -> tuple[list[Fed], Fed, FeederStats]:
        feeder = feeder_of(script)
        together = await asyncio.gather(*(feeder.answer(text_request("-x")) for _ in range(5)))
        later = await feeder.answer(text_request("-x"))
        return together, later, feeder.stats

    together, later, stats = run_virtually(everybody())
    assert [fed.shared for fed in together] == [False, True, True, True, True]
    assert [fed.response.attempts for fed in (*together, later)] == [1, 0, 0, 0, 0, 0]
    assert later.shared
    assert (stats.sent, stats.shared, stats.prompt_tokens, stats.output_tokens) == (1, 5, 10, 3)


def test_what_an_earlier_run_received_is_not_sent_again() -> None:
    """Remembered responses cost nothing; the cache's bounds hold for them too, and the last ones stay."""
    script = Script({}, most=4)
    requests = [text_request(name) for name in ("-1", "-2", "-3")]

    async def everybody() -> tuple[list[Fed], FeederStats]:
        feeder = feeder_of(script, cache_entries=2)
        feeder.remember([Response(fingerprint=each.fingerprint, text="known", attempts=3) for each in requests])
        return [await feeder.answer(each) for each in reversed(requests)], feeder.stats

    fed, stats = run_virtually(everybody())
    assert [each.shared for each in fed] == [True, True, False]
    assert [each.response.attempts for each in fed] == [0, 0, 1]
    assert (stats.sent, script.started) == (1, ["-1"])


def test_failures_are_not_kept() -> None:
    script = Script({"-x": Fate(end="error")}, most=1)

    async def everybody() -> tuple[Fed, Fed]:
        feeder = feeder_of(script)
        first = await feeder.answer(text_request("-x"))
        script.fates.clear()
        return first, await feeder.answer(text_request("-x"))

    first, second = run_virtually(everybody())
    assert (first.response.error, second.response.error) == ("server_error", None)
    assert script.started == ["-x", "-x"]


def test_cancelling_one_waiter_leaves_the_call_and_cancelling_the_last_ends_it() -> None:
    script = Script({"-x": Fate(10.0)}, most=1)

    async def everybody() -> tuple[Fed, FeederStats]:
        feeder = feeder_of(script)
        waiters = [asyncio.create_task(feeder.answer(text_request("-x"))) for _ in range(3)]
        other = asyncio.create_task(feeder.answer(text_request("-y")))
        await asyncio.sleep(1)
        waiters[0].cancel()
        await asyncio.sleep(1)
        assert script.live["-x"] == 1
        waiters[1].cancel()
        fed = await waiters[2]
        script.fates["-z"] = Fate(1000.0)
        last = asyncio.create_task(feeder.answer(text_request("-z")))
        await asyncio.sleep(5)
        last.cancel()
        await asyncio.sleep(1)
        assert script.live["-z"] == 0
        assert (await other).response.text == "-y"
        return fed, feeder.stats

    fed, stats = run_virtually(everybody())
    assert not fed.shared  # the first waiter that is left pays
    assert stats.cancelled == 1
    assert stats.in_flight == 0


def test_a_request_that_is_cancelled_before_its_turn_is_never_sent() -> None:
    script = Script({}, most=1)

    async def everybody() -> FeederStats:
        feeder = feeder_of(script)
        tasks = [asyncio.create_task(feeder.answer(text_request(f"-{i}"))) for i in range(3)]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        await asyncio.wait(tasks)
        return feeder.stats

    assert run_virtually(everybody()).cancelled == 1
    assert script.started == ["-0", "-2"]


def test_a_class_goes_on_at_once_when_the_one_that_waited_for_its_turn_leaves() -> None:
    script = Script({"A0": Fate(100.0)}, most=3)

    async def everybody() -> float:
        feeder = feeder_of(script, switch_after_requests=1)
        first = asyncio.create_task(feeder.answer(text_request("A0")))
        await asyncio.sleep(1)
        other = asyncio.create_task(feeder.answer(text_request("B0")))
        second = asyncio.create_task(feeder.answer(text_request("A1")))
        third = asyncio.create_task(feeder.answer(text_request("A2")))
        await asyncio.sleep(1)
        assert script.started == ["A0", "A1"]
        other.cancel()
        await second
        await third
        ended = asyncio.get_running_loop().time()
        await first
        return ended

    assert run_virtually(everybody()) == 3.0
    assert script.started == ["A0", "A1", "A2"]


def test_an_answer_to_another_request_is_an_error_and_not_an_answer() -> None:
    wrong = Response(fingerprint="f" * 32, text="for somebody else")

    async def ask() -> Fed:
        feeder = Feeder(ReplayEngine(lambda _: wrong, model=MODEL), max_in_flight=1, cache_entries=9, cache_bytes=9999)
        return await feeder.answer(text_request("x"))

    response = run_virtually(ask()).response
    assert (response.error, response.text) == ("bad_response", "")
    assert "ffff" in response.detail


def test_an_engine_that_drops_a_request_by_itself_costs_that_request_only() -> None:
    async def drop(request: Request) -> str:
        if request.text == "drop":
            raise asyncio.CancelledError
        return "fine"

    async def ask() -> list[Fed | BaseException]:
        feeder = Feeder(ReplayEngine(drop, model=MODEL), max_in_flight=2, cache_entries=9, cache_bytes=9999)
        return await asyncio.gather(
            *(feeder.answer(text_request(text)) for text in ("drop", "keep")), return_exceptions=True
        )

    dropped, kept = run_virtually(ask())
    reason: Reason = "engine_error"
    assert isinstance(dropped, EngineError)
    assert dropped.reason == reason
    assert isinstance(kept, Fed)


def test_a_feeder_serves_one_loop_only() -> None:
    feeder = Feeder(ReplayEngine(lambda _: "yes", model=MODEL), max_in_flight=1, cache_entries=0, cache_bytes=0)
    run_virtually(feeder.answer(text_request("x")))
    with pytest.raises(RuntimeError, match="one event loop"):
        run_virtually(feeder.answer(text_request("y")))


@pytest.mark.parametrize("arguments", [{"max_in_flight": 0}, {"max_in_flight": 1, "switch_after_requests": 0}])
def test_bounds_that_would_block_everything_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Feeder(ReplayEngine(lambda _: "", model=MODEL), cache_entries=0, cache_bytes=0, **arguments)
