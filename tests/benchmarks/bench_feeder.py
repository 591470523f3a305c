"""What the feeder adds to a request, in microseconds of one core.

Run: python tests/benchmarks/bench_feeder.py [requests]
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Hashable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from s1batch.engine.feeder import Feeder
from s1batch.records import Message, ModelIdentity, Refusal, Request, Response, Sampling, TextPart

MODEL = ModelIdentity(name="nobody")


class Instant:
    """An engine that costs as little as one can: one turn of the event loop per answer."""

    name = "instant"
    model = MODEL

    def adapt(self, request: Request) -> Request:
        return request

    def admit(self, request: Request) -> Refusal | None:
        return None

    def batch_class(self, request: Request) -> Hashable | None:
        return request.seed or None

    async def answer(self, request: Request) -> Response:
        await asyncio.sleep(0)
        return Response(fingerprint=request.fingerprint, text="{}", prompt_tokens=100, output_tokens=10)

    async def aclose(self) -> None:
        return None


def questions(count: int, classes: int) -> list[Request]:
    """Distinct requests over so many batching classes (0: none), fingerprints already computed."""
    found = []
    for i in range(count):
        message = Message(role="user", parts=(TextPart(text=f"question {i}"),))
        request = Request(messages=(message,), sampling=Sampling(), model=MODEL, seed=i % classes + 1 if classes else 0)
        request.fingerprint  # noqa: B018  (computed once per request with or without a feeder)
        found.append(request)
    return found


def seconds_of(
    requests: list[Request], make: Callable[[], Callable[[Request], Awaitable[object]]], clients: int
) -> float:
    """Wall time for so many clients to ask all requests, one after the other each."""

    async def everybody() -> float:
        ask = make()
        waiting = iter(requests)

        async def client() -> None:
            for request in waiting:
                await ask(request)

        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        return time.perf_counter() - started

    return min(asyncio.run(everybody()) for _ in range(3))


def feeder() -> Callable[[Request], Awaitable[object]]:
    return Feeder(Instant(), max_in_flight=256, cache_entries=10_000, cache_bytes=1 << 26).answer


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    for title, classes in (("no class", 0), ("8 classes", 8), ("200 classes", 200)):
        requests = questions(count, classes)
        bare = seconds_of(requests, lambda: Instant().answer, 512)
        fed = seconds_of(requests, feeder, 512)
        print(
            f"{title:12s} {count:,} requests, 512 clients, 256 in flight: "
            f"bare {bare / count * 1e6:5.1f} us, fed {fed / count * 1e6:5.1f} us, "
            f"the feeder adds {(fed - bare) / count * 1e6:5.1f} us per request"
        )
    same = questions(1, 0) * count
    print(f"cached       {count:,} requests: {seconds_of(same, feeder, 512) / count * 1e6:5.1f} us per request")


if __name__ == "__main__":
    main()
