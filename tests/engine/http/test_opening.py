"""What endpoints say of themselves when an engine opens, and what never leaves for elsewhere."""

from __future__ import annotations

import asyncio
import logging

import pytest

from s1batch.engine.http.opening import open_http
from s1batch.engine.http.retry import Backoff
from s1batch.engine.http.routing import Router
from s1batch.engine.http.spec import HttpEngineSpec
from s1batch.errors import EngineUnavailable, UsageError
from tests.engine.http.opened import answer_all, assert_answered, opened, questions
from tests.engine.http.requests import ask, series
from tests.loopback import Loopback, Reply, completion


async def test_opening_takes_model_dialect_and_context_from_the_endpoint() -> None:
    async with Loopback(model="big", owned_by="vllm", card={"max_model_len": 4096}) as server:
        async with opened(server, model_revision="abc") as engine:
            assert (engine.name, engine.model.name, engine.model.revision) == ("http:vllm", "big", "abc")
            assert (engine.resolved.dialect, engine.resolved.model) == ("vllm", "big")
            assert engine.rules.context_tokens == 4096
            refusal = engine.admit(ask("Pick.", series()))
            assert refusal is not None
            assert refusal.reason == "series_not_supported"
            refusal = engine.admit(ask(max_tokens=5000))
            assert refusal is not None
            assert refusal.reason == "context_too_long"
        async with opened(server, context_tokens=9000) as engine:
            assert engine.rules.context_tokens == 9000


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("lmdeploy", "lmdeploy"),
        ("sglang", "sglang"),
        ("llamacpp", "llama_cpp"),
        ("acme", "openai"),
        ("system", "openai"),
    ],
)
async def test_the_dialect_is_what_the_server_says_and_openai_when_it_says_nothing(owner: str, name: str) -> None:
    async with Loopback(owned_by=owner) as server, opened(server) as engine:
        assert engine.resolved.dialect == name


async def test_single_prefill_lifts_the_separation_of_series() -> None:
    request = ask("Pick.", series())
    async with Loopback() as server:
        async with opened(server) as engine:
            assert engine.batch_class(request) is not None
        async with opened(server, single_prefill=True) as engine:
            assert engine.batch_class(request) is None
            assert engine.rules.name == "lmdeploy_single_prefill"
    async with Loopback(owned_by="vllm") as server:
        with pytest.raises(UsageError, match="LMDeploy"):
            await open_http(HttpEngineSpec(urls=(server.url,), single_prefill=True))


async def test_endpoints_that_serve_different_models_are_refused_by_name() -> None:
    async with Loopback(model="a") as one, Loopback(model="b") as two:
        with pytest.raises(UsageError) as error:
            await open_http(HttpEngineSpec(urls=(one.url, two.url)))
        assert all(part in str(error.value) for part in (f"{one.url}: a", f"{two.url}: b"))
        with pytest.raises(UsageError, match=f"{two.url}: it serves b, not a"):
            await open_http(HttpEngineSpec(urls=(one.url, two.url), model="a"))
    async with Loopback(owned_by="vllm") as one, Loopback(owned_by="sglang") as two:
        with pytest.raises(UsageError, match="different servers"):
            await open_http(HttpEngineSpec(urls=(one.url, two.url)))


async def test_an_endpoint_that_is_down_at_the_start_joins_later_but_only_with_the_same_model() -> None:
    async with Loopback(latency_s=0.005) as up, Loopback() as down:
        port = down.port
        await down.stop()
        async with opened(up, down) as engine:
            assert_answered(await answer_all(engine, questions(5)), questions(5))
            down.model = "other"
            await down.start(port)
            await asyncio.sleep(0.5)
            assert_answered(await answer_all(engine, questions(20)), questions(20))
            assert down.served == 0
            down.model = "mock"
            async with asyncio.timeout(100):
                while down.served == 0:
                    await answer_all(engine, questions(10))
                    await asyncio.sleep(0.02)


async def test_nobody_there_at_the_start_is_said_at_once() -> None:
    async with Loopback() as server:
        url = server.url
    with pytest.raises(EngineUnavailable, match=url):
        await open_http(HttpEngineSpec(urls=(url,)))


# ------------------------------------------------------------------------------------------------- secrets, cancelling


async def test_the_key_reaches_the_server_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = "sk-very-secret-0123456789"
    monkeypatch.setenv("S1_TEST_KEY", key)
    caplog.set_level(logging.DEBUG)
    echo = f'{{"error":{{"message":"Incorrect API key provided: {key}"}}}}'.encode()
    replies = [
        Reply(status=401, body=echo),
        Reply(status=500, body=echo),
        Reply(body=key.encode()),
        Reply(status=500, body=b"x" * 190 + key.encode()),
        Reply(drop=True),
        Reply(raw=f"{key} is no HTTP\r\n\r\n".encode()),
        Reply(raw=f"HTTP/1.1 200 OK\r\n{key} : x\r\n\r\n".encode()),
        Reply(status=302, body=b"", headers={"Location": "http://127.0.0.1:9/steal"}),
    ]
    async with Loopback(script=lambda number, body: replies[number % len(replies)]) as server:
        spec = HttpEngineSpec(urls=(server.url,), api_key_env="S1_TEST_KEY")
        engine = await open_http(spec, backoff=Backoff(max_attempts=1), router=Router(spec.urls, eject_after=100))
        shown = [repr(engine), repr(engine.resolved), engine.resolved.model_dump_json(), engine.name]
        shown += [repr(await engine.answer(request)) for request in questions(len(replies))]
        await engine.aclose()
        assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {key}"}
    assert any("***" in text for text in shown)
    assert not [text for text in shown if key[:12] in text]
    assert key[:12] not in caplog.text


async def test_a_missing_key_is_a_usage_error_that_names_the_variable() -> None:
    with pytest.raises(UsageError, match="S1_NO_SUCH_KEY"):
        await open_http(HttpEngineSpec(urls=("http://127.0.0.1:9",), api_key_env="S1_NO_SUCH_KEY"))


async def test_no_cookie_is_sent_back_and_no_redirect_is_followed() -> None:
    async with Loopback() as thief:
        script = {
            0: Reply(body=completion("x"), headers={"Set-Cookie": "a=b"}),
            2: Reply(status=307, body=b"", headers={"Location": f"{thief.url}/v1/chat/completions"}),
        }
        async with Loopback(script=script) as server, opened(server, max_in_flight=1) as engine:
            responses = [await engine.answer(request) for request in questions(3)]
            assert not any("Cookie" in headers for headers in server.headers)
        assert thief.served == 0
    assert [response.error for response in responses] == [None, None, "bad_response"]
    assert "redirects are not followed" in responses[2].detail
