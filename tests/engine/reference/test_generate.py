"""Generation: an answer is the same, to the last bit, whoever shares its batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from s1batch.engine.reference.cache import KVCache
from s1batch.engine.reference.chat import ChatFormat
from s1batch.engine.reference.checkpoint import load_model
from s1batch.engine.reference.generate import BLOCK, Generation, Generator
from s1batch.engine.reference.identity import NANO, model_folder
from s1batch.engine.reference.kv_pool import KVPool
from s1batch.engine.reference.model import InternS1Pro
from s1batch.engine.reference.sampler import Sampler
from s1batch.records import Request
from tests.engine.reference.conftest import ask

FOLDER = model_folder(NANO, Path())
CHAT = ChatFormat(FOLDER)


@pytest.fixture(scope="module")
def model() -> InternS1Pro:
    return load_model(FOLDER)


class Recorder(Generation):
    """A generation that keeps the logits it saw."""

    def __init__(self, request: Request) -> None:
        prompt = CHAT.prompt(request.messages, thinking=request.sampling.thinking)
        super().__init__(
            prompt=prompt,
            sampler=Sampler(request, prompt.ids, CHAT.vocabulary),
            guide=None,
            max_tokens=request.sampling.max_tokens,
            end_ids=CHAT.end_ids,
        )
        self.logits: list[Tensor] = []

    def advance(self, logits_V: Tensor) -> None:
        self.logits.append(logits_V.clone())
        super().advance(logits_V)


def run(model: InternS1Pro, requests: Sequence[Request]) -> list[Recorder]:
    """Prefill all, then let the answers grow together."""
    generator = Generator(model)
    pool = KVPool(model.config.text, 1 << 30)
    rows = [Recorder(request) for request in requests]
    for row, request in zip(rows, requests, strict=True):
        memory = pool.take(row.most_tokens)
        assert memory is not None
        row.begin(memory, generator.embed(row.prompt, request.series, request.images))
        while not row.prefilled:
            generator.prefill([row])
    while live := [row for row in rows if row.finish_reason is None]:
        generator.step(live)
    return rows


def mixed(temperature: float) -> list[Request]:
    """Prompts of very different lengths, with and without series, answers of different lengths."""
    return [
        ask(
            "Why? " * (1 + 37 * number % 90),
            series=((), (300,), (49,), (150, 60))[number % 4] if number < 8 else (),
            max_tokens=(16, 5, 24, 1)[number % 4],
            temperature=temperature,
            seed=number,
        )
        for number in range(11)
    ]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_tokens_and_logits_do_not_depend_on_the_batch(model: InternS1Pro, temperature: float) -> None:
    requests = mixed(temperature)
    alone = [run(model, [request])[0] for request in requests]
    for order in (list(range(11)), [10, 3, 5, 0, 2, 7, 1]):
        together = run(model, [requests[number] for number in order])
        for number, row in zip(order, together, strict=True):
            assert row.output_ids == alone[number].output_ids
            assert all(torch.equal(a, b) for a, b in zip(row.logits, alone[number].logits, strict=True))


def test_a_product_of_block_shape_treats_all_rows_alike() -> None:
    """What batch independence rests on: a row's result depends neither on its place nor on the other rows."""
    generator = torch.Generator().manual_seed(0)
    for inputs, outputs in ((256, 256), (256, 64), (256, 16), (256, 2048), (2048, 256), (256, 1024)):
        weight = torch.randn(outputs, inputs, generator=generator)
        rows = torch.randn(40, inputs, generator=generator)
        results: dict[int, Tensor] = {}
        for _ in range(20):
            picked = torch.randint(0, 40, (BLOCK,), generator=generator)
            for number, result in zip(picked.tolist(), rows[picked] @ weight.T, strict=True):
                assert torch.equal(results.setdefault(number, result), result)


def test_greedy_answers_are_those_of_full_recomputation(model: InternS1Pro) -> None:
    request = ask("What is an earthquake?", series=(1200,), max_tokens=20)
    row = run(model, [request])[0]
    part = request.series[0]
    with torch.inference_mode():
        encoded = [model.model.time_series(part.values_TC, part.rate_hz)]
        ids = list(row.prompt.ids)
        for token, seen in zip(row.output_ids, row.logits, strict=False):
            logits = model(torch.tensor(ids), encoded)[-1]
            torch.testing.assert_close(logits, seen, atol=1e-4, rtol=0)
            assert int(logits.argmax()) == token
            ids.append(token)


def test_a_prompt_longer_than_a_chunk_is_prefilled_whole(model: InternS1Pro) -> None:
    request = ask("one two three " * 200, max_tokens=2)
    row = run(model, [request])[0]
    assert len(row.prompt.ids) > 512
    with torch.inference_mode():
        states = model.states(model.embed(torch.tensor(row.prompt.ids)), KVCache(model.config.text))
        torch.testing.assert_close(model.lm_head(states)[-1], row.logits[0], atol=1e-4, rtol=0)


def test_the_same_seed_gives_the_same_answer_and_another_another(model: InternS1Pro) -> None:
    def answer(seed: int, index: int) -> list[int]:
        request = ask(temperature=1.0, seed=seed, sample_index=index, max_tokens=12)
        return run(model, [request])[0].output_ids

    assert answer(1, 0) == answer(1, 0)
    assert len({tuple(answer(seed, index)) for seed in (1, 2) for index in (0, 1)}) == 4


def test_an_end_token_stops_and_is_counted_but_not_shown(model: InternS1Pro) -> None:
    for end in CHAT.end_ids:
        row = Recorder(ask(max_tokens=5))
        first, last = torch.zeros(2, 1024)
        first[300], last[end] = 1, 1
        row.advance(first)
        row.advance(last)
        assert (row.output_ids, row.generated, row.finish_reason) == ([300], 2, "stop")


def test_the_limit_counts_every_token(model: InternS1Pro) -> None:
    for limit in (1, 7):
        row = run(model, [ask(max_tokens=limit)])[0]
        assert row.generated == len(row.output_ids) == limit
        assert row.finish_reason == "length"
