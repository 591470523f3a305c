"""Requests that begin alike go to one endpoint, as long as it is not busier than the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import s1batch
from s1batch.engine.http.affinity import FIRST_CUT_BYTES, LEAST_SLACK, REMEMBERED, Affinity, beginnings
from s1batch.engine.http.routing import Router
from s1batch.records import ImagePart, SeriesPart
from tests.engine.http.requests import ask
from tests.loopback import Loopback, Reply, completion, prompt_text

URLS = ("http://a", "http://b", "http://c", "http://d")


@given(st.integers(0, 40_000), st.integers(0, 40_000))
def test_two_prompts_share_the_beginnings_that_fit_into_what_they_share(shared: int, more: int) -> None:
    common = "a" * shared
    first, second = (set(beginnings(ask(common + end * more))) for end in "bc")
    assert len(first & second) == len(beginnings(ask(common)))
    lengths = [FIRST_CUT_BYTES]
    while lengths[-1] <= shared + more:
        lengths.append(int(lengths[-1] * 1.25))
    assert len(first) == sum(length <= shared + more for length in lengths)


def test_media_are_told_apart_by_what_they_hold() -> None:
    def about(part: Any, question: str) -> Any:
        return beginnings(ask(question, part))

    wave = np.ones((100, 1), np.float32)
    (one,), (two,), (other,) = (
        about(SeriesPart(values, 100.0), question)
        for values, question in ((wave, "P?"), (wave.copy(), "S?"), (wave * 2, "P?"))
    )
    assert one == two != other
    assert about(ImagePart(b"x"), "?") != about(ImagePart(b"y"), "?")
    assert beginnings(ask("short")) == ()


def test_a_beginning_draws_its_like_until_the_endpoint_is_too_busy() -> None:
    router = Router(URLS)
    document = beginnings(ask("d" * 2000))
    home = router.pick(0.0, prompt=document)
    assert home is not None
    for number in range(LEAST_SLACK + 1):
        assert router.pick(0.0, prompt=document) is home, number
        home.in_flight += 1
    second = router.pick(0.0, prompt=document)
    assert second is not home, "by more than the slack"
    home.in_flight -= 1
    assert second is not None
    assert router.pick(0.0, prompt=document) is second, "both know it now, and the less busy one is asked"
    assert router.pick(0.0, prompt=document, avoid=second) is home
    home.ejected_since = 0.0
    assert router.pick(0.0, prompt=document, avoid=second) not in (home, second, None)


def test_what_all_endpoints_know_and_what_is_new_go_to_the_least_busy() -> None:
    router = Router(URLS)
    system = "s" * 1000
    chosen = []
    for number in range(40):
        endpoint = router.pick(0.0, prompt=beginnings(ask(system + str(number) * 2000)))
        assert endpoint is not None
        endpoint.in_flight += 1
        chosen.append(endpoint.url)
    counts = Counter(chosen)
    assert set(counts) == set(URLS)
    assert max(counts.values()) - min(counts.values()) <= LEAST_SLACK + 1


def test_memory_of_beginnings_is_bounded() -> None:
    affinity = Affinity(URLS)
    for number in range(REMEMBERED + 100):
        affinity.sent((number.to_bytes(4, "big"),), URLS[0])
    assert len(affinity._seen) == REMEMBERED


class Caching(Loopback):
    """A server that keeps every prompt's first 2,500 characters, and says what it had of a new one."""

    def __init__(self) -> None:
        super().__init__(script=self._serve)
        self.kept: set[str] = set()
        self.hits = 0

    def _serve(self, number: int, body: dict[str, Any]) -> Reply:
        start = prompt_text(body)[:2500]
        cached = 600 if start in self.kept else 0
        self.hits += bool(cached)
        self.kept.add(start)
        reply = completion("yes", prompt_tokens=1000)
        return Reply(body=reply.replace(b'"cached_tokens":3', b'"cached_tokens":%d' % cached), delay_s=0.03)


async def test_questions_about_one_document_meet_its_cache_and_the_run_says_how_often(tmp_path: Any) -> None:
    documents, questions = 24, 8
    lines = ["document,question"]
    lines += [
        f"{chr(97 + document) * 3000},what {question}" for document in range(documents) for question in range(questions)
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(Caching()) for _ in range(4)]
        job = {
            "source": {"kind": "table", "path": str(tmp_path / "t.csv")},
            "job": {"kind": "ask", "prompt": "{{ document }}\n{{ question }}"},
            "engine": {"kind": "http", "urls": [server.url for server in servers], "max_in_flight": 16},
        }
        results = await asyncio.to_thread(s1batch.run, job, tmp_path / "out")
        hits, served = sum(server.hits for server in servers), [server.served for server in servers]
    assert sum(served) == documents * questions
    assert hits >= 0.7 * documents * (questions - 1), "by chance it would be a good half, for four endpoints"
    assert min(served) > 0.4 * max(served), "and none is left without work"
    rows = results.scan().collect()
    assert int(rows["cached_tokens"].sum()) == 600 * hits
    assert results.summary is not None
    assert (results.summary.cached_tokens, results.summary.prompt_tokens) == (600 * hits, 192_000)
