"""Continuous batching: whoever comes, goes and shares the memory, every answer is the one it would be alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.engine.reference.batching import Abandoned, Batch
from s1batch.engine.reference.checkpoint import initialise
from s1batch.engine.reference.generate import Generation, Generator
from s1batch.engine.reference.kv_pool import KVPool
from s1batch.engine.reference.model import InternS1Pro
from s1batch.engine.reference.sampler import Sampler
from s1batch.records import Reason, Request
from tests.engine.reference.conftest import ask, picture, small_config
from tests.engine.reference.test_generate import CHAT

KINDS: dict[str, dict[str, int]] = {"few experts": {}, "many experts": {"num_experts": 36, "num_experts_per_tok": 6}}


@lru_cache
def network(kind: str) -> InternS1Pro:
    config = small_config(vocab_size=1024, max_position_embeddings=1024, **KINDS[kind])
    return initialise(replace(config, ts_token_id=CHAT.place_id, image_token_id=CHAT.image_id), 4)


@lru_cache
def request(number: int) -> Request:
    """One of forty: lengths on both sides of every boundary, with and without media, greedy and sampled."""
    words = (1, 3, 9, 30, 55, 120, 240, 260)[number % 8]
    media: dict[str, Any] = ({}, {"series": (200,)}, {}, {"images": (picture(40, 30),)}, {"series": (90, 300)})[
        number % 5
    ]
    limit = (1, 2, 5, 9, 17, 30, 3)[number % 7]
    temperature = 0.0 if number % 3 else 1.0
    return ask("Why? " * words, max_tokens=limit, temperature=temperature, seed=number, logprobs=0, **media)


class Guest:
    """A request that comes at one turn, and may lose its patience at another."""

    def __init__(self, asked: Request, leaves: int | None = None) -> None:
        self.request = asked
        self.leaves = leaves
        self.turn = 0
        self.given: Generation | None = None
        self.error: tuple[Reason, str] | None = None
        self._generation: Generation | None = None

    def check(self) -> None:
        if self.leaves is not None and self.turn >= self.leaves:
            raise Abandoned

    def prepare(self) -> Generation:
        if self._generation is None:
            prompt = CHAT.prompt(self.request.messages, thinking=False)
            sampler = Sampler(self.request, prompt.ids, CHAT.vocabulary)
            limit = self.request.sampling.max_tokens
            self._generation = Generation(
                prompt=prompt, sampler=sampler, guide=None, max_tokens=limit, end_ids=CHAT.end_ids
            )
        return self._generation

    def answered(self, generation: Generation) -> None:
        assert self.given is None
        self.given = generation

    def failed(self, reason: Reason, detail: str) -> None:
        self.error = (reason, detail)


Answer = tuple[list[int], list[float], str | None]


def answer(generation: Generation | None) -> Answer | None:
    if generation is None:
        return None
    return generation.output_ids, [each.logprob for each in generation.chosen], generation.finish_reason


@lru_cache
def alone(kind: str, number: int) -> Answer | None:
    guest = Guest(request(number))
    batch = Batch(Generator(network(kind)), KVPool(network(kind).config.text, 1 << 30), most=1, prefills=1)
    batch.add(guest)
    while not batch.idle:
        batch.turn()
    assert guest.error is None
    return answer(guest.given)


Arrival = tuple[int, int, int | None]
"""Which request, the turn at which it comes, and the one at which it loses its patience."""

ARRIVALS = st.lists(
    st.tuples(st.integers(0, 39), st.integers(0, 25), st.none() | st.integers(0, 40)), min_size=1, max_size=24
)


MOST, ROWS = st.sampled_from([1, 2, 5, 16, 20]), st.sampled_from([1, 2, 5, 100])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(arrivals=ARRIVALS, most=MOST, rows=ROWS, threads=st.sampled_from([1, 2]))
def test_every_answer_is_the_one_it_would_be_alone(
    kind: str, arrivals: list[Arrival], most: int, rows: int, threads: int
) -> None:
    check_a_mixture(kind, arrivals, most, rows, threads)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(arrivals=ARRIVALS, most=MOST, rows=ROWS, threads=st.sampled_from([1, 2]))
def test_many_more_mixtures(kind: str, arrivals: list[Arrival], most: int, rows: int, threads: int) -> None:
    check_a_mixture(kind, arrivals, most, rows, threads)


def check_a_mixture(kind: str, arrivals: list[Arrival], most: int, rows: int, threads: int) -> None:
    """Tokens are the same, and their probabilities to the last bit."""
    guests = [Guest(request(number), leaves) for number, _, leaves in arrivals]
    config = network(kind).config.text
    limit = rows * KVPool(config, 0).row_bytes(1024)
    pool = KVPool(config, limit)
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as workers:
        generator = Generator(network(kind), workers if threads > 1 else None)
        batch = Batch(generator, pool, most=most, prefills=threads)
        turn = 0
        while turn <= 25 or not batch.idle:
            for guest, (_, comes, _) in zip(guests, arrivals, strict=True):
                guest.turn = turn
                if comes == turn:
                    batch.add(guest)
            batch.turn()
            assert pool.used_bytes <= limit
            turn += 1
            assert turn < 3000, "somebody waits forever"
    assert pool.used_bytes == 0
    for guest, (number, _, leaves) in zip(guests, arrivals, strict=True):
        assert guest.error is None
        if leaves is None or guest.given is not None:
            assert answer(guest.given) == alone(kind, number)


def test_requests_join_while_others_are_answered_and_leave_when_they_are_done() -> None:
    """A short question that comes late is answered before a long one that came first."""
    batch = Batch(
        Generator(network("few experts")), KVPool(network("few experts").config.text, 1 << 30), most=4, prefills=1
    )
    slow, quick = Guest(ask("long", max_tokens=200)), Guest(ask("short", max_tokens=3))
    batch.add(slow)
    for _ in range(5):
        batch.turn()
    batch.add(quick)
    for _ in range(4):
        batch.turn()
    assert quick.given is not None
    assert slow.given is None


def test_one_that_needs_all_the_memory_is_not_overtaken_forever() -> None:
    config = network("few experts").config.text
    pool = KVPool(config, KVPool(config, 0).row_bytes(1024))
    batch = Batch(Generator(network("few experts")), pool, most=8, prefills=1)
    small = [Guest(ask(f"{number}", max_tokens=20)) for number in range(3)]
    large, late = Guest(ask("large", max_tokens=900)), Guest(ask("late", max_tokens=20))
    for guest in (*small, large, late):
        batch.add(guest)
    for _ in range(30):
        batch.turn()
    assert all(guest.given is not None for guest in small)
    assert large.given is None
    assert late.given is None, "it waits behind the large one"
    while not batch.idle:
        batch.turn()
    assert large.given is not None
    assert late.given is not None
