"""Connections of the client: kept, closed, encrypted, and to which address."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess

import pytest

from s1batch.engine.http import http_client
from s1batch.engine.http.connection import LostConnectionError
from s1batch.engine.http.http_client import HttpClient, NoConnectionError
from tests.engine.http.raw_server import LARGE, OK, Visit, always_ok, post, serving

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
        await asyncio.wait_for(server.left.wait(), 100)
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
            await asyncio.wait_for(server.left.wait(), 100)
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
            reply = await client.get(f"http://127.0.0.1:{server.port}/health", {}, timeout_s=100, largest=1000)
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
                await asyncio.wait_for(server.left.wait(), 100)  # the client hangs up
                server.left.clear()


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
