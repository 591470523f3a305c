"""A chat endpoint that answers after a fixed time and keeps count; runs as a process of its own.

It behaves as the server that the other tools were measured against: aiohttp, any number of requests at once, the
answer a hash of the prompt. `GET /stats` tells what it saw, `POST /reset` begins anew. It prints its URL.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web


@dataclass
class Seen:
    """What the server saw since the last reset."""

    requests: int = 0
    in_flight: int = 0
    peak: int = 0
    first: float | None = None
    last: float | None = None
    prompts: set[bytes] = field(default_factory=set)


class MockServer:
    """Answers chat requests.

    Args:
        latency_s: Time that an answer takes.
        tail_every: Every n-th request takes longer; 0: none does.
        tail_s: How long that one takes.
    """

    def __init__(self, latency_s: float, tail_every: int, tail_s: float) -> None:
        self._latency_s = latency_s
        self._tail_every = tail_every
        self._tail_s = tail_s
        self._seen = Seen()

    def application(self) -> web.Application:
        """Return the routes."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/stats", self._stats)
        app.router.add_post("/reset", self._reset)
        return app

    async def _chat(self, request: web.Request) -> web.Response:
        seen, now = self._seen, time.time()
        seen.first = seen.first or now
        seen.requests += 1
        number = seen.requests
        seen.in_flight += 1
        seen.peak = max(seen.peak, seen.in_flight)
        try:
            body = await request.json()
            is_tail = self._tail_every and number % self._tail_every == 0
            await asyncio.sleep(self._tail_s if is_tail else self._latency_s)
        finally:
            seen.in_flight -= 1
            seen.last = time.time()
        text = _text(body)
        digest = hashlib.sha1(text.encode()).digest()
        seen.prompts.add(digest)
        tokens = max(1, len(text) // 4)
        return web.json_response(
            {
                "id": "chatcmpl-0",
                "object": "chat.completion",
                "created": int(now),
                "model": "mock",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": f"ANS:{digest.hex()[:12]}"},
                    }
                ],
                "usage": {"prompt_tokens": tokens, "completion_tokens": 8, "total_tokens": tokens + 8},
            }
        )

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "mock", "object": "model", "owned_by": "mock"}]})

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _stats(self, request: web.Request) -> web.Response:
        seen = self._seen
        return web.json_response(
            {
                "requests": seen.requests,
                "peak": seen.peak,
                "first": seen.first,
                "last": seen.last,
                "distinct": len(seen.prompts),
            }
        )

    async def _reset(self, request: web.Request) -> web.Response:
        self._seen = Seen()
        return web.Response()


@dataclass(frozen=True)
class ServerProcess:
    """The server, seen from the harness."""

    url: str

    def reset(self) -> None:
        """Forget what was seen."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/reset", data=b""), timeout=10).close()

    def stats(self) -> dict[str, Any]:
        """Return what was seen."""
        with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def serving(*, latency_s: float = 0.05, tail_every: int = 0, tail_s: float = 2.0) -> Iterator[ServerProcess]:
    """Run the server in another process for the length of a block."""
    options = ["--latency-s", str(latency_s), "--tail-every", str(tail_every), "--tail-s", str(tail_s)]
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), *options], stdout=subprocess.PIPE, text=True
    )
    try:
        if process.stdout is None:
            raise RuntimeError("the server has no standard output")
        yield ServerProcess(process.stdout.readline().strip())
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _text(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


async def _serve(server: MockServer) -> None:
    runner = web.AppRunner(server.application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=8192).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency-s", type=float, default=0.05)
    parser.add_argument("--tail-every", type=int, default=0)
    parser.add_argument("--tail-s", type=float, default=2.0)
    given = parser.parse_args()
    asyncio.run(_serve(MockServer(given.latency_s, given.tail_every, given.tail_s)))
