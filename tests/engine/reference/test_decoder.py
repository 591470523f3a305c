"""The decoder against a second one, written from the description with loops and no cache, and against transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from s1batch.engine.reference.cache import KVCache
from s1batch.engine.reference.checkpoint import initialise, public_tensors
from s1batch.engine.reference.config import FopeConfig
from s1batch.engine.reference.model import InternS1Pro
from s1batch.errors import EngineError
from tests.engine.reference import naive
from tests.engine.reference.conftest import small_config


def roughened(model: InternS1Pro) -> tuple[InternS1Pro, dict[str, Any]]:
    """The model with norms and biases that are not one and zero, and its weights in float64."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn(weight.shape, generator=generator) * (0.3 if "norm" in name else 0.1))
    return model, {name: tensor.double().numpy() for name, tensor in public_tensors(model).items()}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"fope": FopeConfig(sep_head=False)},
        {"fope": FopeConfig(num_inv_freq=8)},
        {"fope": FopeConfig(num_inv_freq=3), "num_attention_heads": 3},
        {"router_n_groups": 1, "num_experts_per_tok": 5},
        {"router_n_groups": 6, "num_experts_per_tok": 6, "num_key_value_heads": 1},
    ],
)
def test_logits_are_those_of_the_independent_decoder(change: dict[str, Any]) -> None:
    config = small_config(**change)
    model, weights = roughened(initialise(config, 3))
    ids = [7, 60, 60, 3, 3, 55, 60, 0, 41, 12, 9]
    series = np.random.default_rng(0).standard_normal((3, 24)).astype(np.float32)
    with torch.inference_mode():
        made = model(torch.tensor(ids), [torch.from_numpy(series[:2]), torch.from_numpy(series[2:])])
    wanted = naive.decoder_logits(config.to_document(), weights, ids, series.astype(np.float64))
    assert np.abs(wanted).max() > 1
    np.testing.assert_allclose(made.numpy(), wanted, atol=1e-5)


def cached(model: InternS1Pro, ids: Tensor, pieces: list[int]) -> Tensor:
    cache, parts = KVCache(model.config.text), []
    for piece in torch.split(ids, pieces):
        parts.append(model.lm_head(model.states(model.embed(piece), cache)))
    assert cache.length == len(ids)
    return torch.cat(parts)


@pytest.mark.parametrize("pieces", [[1] * 30, [29, 1], [10, 1, 1, 18], [1, 29]])
def test_decoding_with_the_cache_is_full_recomputation(pieces: list[int]) -> None:
    model, _ = roughened(initialise(small_config(), 1))
    ids = torch.randint(0, 56, (30,), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(cached(model, ids, pieces), model(ids), atol=1e-5, rtol=0)


def test_the_cache_grows_beyond_its_first_capacity_without_loss() -> None:
    model, _ = roughened(initialise(small_config(max_position_embeddings=700), 1))
    ids = torch.randint(0, 56, (600,), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(cached(model, ids, [250, 10, 1, 339]), model(ids), atol=1e-5, rtol=0)


def test_no_token_sees_a_later_one() -> None:
    model, _ = roughened(initialise(small_config(), 1))
    ids = torch.arange(20)
    changed = torch.cat((ids[:10], ids[10:].flip(0)))
    with torch.inference_mode():
        torch.testing.assert_close(model(ids)[:10], model(changed)[:10], atol=1e-6, rtol=0)
        assert not torch.allclose(model(ids)[10:], model(changed)[10:], atol=1e-2)


def test_placeholders_and_embeddings_must_match() -> None:
    model = initialise(small_config(), 0)
    for ids, count in (([1, 60, 2], 0), ([1, 60, 2], 2), ([1, 2], 1)):
        with pytest.raises(EngineError, match="embeddings of series"):
            model.embed(torch.tensor(ids), [torch.zeros(count, 24)] if count else [])
