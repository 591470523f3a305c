"""The client against servers that do single things right or wrong."""

from __future__ import annotations

import asyncio
import socket

import pytest

from s1batch.engine.http.connection import LARGE_BODY_BYTES, LostConnectionError
from s1batch.engine.http.http_client import HttpClient, NoConnectionError
from s1batch.engine.http.wire import InvalidResponseError, ResponseTooLargeError, Route
from tests.engine.http.raw_server import LARGE, OK, Visit, always_ok, post, serving

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
        await asyncio.wait_for(server.left.wait(), 100)


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
        await asyncio.wait_for(server.left.wait(), 100)
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
        await asyncio.wait_for(server.left.wait(), 100)


async def test_a_cancelled_request_closes_its_connection():
    asked = asyncio.Event()

    async def silent(visit: Visit) -> None:
        await visit.request()
        asked.set()
        await visit.reader.read()

    async with serving(silent) as server, HttpClient() as client:
        asking = asyncio.create_task(post(client, server.route()))
        await asyncio.wait_for(asked.wait(), 100)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(server.left.wait(), 100)


async def test_closing_the_client_fails_what_is_under_way():
    asked = asyncio.Event()

    async def silent(visit: Visit) -> None:
        await visit.request()
        asked.set()
        await visit.reader.read()

    async with serving(silent) as server:
        client = HttpClient()
        asking = asyncio.create_task(post(client, server.route()))
        await asyncio.wait_for(asked.wait(), 100)
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
        async with asyncio.timeout(100):
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
        await asyncio.sleep(300)

    async with serving(hasty) as server, HttpClient() as client:
        for number in range(2):
            reply = await post(client, server.route(), LARGE * 4)
            assert (reply.status, reply.body) == (413, b"no")
            assert server.visits == number + 1
