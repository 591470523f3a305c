"""Claims about `s1batch.engine.feeder`, all in virtual time on a real event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.engine.feeder import UNWIND_S, Fed, Feeder, FeederStats
from s1batch.engine.replay import ReplayEngine
from s1batch.errors import EngineError, EngineUnavailable, Interrupted
from s1batch.records import Reason, Request, Response
from tests.engine.build import MODEL, text_request
from tests.engine.virtual_loop import run_virtually


class LetterEngine(ReplayEngine):
    """The batching class is the text's first letter; a dash goes with everybody."""

    def batch_class(self, request: Request) -> Hashable | None:
        letter = request.text[0]
        return None if letter == "-" else letter


@dataclass(frozen=True)
class Fate:
    """How a call ends, and how long that takes."""

    seconds: float = 1.0
    end: str = "ok"  # ok, error, bug, gone, stubborn (ok, and does not let itself be cancelled)


class Script:
    """An engine's function that does what the fates say and watches what is in flight."""

    def __init__(self, fates: dict[str, Fate], most: int) -> None:
        self.fates = fates
        self.most = most
        self.live: Counter[str] = Counter()  # texts of calls in the engine
        self.wanted: Counter[str] = Counter()  # of those, not cancelled
        self.started: list[str] = []
        self.answered: set[str] = set()
        self.faults: list[str] = []

    async def __call__(self, request: Request) -> Response:
        text = request.text
        if self.wanted[text] or text in self.answered:
            self.faults.append(f"{text} asked again while alive or cached")
        self.live[text] += 1
        self.wanted[text] += 1
        self.started.append(text)
        classes = {each[0] for each, count in self.live.items() if count and each[0] != "-"}
        if len(classes) > 1:
            self.faults.append(f"classes {classes} met")
        if self.live.total() > self.most:
            self.faults.append(f"{self.live.total()} in flight")
        fate = self.fates.get(text, Fate())
        try:
            await asyncio.sleep(fate.seconds)
            self.wanted[text] -= 1
        except asyncio.CancelledError:
            self.wanted[text] -= 1
            if fate.end != "stubborn":
                raise
            await asyncio.sleep(fate.seconds)
        finally:
            self.live[text] -= 1
        if fate.end == "error":
            return Response(
                fingerprint=request.fingerprint, finish_reason="error", error="server_error", detail="as told"
            )
        if fate.end == "bug":
            raise ZeroDivisionError("as told")
        if fate.end == "gone":
            raise EngineUnavailable("connection", "as told")
        self.answered.add(text)
        return Response(fingerprint=request.fingerprint, text=text, prompt_tokens=10, output_tokens=3)


def feeder_of(script: Script, *, switch_after_requests: int | None = None, cache_entries: int = 1000) -> Feeder:
    return Feeder(
        LetterEngine(script, model=MODEL),
        max_in_flight=script.most,
        cache_entries=cache_entries,
        cache_bytes=1 << 20,
        switch_after_requests=switch_after_requests,
        switch_after_s=20.0,
    )


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
