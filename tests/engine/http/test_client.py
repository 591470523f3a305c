import asyncio

from s1batch.engine.http.client import open_http
from s1batch.engine.http.spec import HttpEngineSpec
from s1batch.records import Message, ModelIdentity, Request, Sampling, TextPart
from tests.loopback import Loopback


def ask(text: str) -> Request:
    return Request(
        messages=(Message(role="user", parts=(TextPart(text=text),)),),
        sampling=Sampling(),
        model=ModelIdentity(name="mock"),
    )


async def test_smoke() -> None:
    async with Loopback() as server:
        engine = await open_http(HttpEngineSpec(urls=(server.url,)))
        try:
            got = await asyncio.gather(*(engine.answer(ask(f"q{i}")) for i in range(20)))
        finally:
            await engine.aclose()
    assert len({r.text for r in got}) == 20
    print(got[0])
