"""A real OpenAI-compatible server on the loopback interface, with scripted failures; for tests and measurements.

    async with Loopback(script={0: Reply(status=429, headers={"Retry-After": "1"})}) as server:
        engine = await open_http(HttpEngineSpec(urls=(server.url,)))

As a process of its own, which prints its URL and serves until it is killed:

    python -m tests.loopback --latency-s 0.05 --script tests.faults.troubles:hang --log requests.txt
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import orjson
import pybase64
from aiohttp import web
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the server does with one request instead of answering it well.

    Attributes:
        status: HTTP status.
        body: Sent as it is; None sends the good answer.
        content_type: Of the body.
        headers: Further headers.
        delay_s: Waited before anything is sent.
        hang: Never answer.
        drop: Close the connection without a response.
        cut: Announce the whole body, send half of it, and close the connection.
        raw: Sent instead of an HTTP response; then the connection is closed.
        size_bytes: Send a body of this size, in blocks, without announcing it.
    """

    status: int = 200
    body: bytes | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    hang: bool = False
    drop: bool = False
    cut: bool = False
    raw: bytes = b""
    size_bytes: int = 0


Script = Mapping[int, Reply] | Callable[[int, dict[str, Any]], Reply | None]
"""What happens to the n-th request (from 0), by number or by a function of the number and the request; the others are
answered well."""


@dataclass(kw_only=True)
class Loopback:
    """A server on a free port, used as an asynchronous context manager.

    Attributes:
        model: The model that it serves.
        owned_by: Who it says owns the model; decides the dialect that a client finds.
        latency_s: Time that a good answer takes.
        script: What goes wrong.
        answer: The text of a good answer, from the request; the standard is a hash of the prompt's text.
        health: Status of /health.
        outage: What every route does, the list of models too; None leaves them in order.
        log: File that gets a line per chat request when it arrives: the hash of its body.
        card: Further fields of the model's entry in /v1/models.
        host: The address that it listens at.
        requests: The bodies of all chat requests, in order of arrival.
        headers: Their headers.
        peers: Client addresses: one for every connection that carried a chat request.
        peak: Most requests that were in flight at once.
        cancelled: Requests whose client went away before the answer.
    """

    model: str = "mock"
    owned_by: str = "lmdeploy"
    latency_s: float = 0.0
    script: Script = field(default_factory=dict)
    answer: Callable[[dict[str, Any]], str] | None = None
    health: int = 200
    outage: Reply | None = None
    log: Path | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    host: str = "127.0.0.1"
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    peers: set[Any] = field(default_factory=set)
    peak: int = 0
    cancelled: int = 0
    keep: bool = True
    _in_flight: int = 0
    _count: int = 0
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Listen; on the port that was given, to come back where it was before."""
        app = web.Application(client_max_size=256 * 2**20)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, port, backlog=4096)
        await site.start()
        address = self._runner.addresses[0]
        self.url = f"http://{self.host}:{address[1]}"

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def served(self) -> int:
        """Chat requests so far."""
        return self._count

    async def _models(self, request: web.Request) -> web.StreamResponse:
        if self.outage is not None:
            return await self._send(request, {"messages": []}, self.outage)
        card = {"id": self.model, "object": "model", "created": 0, "owned_by": self.owned_by, **self.card}
        return web.json_response({"object": "list", "data": [card]})

    async def _health(self, request: web.Request) -> web.StreamResponse:
        if self.outage is not None:
            return await self._send(request, {"messages": []}, self.outage)
        return web.Response(status=self.health)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        number = self._count
        self._count += 1
        self._in_flight += 1
        self.peak = max(self.peak, self._in_flight)
        try:
            body = orjson.loads(await request.read())
            if self.log is not None:
                with self.log.open("a") as file:
                    file.write(f"{_hash(body)}\n")
            if self.keep:
                self.requests.append(body)
                self.headers.append(dict(request.headers))
                self.peers.add(request.transport.get_extra_info("peername") if request.transport else None)
            reply = self.outage or (self.script(number, body) if callable(self.script) else self.script.get(number))
            return await self._send(request, body, reply)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self._in_flight -= 1

    async def _send(self, request: web.Request, body: dict[str, Any], reply: Reply | None) -> web.StreamResponse:
        if reply is None:
            await asyncio.sleep(self.latency_s)
            return web.Response(body=self._completion(body), content_type="application/json")
        await asyncio.sleep(3600 if reply.hang else reply.delay_s)
        content = self._completion(body) if reply.body is None else reply.body
        if reply.drop or reply.cut or reply.raw:
            if request.transport is None:
                raise ConnectionResetError
            request.transport.write(reply.raw)
            if reply.cut:
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
                request.transport.write(head.encode() + content[: len(content) // 2])
            request.transport.close()
            return web.Response()
        if reply.size_bytes:
            stream = web.StreamResponse(status=reply.status, headers=dict(reply.headers))
            await stream.prepare(request)
            block = b" " * 2**18
            for _ in range(reply.size_bytes // len(block)):
                await stream.write(block)
            return stream
        return web.Response(
            status=reply.status, body=content, content_type=reply.content_type, headers=dict(reply.headers)
        )

    def _completion(self, body: dict[str, Any]) -> bytes:
        text = self.answer(body) if self.answer is not None else default_answer(body)
        return completion(text, model=self.model, prompt_tokens=len(prompt_text(body)) // 4)


def completion(
    text: str | None, *, model: str = "mock", finish_reason: str | None = "stop", prompt_tokens: int = 7, **message: Any
) -> bytes:
    """Return the body of a chat completion."""
    return orjson.dumps(
        {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "finish_reason": finish_reason,
                    "message": {"role": "assistant", "content": text, **message},
                }
            ],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": 8,
                "total_tokens": prompt_tokens + 8,
                "prompt_tokens_details": {"cached_tokens": 3},
            },
        }
    )


def default_answer(body: dict[str, Any]) -> str:
    """Return the standard answer: a hash of the prompt's text, the same for the same prompt."""
    return "ANS:" + hashlib.sha1(prompt_text(body).encode()).hexdigest()[:12]


def prompt_text(body: dict[str, Any]) -> str:
    """Return the text of all messages of a chat request."""
    contents = [message["content"] for message in body["messages"]]
    return "\n".join(
        content or "" if isinstance(content, str | None) else "".join(part.get("text", "") for part in content)
        for content in contents
    )


def sent_series(body: dict[str, Any]) -> list[tuple[NDArray[np.float32], float]]:
    """Return the time series of a chat request, decoded as a server would: values and sampling rate."""
    found = []
    for message in body["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else []:
            if part["type"] == "time_series_url":
                url = part["time_series_url"]["url"]
                head, _, data = url.partition(",")
                if url.startswith("file://"):
                    values = np.load(url2pathname(urlsplit(url).path), allow_pickle=False)
                elif head == "data:application/octet-stream;base64":
                    values = np.load(io.BytesIO(pybase64.b64decode(data, validate=True)), allow_pickle=False)
                else:
                    raise ValueError(head)
                found.append((values, part["time_series_url"]["sampling_rate"]))
    return found


def hashed_answer(body: dict[str, Any]) -> str:
    """Return an answer in JSON that names the hash of the whole request, series and sampling included."""
    return orjson.dumps({"digest": _hash(body)}).decode()


def _hash(body: dict[str, Any]) -> str:
    return hashlib.sha1(orjson.dumps(body)).hexdigest()


def _imported(name: str | None) -> Any:
    if name is None:
        return None
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


async def _serve(given: argparse.Namespace) -> None:
    server = Loopback(
        latency_s=given.latency_s,
        script=_imported(given.script) or {},
        outage=_imported(given.outage),
        answer=_imported(given.answer),
        log=given.log,
        host=given.host,
        keep=False,
    )
    await server.start(given.port)
    print(server.url, flush=True)
    await asyncio.Event().wait()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency-s", type=float, default=0.05)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", help="module:function, see Script")
    parser.add_argument("--outage", help="module:Reply, what every route does")
    parser.add_argument("--answer", help="module:function, the text of a good answer")
    parser.add_argument("--log", type=Path, help="file for the hashes of the requests")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    _main()
