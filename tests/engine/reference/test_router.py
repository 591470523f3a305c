"""The grouped router against a loop that does what the text says."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from s1batch.engine.reference.router import route


def by_loop(logits: list[float], groups: int, top_k: int, renormalise: bool) -> dict[int, float]:
    total = sum(math.exp(value) for value in logits)
    probabilities = [math.exp(value) / total for value in logits]
    size = len(logits) // groups
    chosen: dict[int, float] = {}
    for group in range(groups):
        members = range(group * size, (group + 1) * size)
        for expert in sorted(members, key=lambda e: -probabilities[e])[: top_k // groups]:
            chosen[expert] = probabilities[expert]
    weight = sum(chosen.values()) + 1e-20 if renormalise else 1.0
    return {expert: value / weight for expert, value in chosen.items()}


@given(
    groups=st.integers(1, 5),
    size=st.integers(1, 6),
    data=st.data(),
    renormalise=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_choice_and_its_weights_are_the_text(
    groups: int, size: int, data: st.DataObject, renormalise: bool, seed: int
) -> None:
    top_k = groups * data.draw(st.integers(1, size))
    logits = torch.randn(7, groups * size, generator=torch.Generator().manual_seed(seed)) * 3
    weights, ids = route(logits, groups, top_k, renormalise=renormalise)
    assert weights.shape == ids.shape == (7, top_k)
    for row in range(7):
        wanted = by_loop(logits[row].double().tolist(), groups, top_k, renormalise)
        given_ = dict(zip(ids[row].tolist(), weights[row].tolist(), strict=True))
        assert given_ == pytest.approx(wanted, abs=1e-6)


@given(groups=st.integers(1, 8), size=st.integers(1, 8), data=st.data(), scale=st.sampled_from([0.0, 1.0, 1e4]))
def test_every_group_gives_every_token_the_same_number_of_experts(
    groups: int, size: int, data: st.DataObject, scale: float
) -> None:
    each = data.draw(st.integers(1, size))
    _, ids = route(torch.randn(20, groups * size) * scale, groups, groups * each)
    for row in ids:
        assert torch.bincount(row // size, minlength=groups).tolist() == [each] * groups
        assert len(set(row.tolist())) == groups * each


def test_probabilities_are_float32_whatever_the_logits_are() -> None:
    weights, _ = route(torch.randn(3, 8).bfloat16(), 4, 4)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(3))


def test_weights_stay_finite_where_all_chosen_probabilities_underflow() -> None:
    logits = torch.tensor([[0.0, 0.0, -500.0, -500.0]])
    weights, ids = route(logits, 2, 2)
    assert torch.isfinite(weights).all()
    assert ids[0, 1] >= 2
