"""The client against servers on the loopback interface that do single things right or wrong, byte for byte."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from s1batch.engine.http import http_client
from s1batch.engine.http.connection import LARGE_BODY_BYTES, LostConnectionError
from s1batch.engine.http.http_client import HttpClient, NoConnectionError
from s1batch.engine.http.wire import InvalidResponseError, Reply, ResponseTooLargeError, Route

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


async def post(client: HttpClient, route: Route, body: bytes = b"{}", timeout_s: float = 30.0) -> Reply:
    head = route.head("POST", {"Authorization": "Bearer sk-secret"}) + b"Content-Length: %d\r\n\r\n" % len(body)
    return await client.send(route, head, body, timeout_s=timeout_s, largest=1000)


async def always_ok(visit: Visit) -> None:
    while True:
        await visit.request()
        await visit.say(OK)


# ----------------------------------------------------------------------------------------------------- kept connections


async def test_one_connection_carries_request_after_request():
    async with serving(always_ok) as server, HttpClient() as client:
        for _ in range(20):
            assert (await post(client, server.route())).body == b"ok"
        assert server.visits == 1


async def test_as_many_connections_are_made_as_requests_are_under_way_and_then_kept():
    async with serving(always_ok) as server, HttpClient() as client:
        for _ in range(3):
            await asyncio.gather(*(post(client, server.route()) for _ in range(10)))
        assert server.visits == 10


async def test_idle_connections_are_closed_after_a_while(monkeypatch):
    monkeypatch.setattr(http_client, "KEEP_ALIVE_S", 0.05)
    async with serving(always_ok) as server, HttpClient() as client:
        await post(client, server.route())
        await asyncio.wait_for(server.left.wait(), 20)
        await post(client, server.route())
        assert server.visits == 2


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the options are Linux's")
async def test_the_system_looks_after_connections_whose_server_may_vanish():
    """A node without power resets nothing. (With the link of a network namespace cut, a request ended after 59 s.)"""
    async with serving(always_ok) as server, HttpClient() as client:
        await post(client, server.route())
        [[kept]] = client._idle.values()
        plug = kept._transport.get_extra_info("socket")
        options = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        idle_s, every_s, probes, limit_ms = (
            plug.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in options
        )
        assert plug.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert idle_s + every_s * probes == limit_ms / 1000 == http_client.VANISHED_AFTER_S


async def test_a_connection_that_the_server_closed_while_it_was_idle_is_not_used():
    async def once(visit: Visit) -> None:
        await visit.request()
        await visit.say(OK)

    async with serving(once) as server, HttpClient() as client:
        for number in range(3):
            assert (await post(client, server.route())).body == b"ok"
            await asyncio.wait_for(server.left.wait(), 20)
            server.left.clear()
            await asyncio.sleep(0.05)  # its end travels; should it come later, the next request fails, see below
            assert server.visits == number + 1


async def test_a_kept_connection_that_is_closed_with_the_next_request_is_a_lost_one_and_not_asked_again():
    async def once_and_then_deaf(visit: Visit) -> None:
        await visit.request()
        await visit.say(OK)
        await visit.request()

    async with serving(once_and_then_deaf) as server, HttpClient() as client:
        await post(client, server.route())
        with pytest.raises(LostConnectionError):
            await post(client, server.route())
        assert server.visits == 1


async def test_a_get_over_a_kept_connection_that_is_closed_meanwhile_is_sent_again():
    async def once_and_then_deaf(visit: Visit) -> None:
        for answer in (OK, b""):
            await visit.reader.readuntil(b"\r\n\r\n")
            await visit.say(answer)

    async with serving(once_and_then_deaf) as server, HttpClient() as client:
        for number in range(1, 4):
            reply = await client.get(f"http://127.0.0.1:{server.port}/health", {}, timeout_s=30, largest=1000)
            assert (reply.body, server.visits) == (b"ok", number)


@pytest.mark.parametrize(
    "tail", [b"garbage", OK, b"\x00"], ids=["garbage", "a response that nobody asked for", "a zero byte"]
)
@pytest.mark.parametrize("apart", [False, True])
async def test_what_comes_behind_a_response_is_never_the_next_answer(tail, apart):
    async def chatty(visit: Visit) -> None:
        _, body = await visit.request()
        own = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        await visit.say(own if apart else own + tail)
        if apart:
            await asyncio.sleep(0.02)
            await visit.say(tail)
        await visit.reader.read()

    async with serving(chatty) as server, HttpClient() as client:
        for number in range(5):
            reply = await post(client, server.route(), b"%d" % number)
            assert reply.body == b"%d" % number
            if apart:
                await asyncio.wait_for(server.left.wait(), 20)  # the client hangs up
                server.left.clear()


# ------------------------------------------------------------------------------------------------------------- failures


async def reset_at_once(visit: Visit) -> None:
    await visit.request()
    visit.reset()


async def half_a_head(visit: Visit) -> None:
    await visit.request()
    await visit.say(b"HTTP/1.1 200 OK\r\nContent-")


async def half_a_body(visit: Visit) -> None:
    await visit.request()
    await visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")


async def half_a_chunk(visit: Visit) -> None:
    await visit.request()
    await visit.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha")


async def reset_in_mid_body(visit: Visit) -> None:
    await half_a_body(visit)
    await asyncio.sleep(0.02)
    visit.reset()


async def hang_up(visit: Visit) -> None:
    await visit.request()


async def half_close(visit: Visit) -> None:
    """Say that nothing more comes, and keep listening."""
    await visit.request()
    await visit.say(b"HTTP/1.1 200 OK\r\n")
    visit.writer.write_eof()
    await visit.reader.read()


@pytest.mark.parametrize(
    "behaviour", [reset_at_once, half_a_head, half_a_body, half_a_chunk, reset_in_mid_body, hang_up, half_close]
)
async def test_a_connection_that_ends_before_the_response_does_is_lost(behaviour):
    async with serving(behaviour) as server, HttpClient() as client:
        with pytest.raises(LostConnectionError) as error:
            await post(client, server.route())
    assert "secret" not in str(error.value)


async def test_a_server_that_reads_nothing_and_goes_away_is_lost_also_under_a_large_body():
    async def deaf(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        visit.reset()

    async with serving(deaf) as server, HttpClient() as client:
        with pytest.raises(LostConnectionError):
            await post(client, server.route(), LARGE)


async def test_nobody_there_is_no_connection():
    async with serving(always_ok) as server:
        pass
    async with HttpClient() as client:
        with pytest.raises(NoConnectionError, match=r"127\.0\.0\.1 port \d+: .*refused"):
            await post(client, server.route())


async def test_a_name_without_address_is_no_connection():
    async with HttpClient() as client:
        with pytest.raises(NoConnectionError, match=r"nowhere\.invalid"):
            await post(client, Route.of("http://nowhere.invalid/"))


async def test_connections_that_nobody_takes_are_given_up_after_their_own_deadline():
    with socket.socket() as deaf, socket.socket() as first:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)  # one may wait; the system answers no other
        first.connect(deaf.getsockname())
        async with HttpClient(connect_timeout_s=0.2) as client:
            route = Route.of(f"http://127.0.0.1:{deaf.getsockname()[1]}/")
            asking = (post(client, route, timeout_s=60.0) for _ in range(4))
            found = await asyncio.gather(*asking, return_exceptions=True)
            assert any(isinstance(each, NoConnectionError) for each in found)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nslow"])
async def test_a_response_that_is_not_whole_in_time_is_a_timeout_and_its_connection_is_closed(said):
    async def slow(visit: Visit) -> None:
        await visit.request()
        await visit.say(said)
        await visit.reader.read()

    async with serving(slow) as server, HttpClient() as client:
        with pytest.raises(TimeoutError):
            await post(client, server.route(), timeout_s=0.2)
        await asyncio.wait_for(server.left.wait(), 20)


async def test_a_header_that_comes_byte_by_byte_is_read_and_its_deadline_still_holds():
    async def dripping(visit: Visit) -> None:
        _, body = await visit.request()
        for byte in OK if body == b"all" else OK[:-1]:
            await visit.say(bytes([byte]))
            await asyncio.sleep(0)
        await visit.reader.read()

    async with serving(dripping) as server, HttpClient() as client:
        assert (await post(client, server.route(), b"all")).body == b"ok"
        with pytest.raises(TimeoutError):
            await post(client, server.route(), b"most", timeout_s=0.3)


async def test_what_is_no_http_is_said_without_a_word_of_it():
    async def foreign(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"sk-secret-of-yours, who are you?\r\n")
        await visit.reader.read()

    async with serving(foreign) as server, HttpClient() as client:
        with pytest.raises(InvalidResponseError) as error:
            await post(client, server.route())
        await asyncio.wait_for(server.left.wait(), 20)
    assert "secret" not in repr(error.value)


async def test_a_body_beyond_the_limit_is_not_waited_for():
    async def endless(visit: Visit) -> None:
        await visit.request()
        await visit.say(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await visit.say(b"x" * 100)
            await asyncio.sleep(0)

    async with serving(endless) as server, HttpClient() as client:
        with pytest.raises(ResponseTooLargeError):
            await post(client, server.route())
        await asyncio.wait_for(server.left.wait(), 20)


async def test_a_cancelled_request_closes_its_connection():
    asked = asyncio.Event()

    async def silent(visit: Visit) -> None:
        await visit.request()
        asked.set()
        await visit.reader.read()

    async with serving(silent) as server, HttpClient() as client:
        asking = asyncio.create_task(post(client, server.route()))
        await asyncio.wait_for(asked.wait(), 20)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(server.left.wait(), 20)


async def test_closing_the_client_fails_what_is_under_way():
    asked = asyncio.Event()

    async def silent(visit: Visit) -> None:
        await visit.request()
        asked.set()
        await visit.reader.read()

    async with serving(silent) as server:
        client = HttpClient()
        asking = asyncio.create_task(post(client, server.route()))
        await asyncio.wait_for(asked.wait(), 20)
        await client.aclose()
        with pytest.raises(LostConnectionError):
            await asking


# --------------------------------------------------------------------------------------------------------- large bodies


async def test_a_large_body_arrives_whole_and_the_connection_is_kept():
    bodies: list[bytes] = []

    async def listening(visit: Visit) -> None:
        while True:
            bodies.append((await visit.request())[1])
            await visit.say(OK)

    body = bytes(range(256)) * (LARGE_BODY_BYTES // 16)
    async with serving(listening) as server, HttpClient() as client:
        for sent in (body, body[: LARGE_BODY_BYTES - 1], body[:LARGE_BODY_BYTES], b"", body):
            assert (await post(client, server.route(), sent)).body == b"ok"
            assert bodies[-1] == sent
        assert server.visits == 1


async def test_a_server_that_does_not_read_holds_the_sender_back_and_not_the_memory():
    """Beyond what the system's sockets take, no byte of a body is copied."""
    gate = asyncio.Event()
    received = []

    async def late(visit: Visit) -> None:
        visit.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        await gate.wait()
        received.append((await visit.request())[1])
        await visit.say(OK)

    async with serving(late) as server, HttpClient() as client:
        asking = asyncio.create_task(post(client, server.route(), LARGE * 4))
        async with asyncio.timeout(20):
            while not client._busy or not (connection := next(iter(client._busy)))._is_paused:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert connection._transport.get_write_buffer_size() <= 2**18
        gate.set()
        assert (await asking).body == b"ok"
    assert received == [LARGE * 4]


async def test_a_response_before_the_request_is_whole_counts_and_ends_the_connection():
    async def hasty(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        await visit.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await asyncio.sleep(30)

    async with serving(hasty) as server, HttpClient() as client:
        for number in range(2):
            reply = await post(client, server.route(), LARGE * 4)
            assert (reply.status, reply.body) == (413, b"no")
            assert server.visits == number + 1


# ------------------------------------------------------------------------------------------------ addresses, encryption


async def test_an_address_of_version_6_works_as_a_literal():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no loopback address of version 6")
    async with serving(always_ok, host="::1") as server, HttpClient() as client:
        assert (await post(client, server.route("[::1]"))).body == b"ok"


async def test_of_several_addresses_those_that_work_are_found_and_share_the_work(monkeypatch):
    loop = asyncio.get_running_loop()
    asked = []

    async def three_addresses(host, port, **options):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", port)) for n in (3, 1, 2)]

    monkeypatch.setattr(loop, "getaddrinfo", three_addresses)
    async with serving(always_ok) as server, HttpClient() as client:
        route = server.route("cluster.example")
        replies = await asyncio.gather(*(post(client, route) for _ in range(9)))
        assert [reply.body for reply in replies] == [b"ok"] * 9
    assert asked == ["cluster.example"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    files = ("-keyout", folder / "key.pem", "-out", folder / "cert.pem")
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *names)
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not there to make a certificate")
    return folder


def tls_of(folder) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


async def test_encrypted_connections_are_checked_unless_the_job_says_otherwise(certificate, monkeypatch):
    async with serving(always_ok, tls=tls_of(certificate)) as server:
        async with HttpClient() as client:
            with pytest.raises(NoConnectionError, match="certificate"):
                await post(client, server.route(scheme="https"))
        async with HttpClient(verify_tls=False) as client:
            for _ in range(3):
                assert (await post(client, server.route(scheme="https"))).body == b"ok"
            assert (await post(client, server.route(scheme="https"), LARGE)).body == b"ok"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
        async with HttpClient() as client:
            assert (await post(client, server.route(scheme="https"))).body == b"ok"
            assert (await post(client, server.route("localhost", "https"))).body == b"ok"


async def test_plain_text_in_place_of_encryption_is_no_connection():
    async with serving(always_ok) as server, HttpClient(connect_timeout_s=0.5) as client:
        with pytest.raises((NoConnectionError, LostConnectionError)) as error:
            await post(client, server.route(scheme="https"))
    assert "secret" not in str(error.value)
