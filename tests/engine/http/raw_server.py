"""Servers on the loopback interface that do single things right or wrong, byte for byte."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from s1batch.engine.http.connection import LARGE_BODY_BYTES
from s1batch.engine.http.http_client import HttpClient
from s1batch.engine.http.wire import Reply, Route

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LARGE = b"x" * (16 * LARGE_BODY_BYTES)


@dataclass
class Visit:
    """One connection, at the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> tuple[bytes, bytes]:
        """Return head and body of the next request."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:"))
        return head, await self.reader.readexactly(length)

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """End the connection as a machine does that knows nothing of it."""
        plug = self.writer.get_extra_info("socket")
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Visit], Coroutine[None, None, None]]


@dataclass
class Server:
    """A server that treats its visits as it was told.

    Attributes:
        port: Where it listens.
        visits: How many connections it has had.
        left: Set whenever a client closes a connection, or a behaviour ends.
    """

    port: int = 0
    visits: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)

    def route(self, host: str = "127.0.0.1", scheme: str = "http") -> Route:
        return Route.of(f"{scheme}://{host}:{self.port}/v1/chat/completions")


@asynccontextmanager
async def serving(
    behaviour: Behaviour, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """Treat each connection with `behaviour`, which sees the end of its client as an error of the stream."""
    server = Server()
    tasks: set[asyncio.Task[None]] = set()

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(behaviour(Visit(reader, writer)))
        tasks.add(task)
        server.visits += 1
        try:
            await task
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            server.left.set()
            tasks.discard(task)

    listening = await asyncio.start_server(visit, host, 0, ssl=tls, limit=2**20)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def post(client: HttpClient, route: Route, body: bytes = b"{}", timeout_s: float = 100.0) -> Reply:
    head = route.head("POST", {"Authorization": "Bearer sk-secret"}) + b"Content-Length: %d\r\n\r\n" % len(body)
    return await client.send(route, head, body, timeout_s=timeout_s, largest=1000)


async def always_ok(visit: Visit) -> None:
    while True:
        await visit.request()
        await visit.say(OK)
