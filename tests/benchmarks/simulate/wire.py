"""What the HTTP engine takes for its connections: requests go straight to the simulated engines."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from s1batch.engine.http.connection import LostConnectionError
from s1batch.engine.http.http_client import NoConnectionError
from s1batch.engine.http.wire import Reply, Route
from tests.benchmarks.simulate.engines import Job, SimulatedEngine

MODEL = "simulated"

_ANSWER = (
    b'{"model":"%b","choices":[{"message":{"content":"%%d"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":64,"completion_tokens":16}}'
) % MODEL.encode()

_ASKED = re.compile(rb"#(\d+);([\d.e+-]+);(\d*)#")

_HEADERS: Mapping[str, str] = {"content-type": "application/json"}


def prompt(number: int, seconds: float, shape: int | None) -> str:
    """Return the text of a request; the wire reads there what a client does not look at."""
    return f"#{number};{seconds!r};{'' if shape is None else shape}#"


class Wire:
    """The connections of one client; takes the place of `HttpClient`.

    Args:
        engines: The servers; the host of endpoint 7 is node7.
        latency_s: How long a refusal takes to come back.
        connect_timeout_s: After which an attempt to reach a node that vanished is given up.
    """

    def __init__(self, engines: Sequence[SimulatedEngine], *, latency_s: float, connect_timeout_s: float) -> None:
        self._engines = engines
        self._latency_s = latency_s
        self._connect_timeout_s = connect_timeout_s

    async def send(self, route: Route, head: bytes, body: bytes, *, timeout_s: float, largest: int) -> Reply:
        """Compute a request, as `HttpClient.send` would have it computed.

        Raises:
            TimeoutError: It was not done in time.
            NoConnectionError: The server is down.
            LostConnectionError: The server went down.
        """
        loop = asyncio.get_running_loop()
        engine = await self._reach(route.host, timeout_s)
        found = _ASKED.search(body)
        if found is None:
            raise ValueError("a request without its number")
        number = int(found[1])
        shape = int(found[3]) if found[3] else None
        job = Job(number, float(found[2]), shape, loop.create_future())
        engine.take(job)
        alarm = loop.call_later(timeout_s, _expire, engine, job)
        try:
            await job.future
        except asyncio.CancelledError:
            engine.drop(job)
            raise
        except ConnectionResetError as error:
            raise LostConnectionError(str(error)) from None
        finally:
            alarm.cancel()
        return Reply(200, _HEADERS, _ANSWER % number)

    async def get(self, url: str, headers: Mapping[str, str], *, timeout_s: float, largest: int) -> Reply:
        """Say what the server is; raises as `send` does."""
        parts = urlsplit(url)
        await self._reach(parts.hostname or "", timeout_s)
        await asyncio.sleep(self._latency_s)
        if parts.path == "/v1/models":
            body = b'{"data":[{"id":"%b","owned_by":"lmdeploy"}]}' % MODEL.encode()
            return Reply(200, _HEADERS, body)
        return Reply(200, _HEADERS, b"")

    async def aclose(self) -> None:
        """Nothing is kept."""

    async def _reach(self, host: str, timeout_s: float) -> SimulatedEngine:
        engine = self._engines[int(host.removeprefix("node"))]
        if not engine.is_up:
            await asyncio.sleep(min(timeout_s, self._connect_timeout_s) if engine.is_silent else self._latency_s)
            raise NoConnectionError("cannot connect")
        return engine


def _expire(engine: SimulatedEngine, job: Job) -> None:
    if not job.future.done():
        job.future.set_exception(TimeoutError())
        engine.drop(job)
