"""A client of HTTP/1.1 for many requests to few servers: connections that are kept, and nothing that is not needed.

No redirects, cookies, proxies or sessions. A general client (aiohttp) took 200 to 265 us of CPU for a small request and
its response, most of what a row costs; this one takes about 50.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import defaultdict, deque
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from s1batch.engine.http.connection import Connection, LostConnectionError
from s1batch.engine.http.wire import Reply, Route

KEEP_ALIVE_S = 4.0
"""Idle connections are closed after this: before uvicorn, which most of these servers run on, closes them at 5 s."""

VANISHED_AFTER_S = 60
"""A server whose machine says nothing for so long, not even to the system's keep-alive probes, is gone: a node without
power resets no connection, and its requests would wait for their timeouts."""

FIRST_PROBE_S = 20
PROBES = 4

KNOWN_ADDRESSES_S = 300.0
"""How long the addresses of a name are believed."""

_Address = tuple[socket.AddressFamily, Any]


class NoConnectionError(OSError):
    """No connection could be made."""


class HttpClient:
    """Sends requests over pooled connections; an asynchronous context manager that belongs to one event loop.

    It bounds no number of connections: there are as many as requests at once.

    Args:
        connect_timeout_s: Deadline of making a connection to one address, encryption included.
        verify_tls: Whether certificates are checked.
    """

    def __init__(self, *, connect_timeout_s: float = 10.0, verify_tls: bool = True) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._verify_tls = verify_tls
        self._context: ssl.SSLContext | None = None
        self._idle: defaultdict[tuple[str, int, bool], list[Connection]] = defaultdict(list)
        self._busy: set[Connection] = set()
        self._addresses: dict[tuple[str, int], asyncio.Task[deque[_Address]]] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        looking = list(self._addresses.values())
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)
        for connection in (*self._busy, *(each for idle in self._idle.values() for each in idle)):
            connection.close()
        self._idle.clear()
        await asyncio.sleep(0)  # transports close their sockets in the loop's next round

    async def get(self, url: str, headers: Mapping[str, str], *, timeout_s: float, largest: int) -> Reply:
        """Return the response to a GET; raises as `send` does.

        A GET asks for nothing that happens twice, so one that was lost is sent once more. Some servers close a kept
        connection without a word: uvicorn does behind an error of the application.
        """
        route = Route.of(url)
        head = route.head("GET", headers) + b"\r\n"
        try:
            return await self.send(route, head, b"", timeout_s=timeout_s, largest=largest)
        except LostConnectionError:
            return await self.send(route, head, b"", timeout_s=timeout_s, largest=largest)

    async def send(self, route: Route, head: bytes, body: bytes, *, timeout_s: float, largest: int) -> Reply:
        """Send a request and return its response.

        Args:
            route: Where to.
            head: Request line and headers, with the empty line behind them.
            body: What follows.
            timeout_s: Deadline of the whole.
            largest: Most bytes of the response's body.

        Raises:
            TimeoutError: There was no complete response in time.
            NoConnectionError: No connection could be made.
            LostConnectionError: The connection broke; also a kept one that the server closed in the same moment.
            InvalidResponseError: What came back is no HTTP.
            ResponseTooLargeError: The response is too large.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        connection = self._kept(route, loop.time())
        if connection is None:
            async with asyncio.timeout_at(deadline):
                connection = await self._connect(route, loop)
        self._busy.add(connection)
        try:
            reply = await connection.exchange(head, body, largest=largest, deadline=deadline)
        finally:
            self._busy.discard(connection)
        if connection.is_open:
            connection.idle_since = loop.time()
            self._idle[route.host, route.port, route.is_tls].append(connection)
            if self._sweeper is None:
                self._sweeper = loop.call_later(KEEP_ALIVE_S, self._sweep, loop)
        return reply

    # ---------------------------------------------------------------------------------------------- connections

    def _kept(self, route: Route, now: float) -> Connection | None:
        """Return the connection that was used last, if there is one that may still be used."""
        idle = self._idle[route.host, route.port, route.is_tls]
        while idle:
            connection = idle.pop()
            if connection.is_open:
                if now - connection.idle_since < KEEP_ALIVE_S:
                    return connection
                connection.close()
        return None

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close what has been idle for too long."""
        now = loop.time()
        for idle in self._idle.values():
            kept = []
            for each in idle:
                if each.is_open and now - each.idle_since < KEEP_ALIVE_S:
                    kept.append(each)
                else:
                    each.close()
            idle[:] = kept
        oldest = min((each.idle_since for idle in self._idle.values() for each in idle), default=None)
        self._sweeper = None if oldest is None else loop.call_at(oldest + KEEP_ALIVE_S, self._sweep, loop)

    async def _connect(self, route: Route, loop: asyncio.AbstractEventLoop) -> Connection:
        """Return a new connection to the first address of a host that takes it."""
        try:
            addresses = await self._look_up(route.host, route.port, loop)
        except OSError as error:
            raise NoConnectionError(f"no connection to {route.host}: {_words(error)}") from error
        tried = list(addresses)
        addresses.rotate(-1)  # the next connection begins with the next address, so that all of them share the work
        said = "it has no address"
        for address in tried:
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    return await self._connect_to(address, route, loop)
            except TimeoutError:  # ours, or the system's
                said = f"no connection within {self._connect_timeout_s:g} s"
            except OSError as error:
                said = _words(error)
        self._addresses.pop((route.host, route.port), None)  # it may have moved
        raise NoConnectionError(f"no connection to {route.host} port {route.port}: {said}")

    async def _connect_to(self, address: _Address, route: Route, loop: asyncio.AbstractEventLoop) -> Connection:
        family, place = address
        plug = socket.socket(family, socket.SOCK_STREAM)
        try:
            plug.setblocking(False)
            _notice_silence(plug)
            await loop.sock_connect(plug, place)
            _, connection = await loop.create_connection(
                lambda: Connection(loop),
                sock=plug,
                ssl=self._tls() if route.is_tls else None,
                server_hostname=route.host if route.is_tls else None,
            )
        except BaseException:
            plug.close()
            raise
        return connection

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context()
            self._context.set_alpn_protocols(["http/1.1"])
            if not self._verify_tls:
                self._context.check_hostname = False
                self._context.verify_mode = ssl.CERT_NONE
        return self._context

    async def _look_up(self, host: str, port: int, loop: asyncio.AbstractEventLoop) -> deque[_Address]:
        """Return the addresses of a host; many who ask at once wait for one answer."""
        task = self._addresses.get((host, port))
        if task is None:
            task = self._addresses[host, port] = loop.create_task(_addresses(host, port, loop))
            loop.call_later(KNOWN_ADDRESSES_S, self._forget, (host, port), task)
        try:
            return await asyncio.shield(task)
        except OSError:
            self._forget((host, port), task)
            raise

    def _forget(self, place: tuple[str, int], task: asyncio.Task[deque[_Address]]) -> None:
        if self._addresses.get(place) is task:
            del self._addresses[place]


def _notice_silence(plug: socket.socket) -> None:
    """Let the system end a connection whose other side vanished, as far as it has the options (tcp(7))."""
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", FIRST_PROBE_S),
        ("TCP_KEEPINTVL", (VANISHED_AFTER_S - FIRST_PROBE_S) // PROBES),
        ("TCP_KEEPCNT", PROBES),
        ("TCP_USER_TIMEOUT", 1000 * VANISHED_AFTER_S),  # for what was sent and never acknowledged
    ):
        if hasattr(socket, name):
            plug.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _addresses(host: str, port: int, loop: asyncio.AbstractEventLoop) -> deque[_Address]:
    for family, rest in ((socket.AF_INET, ()), (socket.AF_INET6, (0, 0))):
        with suppress(OSError):  # it is no address of this kind
            socket.inet_pton(family, host)
            return deque([(family, (host, port, *rest))])
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return deque((family, place) for family, _, _, _, place in found)


def _words(error: OSError) -> str:
    # asyncio puts an address into `strerror`; names and certificates have numbers of their own.
    is_the_systems = not isinstance(error, (ssl.SSLError, socket.gaierror)) and (error.errno or 0) > 0
    return os.strerror(error.errno or 0) if is_the_systems else error.strerror or str(error)
