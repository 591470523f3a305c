"""A chat endpoint that answers after a fixed time and keeps count; runs as a process of its own.

aiohttp, any number of requests at once, the answer a hash of the prompt. As it is told, every n-th request is slower,
or every n-th prompt is answered with an error. `GET /stats` tells what it saw, `POST /mark` remembers which prompts are
answered by now (asking them again is counted from then on), `POST /reset` begins anew. It prints its URL.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import resource
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from aiohttp import web

SMALLEST_QUESTION_BYTES = 256
"""No prompt of the measurements makes a smaller request."""


@dataclass
class Seen:
    """What the server saw since the last reset."""

    requests: int = 0
    in_flight: int = 0
    peak: int = 0
    failed: int = 0
    answers: int = 0
    first: float | None = None
    last: float | None = None
    cpu_s: float = field(default_factory=lambda: _cpu_s())
    asked: dict[bytes, int] = field(default_factory=dict)
    answered: set[bytes] = field(default_factory=set)
    marked: frozenset[bytes] = frozenset()
    again: int = 0

    def ask(self, digest: bytes) -> tuple[int, bool]:
        """Take note of a prompt; return its number in the order of their first requests, and whether this is one."""
        self.again += digest in self.marked
        is_first = digest not in self.asked
        return self.asked.setdefault(digest, len(self.asked) + 1), is_first


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How the server answers.

    Attributes:
        latency_s: Time that an answer takes.
        tail_every: Every n-th request takes longer; 0: none does.
        tail_s: How long that one takes.
        fail_every: Every n-th prompt, in the order of their first requests, gets an error; 0: none does.
        fail_status: HTTP status of the error. A client's error (4xx) comes whenever the prompt is asked, any other only
            the first time.
    """

    latency_s: float = 0.05
    tail_every: int = 0
    tail_s: float = 2.0
    fail_every: int = 0
    fail_status: int = 400

    def fails(self, number: int, is_first: bool) -> bool:
        """Whether the prompt of this number gets an error now."""
        return bool(self.fail_every) and number % self.fail_every == 0 and (is_first or self.fail_status < 500)

    def options(self) -> list[str]:
        """Return it as options of this script."""
        return [text for name in self.__slots__ for text in (f"--{name.replace('_', '-')}", str(getattr(self, name)))]


class MockServer:
    """Answers chat requests.

    Args:
        behaviour: How.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._seen = Seen()

    def application(self) -> web.Application:
        """Return the routes."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/stats", self._stats)
        app.router.add_post("/mark", self._mark)
        app.router.add_post("/reset", self._reset)
        return app

    async def _chat(self, request: web.Request) -> web.Response:
        seen, now = self._seen, time.time()
        if (request.content_length or 0) < SMALLEST_QUESTION_BYTES and not (await request.json()).get("messages"):
            # Some clients ask nothing first, only to see the headers of an answer: that is none of the prompts.
            return web.json_response({"error": {"message": "no messages"}}, status=400)
        seen.first = seen.first or now
        seen.requests += 1
        number = seen.requests
        seen.in_flight += 1
        seen.peak = max(seen.peak, seen.in_flight)
        try:
            body = await request.json()
            text = _text(body)
            digest = hashlib.sha1(text.encode()).digest()
            fails = self._behaviour.fails(*seen.ask(digest))
            is_tail = self._behaviour.tail_every and number % self._behaviour.tail_every == 0
            await asyncio.sleep(self._behaviour.tail_s if is_tail else self._behaviour.latency_s)
        finally:
            seen.in_flight -= 1
            seen.last = time.time()
        if fails:
            seen.failed += 1
            error = {"message": "an error on purpose", "type": "invalid_request_error"}
            return web.json_response({"error": error}, status=self._behaviour.fail_status)
        seen.answers += 1
        seen.answered.add(digest)
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
                "failed": seen.failed,
                "answers": seen.answers,
                "first": seen.first,
                "last": seen.last,
                "distinct": len(seen.asked),
                "again": seen.again,
                "cpu_s": _cpu_s() - seen.cpu_s,
            }
        )

    async def _mark(self, request: web.Request) -> web.Response:
        self._seen.marked = frozenset(self._seen.answered)
        return web.json_response({"answered": len(self._seen.marked)})

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

    def mark(self) -> int:
        """Remember which prompts are answered by now; return how many."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/mark", data=b""), timeout=10) as answer:
            return int(json.load(answer)["answered"])


@contextmanager
def serving(**behaviour: float) -> Iterator[ServerProcess]:
    """Run the server in another process for the length of a block; the arguments are fields of `Behaviour`."""
    command = [sys.executable, str(Path(__file__).resolve()), *Behaviour(**behaviour).options()]  # type: ignore[arg-type]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None:
            raise RuntimeError("the server has no standard output")
        yield ServerProcess(process.stdout.readline().strip())
    finally:
        process.terminate()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _text(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


async def _serve(server: MockServer) -> None:
    runner = web.AppRunner(server.application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=8192).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)  # whoever started it is gone
    await ended.wait()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for each in fields(Behaviour):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=type(each.default), default=each.default)
    asyncio.run(_serve(MockServer(Behaviour(**vars(parser.parse_args())))))
