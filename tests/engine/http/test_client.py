"""The engine against real servers on the loopback interface, in every way that they fail."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from s1batch.engine.http.client import STREAK_LIMIT
from s1batch.engine.http.opening import open_http
from s1batch.engine.http.routing import Router
from s1batch.engine.http.spec import HttpEngineSpec
from s1batch.errors import EngineUnavailable
from s1batch.records import ModelIdentity
from tests.engine.http.opened import FAST, answer_all, assert_answered, opened, questions, until
from tests.engine.http.requests import ask, noise, series
from tests.loopback import Loopback, Reply, completion, sent_series

# ------------------------------------------------------------------------------------------------------ the good case


async def test_every_answer_belongs_to_its_question_and_connections_are_reused() -> None:
    requests = questions(300)
    first_ones = {number: Reply(delay_s=0.5) for number in range(8)}  # they meet
    async with Loopback(latency_s=0.001, script=first_ones) as server, opened(server, max_in_flight=8) as engine:
        responses = await answer_all(engine, requests)
        assert len(server.peers) <= 8
        assert server.peak == 8
    assert_answered(responses, requests)
    first = responses[0]
    assert (first.engine, first.model, first.attempts) == ("http:lmdeploy", "mock", 1)
    assert (first.cached_tokens, first.output_tokens, first.finish_reason) == (3, 8, "stop")
    assert 0 < first.seconds < 60


async def test_two_endpoints_share_the_work_and_the_slow_one_gets_less() -> None:
    requests = questions(200)
    async with (
        Loopback(latency_s=0.2) as slow,
        Loopback(latency_s=0.005) as fast,
        opened(slow, fast, max_in_flight=8) as engine,
    ):
        assert_answered(await answer_all(engine, requests), requests)
        assert slow.served + fast.served == 200
        assert 0 < slow.served < fast.served


@pytest.mark.parametrize(("steps", "channels"), [(49, 1), (6000, 3), (240_000, 3)])
async def test_the_server_gets_every_sample_of_a_series(steps: int, channels: int) -> None:
    request = ask("Pick.", series(steps, channels))
    async with Loopback() as server, opened(server) as engine:
        assert engine.admit(request) is None
        response = await engine.answer(engine.adapt(request))
        [(values, rate)] = sent_series(server.requests[0])
    assert response.error is None
    assert rate == 100
    np.testing.assert_array_equal(values, noise(steps, channels))


async def test_reasoning_is_kept_apart_from_the_answer() -> None:
    reply = Reply(body=completion("<think>hm</think>\n\nyes"))
    async with Loopback(script={0: reply}) as server, opened(server) as engine:
        response = await engine.answer(ask(thinking=True))
    assert (response.reasoning, response.text) == ("hm", "yes")


# ------------------------------------------------------------------------------------------------------ failure modes

FAILURES = {
    "error 500": Reply(status=500, body=b'{"object":"error","message":"boom","code":500}'),
    "error 503": Reply(status=503, body=b"overloaded", headers={"Retry-After": "0"}),
    "429": Reply(status=429, body=b'{"error":{"message":"slow down"}}', headers={"Retry-After": "0"}),
    "html": Reply(body=b"<html>proxy login</html>", content_type="text/html"),
    "garbage": Reply(body=b"\xff\xfe{]"),
    "error at 200": Reply(body=b'{"object":"error","message":"boom","code":500}'),
    "no choices": Reply(body=b'{"choices":[]}'),
    "dropped": Reply(drop=True),
    "cut": Reply(cut=True),
    "hang": Reply(hang=True),
    "not http": Reply(raw=b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "slow": Reply(delay_s=30.0),
    "too large": Reply(size_bytes=65 * 2**20),
}


@pytest.mark.parametrize("mode", list(FAILURES))
async def test_an_endpoint_that_fails_costs_no_answer_while_another_works(mode: str) -> None:
    requests = questions(30)
    async with (
        Loopback(script=lambda number, body: FAILURES[mode]) as bad,
        Loopback(latency_s=0.002) as good,
        opened(bad, good, timeout_s=1.0 if mode in ("hang", "slow") else 60.0, max_in_flight=6) as engine,
    ):
        responses = await answer_all(engine, requests)
        assert_answered(responses, requests)
        assert bad.served > 0
    assert any(response.attempts > 1 for response in responses)
    assert sum(response.attempts for response in responses) == bad.served + good.served


REASONS = {
    "error 500": "server_error",
    "429": "rate_limited",
    "html": "bad_response",
    "garbage": "bad_response",
    "error at 200": "server_error",
    "dropped": "connection",
    "cut": "connection",
    "not http": "bad_response",
    "hang": "deadline",
    "too large": "bad_response",
}


@pytest.mark.parametrize(("mode", "reason"), list(REASONS.items()))
async def test_a_request_that_always_fails_becomes_one_response_with_its_reason(mode: str, reason: str) -> None:
    def script(number: int, body: dict[str, Any]) -> Reply | None:
        return FAILURES[mode] if body["messages"][0]["content"] == "poison" else None

    requests = [*questions(20), ask("poison")]
    timeout_s = 0.8 if mode == "hang" else 60.0  # a busy machine needs its time for what is too large
    async with Loopback(script=script) as server, opened(server, timeout_s=timeout_s, max_in_flight=4) as engine:
        *good, bad = await answer_all(engine, requests)
    assert_answered(good, requests[:-1])
    assert (bad.error, bad.attempts, bad.finish_reason, bad.text) == (reason, 4, "error", "")
    assert server.url in bad.detail


@pytest.mark.parametrize(
    ("status", "reason"), [(400, "bad_request"), (401, "unauthorized"), (403, "unauthorized"), (404, "not_found")]
)
async def test_other_client_errors_are_asked_once_and_cost_their_own_row(status: int, reason: str) -> None:
    requests = questions(40)
    script = {number: Reply(status=status, body=b'{"error":{"message":"no"}}') for number in range(0, 40, 4)}
    async with Loopback(script=script) as server, opened(server, max_in_flight=1) as engine:
        responses = [await engine.answer(request) for request in requests]
        assert server.served == 40
    assert [response.error for response in responses] == [reason, None, None, None] * 10
    assert {response.attempts for response in responses} == {1}


async def test_a_failed_request_goes_to_another_endpoint() -> None:
    bad_reply = Reply(status=500, body=b"{}")
    async with (
        Loopback(script={0: bad_reply}) as one,
        Loopback(script={0: bad_reply}) as two,
        opened(one, two) as engine,
    ):
        response = await engine.answer(ask())
        assert (one.served, two.served) == (2, 1)
    assert (response.error, response.attempts) == (None, 3)


async def test_retry_after_keeps_every_request_away_for_that_long() -> None:
    limited = Reply(status=429, body=b"{}", headers={"Retry-After": "0.4"})
    times: list[float] = []

    def script(number: int, body: dict[str, Any]) -> Reply | None:
        times.append(time.monotonic())
        return limited if number == 0 else None

    requests = questions(5)
    async with Loopback(script=script) as server, opened(server, max_in_flight=1) as engine:
        responses = await answer_all(engine, requests)
    assert_answered(responses, requests)
    assert times[1] - times[0] >= 0.39


async def test_a_wait_past_the_deadline_is_not_waited() -> None:
    limited = Reply(status=429, body=b"{}", headers={"Retry-After": "3000"})
    async with Loopback(script={0: limited}) as server, opened(server, total_timeout_s=30.0) as engine:
        response = await asyncio.wait_for(engine.answer(ask()), 25)
    assert (response.error, response.attempts) == ("rate_limited", 1)


# ------------------------------------------------------------------------------------------------- endpoints that die


async def test_a_dead_endpoint_is_left_out_and_used_again_when_it_is_back() -> None:
    async with Loopback(latency_s=0.002) as steady, Loopback(latency_s=0.002) as shaky, opened(steady, shaky) as engine:
        requests = questions(20)
        assert_answered(await answer_all(engine, requests), requests)
        port = shaky.port
        await shaky.stop()
        assert_answered(await answer_all(engine, requests), requests)
        before = shaky.served
        await shaky.start(port)
        async with asyncio.timeout(100):
            while shaky.served == before:
                assert_answered(await answer_all(engine, requests), requests)
                await asyncio.sleep(0.02)


async def test_a_single_endpoint_may_restart_during_the_run() -> None:
    async with Loopback(latency_s=0.01) as server, opened(server, max_in_flight=8) as engine:
        requests = questions(120)
        asked = asyncio.create_task(answer_all(engine, requests))
        await until(lambda: server.served >= 20)
        port = server.port
        await server.stop()
        await asyncio.sleep(0.3)
        await server.start(port)
        assert_answered(await asked, requests)


async def test_the_run_ends_when_every_endpoint_is_dead() -> None:
    async with Loopback() as one, Loopback() as two, opened(one, two, unavailable_after_s=0.3) as engine:
        await one.stop()
        await two.stop()
        results = await asyncio.gather(*(engine.answer(each) for each in questions(12)), return_exceptions=True)
        ends = [result for result in results if isinstance(result, EngineUnavailable)]
        assert ends
        assert all(one.url in end.detail and two.url in end.detail for end in ends)
        assert len(ends) == len(results), "no request was written off"


async def test_the_run_ends_when_an_endpoint_lives_but_answers_nobody() -> None:
    refused = Reply(status=401, body=b'{"error":{"message":"the key was revoked"}}')
    async with Loopback(script=lambda number, body: refused) as server, opened(server) as engine:
        written = [await engine.answer(request) for request in questions(STREAK_LIMIT - 1)]
        with pytest.raises(EngineUnavailable, match="the key was revoked"):
            await engine.answer(ask())
    assert {response.error for response in written} == {"unauthorized"}


async def test_answers_about_the_request_itself_never_end_the_run() -> None:
    filtered = Reply(body=completion("", finish_reason="content_filter"))
    refused = Reply(status=400, body=b"{}")
    async with (
        Loopback(script=lambda number, body: (filtered, refused)[number % 2]) as server,
        opened(server) as engine,
    ):
        responses = [await engine.answer(request) for request in questions(2 * STREAK_LIMIT)]
    assert [response.error for response in responses] == ["engine_error", "bad_request"] * STREAK_LIMIT


async def test_an_unhealthy_server_is_not_readmitted() -> None:
    async with Loopback() as server, opened(server, unavailable_after_s=0.5) as engine:
        server.health = 503
        server.script = lambda number, body: Reply(drop=True)
        with pytest.raises(EngineUnavailable, match="/health answers 503"):
            await engine.answer(ask())
        assert server.served == 3


# ------------------------------------------------------------------------------------------------------------ opening


async def test_a_cancelled_request_frees_its_place_and_tells_the_server() -> None:
    script = {0: Reply(hang=True), 1: Reply(hang=True)}
    async with Loopback(script=script) as server, opened(server, max_in_flight=2) as engine:
        hanging = [asyncio.create_task(engine.answer(request)) for request in questions(2)]
        await until(lambda: server.served == 2)
        for task in hanging:
            task.cancel()
        assert all(
            isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*hanging, return_exceptions=True)
        )
        assert_answered(await answer_all(engine, questions(10)), questions(10))
        await until(lambda: server.cancelled == 2)


async def test_no_more_is_in_flight_than_stated() -> None:
    async with Loopback(latency_s=0.005) as one, Loopback(latency_s=0.005) as two:
        async with opened(one, two, max_in_flight=6) as engine:
            await answer_all(engine, questions(100))
        assert one.peak + two.peak <= 7
        assert max(one.peak, two.peak) <= 6


async def test_a_patient_engine_opens_before_its_endpoint_works_and_names_the_model_as_it_is_told() -> None:
    server = Loopback(model="/models/tiny")
    await server.start()
    spec = HttpEngineSpec(urls=(server.url,), model="/models/tiny", dialect="vllm")
    port = server.port
    await server.stop()
    with pytest.raises(EngineUnavailable, match="no endpoint answers"):
        await open_http(spec)
    router = Router(spec.urls, probe_base_s=0.05, probe_cap_s=0.2)
    engine = await open_http(spec, backoff=FAST, router=router, identity=ModelIdentity(name="tiny"), patient=True)
    try:
        answering = asyncio.create_task(engine.answer(ask("question")))
        await server.start(port)
        assert_answered([await answering], [ask("question")])
        assert engine.model.name == "tiny"
    finally:
        await engine.aclose()
        await server.stop()
