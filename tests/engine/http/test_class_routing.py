"""Several endpoints and batching classes: in virtual time, with the real queues; only the wire is replaced."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.engine.http import client as client_module
from s1batch.engine.http.client import HttpEngine
from s1batch.engine.http.parse import Answered
from s1batch.engine.http.retry import Backoff, Failure
from s1batch.engine.http.routing import Endpoint, Router
from s1batch.engine.http.spec import HttpEngineSpec
from s1batch.records import Message, ModelIdentity, Request, Response, Sampling, SeriesPart, TextPart
from tests.engine.virtual_loop import run_virtually


@dataclass
class Watch:
    """What was in flight where, and what met."""

    fates: Mapping[int, str] = field(default_factory=dict)
    seconds: Mapping[int, float] = field(default_factory=dict)
    live: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    met: list[str] = field(default_factory=list)
    calls: int = 0
    starts: list[tuple[str, int]] = field(default_factory=list)


class Wireless(HttpEngine):
    """Classes are the steps of the series; the body says which."""

    def __init__(self, watch: Watch, endpoints: int, in_flight: int) -> None:
        urls = tuple(f"http://node{number}" for number in range(endpoints))
        spec = HttpEngineSpec(urls=urls, model="m", dialect="lmdeploy", max_in_flight=in_flight, max_attempts=9)
        super().__init__(spec, cast(Any, None), {}, Router(urls), Backoff(max_attempts=9))
        self._watch = watch

    async def _attempt(
        self, endpoint: Endpoint, body: bytes, expected: Mapping[str, bool], deadline: float
    ) -> Answered | Failure:
        steps = int(body.partition(b"steps=")[2].partition(b";")[0])
        watch, number = self._watch, self._watch.calls
        watch.calls += 1
        live = watch.live[endpoint.url]
        live[steps] += 1
        watch.starts.append((endpoint.url, steps))
        if steps and sum(count > 0 for each, count in live.items() if each) > 1:
            watch.met.append(f"{dict(live)} at {endpoint.url}")
        try:
            with self._router.using(endpoint):
                await asyncio.sleep(watch.seconds.get(number % 7, 1.0))
        finally:
            live[steps] -= 1
        if watch.fates.get(number) == "fails":
            return Failure(reason="connection", detail="as told", retry=True, blames_endpoint=True)
        return Answered(
            text="{}",
            reasoning=None,
            finish_reason="stop",
            prompt_tokens=1,
            cached_tokens=None,
            output_tokens=1,
            model="m",
        )

    def start_probing(self, endpoint: Endpoint) -> None:
        asyncio.get_running_loop().call_later(3.0, self._back, endpoint)

    def _back(self, endpoint: Endpoint) -> None:
        self._router.readmit(endpoint, asyncio.get_running_loop().time())
        self._wake()


def question(number: int, steps: int) -> Request:
    """A series of so many steps; 0: text alone."""
    series = (SeriesPart(np.ones((steps, 1), np.float32), 100.0),) if steps else ()
    message = Message(role="user", parts=(TextPart(text=f"{number} steps={steps};"), *series))
    return Request(messages=(message,), sampling=Sampling(), model=ModelIdentity(name="m"))


def asked(watch: Watch, questions: list[Request], endpoints: int, in_flight: int) -> tuple[list[Response], float]:
    """Ask all at once."""

    async def everybody() -> tuple[list[Response], float]:
        loop = asyncio.get_running_loop()
        with patch.object(client_module, "time", SimpleNamespace(monotonic=loop.time)):
            engine = Wireless(watch, endpoints, in_flight)
            assert {engine.batch_class(each) for each in questions} <= {None}
            answers = await asyncio.gather(*(engine.answer(each) for each in questions))
        return list(answers), loop.time()

    return run_virtually(everybody())


@settings(max_examples=120, deadline=None)
@given(
    classes=st.lists(st.sampled_from([0, 60, 70, 80, 90, 100]), min_size=1, max_size=60),
    endpoints=st.integers(2, 5),
    in_flight=st.integers(1, 20),
    failing=st.frozensets(st.integers(0, 60), max_size=8),
    seconds=st.dictionaries(st.integers(0, 6), st.sampled_from([0.1, 1.0, 9.0])),
)
def test_no_two_classes_ever_meet_at_an_endpoint_and_everybody_is_answered(
    classes: list[int], endpoints: int, in_flight: int, failing: frozenset[int], seconds: dict[int, float]
) -> None:
    watch = Watch(fates=dict.fromkeys(failing, "fails"), seconds=seconds)
    questions = [question(number, steps) for number, steps in enumerate(classes)]
    answers, _ = asked(watch, questions, endpoints, in_flight)
    assert watch.met == []
    assert [answer.error for answer in answers] == [None] * len(questions)


def test_classes_that_alternate_share_the_endpoints_and_keep_them_full() -> None:
    """Two classes at four endpoints: each gets some of them, and nothing stands still."""
    watch = Watch()
    questions = [question(number, (60, 70)[number % 2]) for number in range(400)]
    _, seconds = asked(watch, questions, 4, 40)
    assert watch.met == []
    assert seconds <= 14.0  # 400 requests of 1 s, 40 at a time


def test_a_rare_class_gets_its_endpoint_while_the_others_go_on() -> None:
    watch = Watch()
    questions = [question(number, 60) for number in range(300)]
    questions.insert(40, question(1000, 99))
    _, seconds = asked(watch, questions, 4, 40)
    assert watch.met == []
    place = [steps for _, steps in watch.starts].index(99)
    assert place < 120, "it waited for one endpoint to run out, not for all, nor for the end"
    assert seconds <= 10.0
