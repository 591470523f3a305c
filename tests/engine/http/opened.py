"""Engines opened over loopback servers, and what they are asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from s1batch.engine.base import Engine
from s1batch.engine.http.client import HttpEngine
from s1batch.engine.http.opening import open_http
from s1batch.engine.http.retry import Backoff
from s1batch.engine.http.routing import Router
from s1batch.engine.http.spec import HttpEngineSpec
from s1batch.records import Request, Response
from tests.engine.http.requests import ask
from tests.loopback import Loopback, default_answer

FAST = Backoff(max_attempts=4, base_s=0.01, cap_s=0.05)


@asynccontextmanager
async def opened(*servers: Loopback, backoff: Backoff = FAST, **fields: Any) -> AsyncIterator[HttpEngine]:
    """Open an engine over the servers, with short waits."""
    spec = HttpEngineSpec(urls=tuple(server.url for server in servers), **fields)
    engine = await open_http(spec, backoff=backoff, router=Router(spec.urls, probe_base_s=0.05, probe_cap_s=0.2))
    try:
        yield engine
    finally:
        await engine.aclose()


async def answer_all(engine: Engine, requests: Sequence[Request]) -> list[Response]:
    return await asyncio.gather(*(engine.answer(request) for request in requests))


def questions(count: int) -> list[Request]:
    return [ask(f"question {number}") for number in range(count)]


def expected(text: str) -> str:
    return default_answer({"messages": [{"content": text}]})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(100):
        while not condition():  # noqa: ASYNC110  the server under test has no events
            await asyncio.sleep(0.01)


def assert_answered(responses: Sequence[Response], requests: Sequence[Request]) -> None:
    for response, request in zip(responses, requests, strict=True):
        assert response.error is None, response.detail
        assert response.text == expected(request.text)
        assert response.fingerprint == request.fingerprint
