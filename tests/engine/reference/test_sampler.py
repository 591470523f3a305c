"""Choosing tokens: greedy, filtered, penalised, and reproducible by seed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from s1batch.engine.reference.sampler import Sampler, filtered
from tests.engine.reference.conftest import ask

ALL: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
LOGITS = torch.log(torch.tensor([0.5, 0.25, 0.15, 0.06, 0.04]))


def survivors(**change: Any) -> dict[int, float]:
    left = filtered(LOGITS, **(ALL | change))
    return {token: float(left[token]) for token in left.nonzero().flatten().tolist()}


def test_each_filter_keeps_what_it_says() -> None:
    assert survivors() == pytest.approx({0: 0.5, 1: 0.25, 2: 0.15, 3: 0.06, 4: 0.04})
    assert survivors(top_k=2) == pytest.approx({0: 2 / 3, 1: 1 / 3})
    assert survivors(top_p=0.7) == pytest.approx({0: 2 / 3, 1: 1 / 3})
    assert survivors(top_p=0.8) == pytest.approx({0: 0.5 / 0.9, 1: 0.25 / 0.9, 2: 0.15 / 0.9})
    assert survivors(top_p=0.0) == {0: 1.0}
    assert survivors(min_p=0.4) == pytest.approx({0: 2 / 3, 1: 1 / 3})
    assert survivors(top_k=3, top_p=0.6, min_p=0.1) == pytest.approx({0: 2 / 3, 1: 1 / 3})
    assert survivors(temperature=0.5)[0] == pytest.approx(0.25 / (0.25 + 0.0625 + 0.0225 + 0.0036 + 0.0016))


@given(st.floats(1e-6, 100), st.integers(0, 12), st.floats(0, 1), st.floats(0, 1), st.integers(0, 1000), st.booleans())
def test_what_is_left_is_always_a_distribution_with_the_best_token(
    temperature: float, top_k: int, top_p: float, min_p: float, seed: int, masked: bool
) -> None:
    logits = torch.randn(10, generator=torch.Generator().manual_seed(seed)) * 50
    if masked:
        logits[1:] = -torch.inf
    left = filtered(logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    assert float(left.sum()) == pytest.approx(1.0)
    assert left[logits.argmax()] > 0
    if top_k:
        assert int((left > 0).sum()) <= top_k


def test_exactly_k_pass_top_k_among_equals() -> None:
    left = filtered(torch.zeros(9), **(ALL | {"top_k": 4}))
    assert left.nonzero().flatten().tolist() == [0, 1, 2, 3]


def test_temperature_zero_is_greedy_within_what_is_allowed() -> None:
    sampler = Sampler(ask(temperature=0.0), (), 5)
    assert sampler.choose(LOGITS) == 0
    assert sampler.choose(LOGITS, torch.tensor([False, False, True, True, False])) == 2


def test_ids_without_a_token_are_never_chosen() -> None:
    logits = torch.tensor([0.0, 1.0, 50.0, 60.0])
    for temperature in (0.0, 5.0):
        sampler = Sampler(ask(temperature=temperature), (), 2)
        assert all(sampler.choose(logits) < 2 for _ in range(50))


def test_the_repetition_penalty_counts_prompt_and_answer() -> None:
    sampler = Sampler(ask(temperature=0.0, repetition_penalty=2.0), (0,), 3)
    logits = torch.tensor([3.0, 2.0, 1.1])
    assert [sampler.choose(logits) for _ in range(3)] == [1, 0, 0]
    assert Sampler(ask(repetition_penalty=2.0), (1,), 2).choose(torch.tensor([-1.5, -1.0])) == 0
    assert logits.tolist() == pytest.approx([3.0, 2.0, 1.1])


def test_seed_and_sample_index_decide_the_choices() -> None:
    def choices(**which: Any) -> list[int]:
        sampler = Sampler(replace(ask(temperature=1.0), **which), (), 5)
        return [sampler.choose(torch.zeros(5)) for _ in range(40)]

    assert choices(seed=3, sample_index=1) == choices(seed=3, sample_index=1)
    assert len({tuple(choices(seed=seed, sample_index=index)) for seed in (0, 1, -5, 2**70) for index in (0, 1)}) == 8


def test_frequencies_follow_the_probabilities() -> None:
    sampler = Sampler(ask(temperature=1.0), (), 5)
    counts = torch.bincount(torch.tensor([sampler.choose(LOGITS) for _ in range(4000)]), minlength=5) / 4000
    torch.testing.assert_close(counts, LOGITS.exp(), atol=0.03, rtol=0)


def test_probabilities_are_those_of_the_model_before_any_filter() -> None:
    request = ask(temperature=0.0, top_k=1, repetition_penalty=3.0, logprobs=2)
    sampler = Sampler(request, (0,), 5)
    wide = torch.cat((LOGITS + 7, torch.tensor([50.0])))  # the head may be wider than the vocabulary
    told = sampler.told(wide, 3)
    assert told is not None
    assert told.token == 3
    assert told.logprob == pytest.approx(math.log(0.06))
    assert dict(told.top) == pytest.approx({0: math.log(0.5), 1: math.log(0.25)})
    assert Sampler(ask(logprobs=0), (), 5).told(LOGITS, 0).top == ()  # type: ignore[union-attr]
    assert Sampler(ask(), (), 5).told(LOGITS, 0) is None
