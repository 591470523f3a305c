"""The batched passes compute what the serving modules compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from s1batch.engine.reference.checkpoint import initialise
from s1batch.engine.reference.model import InternS1Pro
from s1batch.engine.reference.time_series import standardise
from s1batch.engine.reference.training.decoder_batches import decode
from s1batch.engine.reference.training.series_batches import (
    PatchTraining,
    encode_features,
    patch_features,
    prepare_patch_stage,
)
from tests.engine.reference.conftest import small_config

RATE_HZ = 102.0
FULL = PatchTraining(live_units=2048, attention=True, half=False)
TWIN = PatchTraining(live_units=48, attention=False, half=False)


@pytest.fixture(scope="module")
def model() -> InternS1Pro:
    return initialise(small_config(), 2)


@pytest.fixture(scope="module")
def waves() -> np.ndarray:
    made = np.random.default_rng(0).normal(size=(3, 700, 3)).astype(np.float32)
    made[1, :, 2] = 0  # a missing component
    return made


@pytest.mark.parametrize("training", [FULL, TWIN])
def test_the_encoder_over_a_batch_is_the_serving_encoder_window_by_window(model, waves, training):
    """Also with the twin's few live units: the serving stage computes all 2048 and the attention, which are zero."""
    encoder = model.model.time_series
    if training is TWIN:
        encoder = initialise(small_config(), 2).model.time_series
        prepare_patch_stage(encoder.encoder_embed, TWIN, 5)
    scored_BCT = torch.from_numpy(np.stack([standardise(wave) for wave in waves]))
    with torch.no_grad():
        found = encode_features(encoder, patch_features(encoder.encoder_embed, scored_BCT, RATE_HZ, training))
        for row, wave in zip(found, waves, strict=True):
            torch.testing.assert_close(row, encoder(wave, RATE_HZ), rtol=1e-4, atol=2e-5)


def test_bfloat16_features_are_close_to_the_exact_ones(model, waves):
    stage = model.model.time_series.encoder_embed
    scored_BCT = torch.from_numpy(np.stack([standardise(wave) for wave in waves]))
    half = PatchTraining(live_units=2048, attention=True, half=True)
    with torch.no_grad():
        exact, rough = (patch_features(stage, scored_BCT, RATE_HZ, training) for training in (FULL, half))
    assert functional.cosine_similarity(exact.flatten(), rough.flatten(), dim=0) > 0.9995


def test_the_decoder_over_a_batch_with_a_shared_beginning_is_the_serving_decoder(model):
    random = torch.Generator().manual_seed(1)
    decoder = model.model.language_model
    shared = torch.randint(0, 55, (9,), generator=random)
    own = torch.randint(0, 55, (4, 13), generator=random)
    with torch.no_grad():
        states = decode(decoder, decoder.embed_tokens(shared), decoder.embed_tokens(own))
        for row, ids in zip(states, own, strict=True):
            torch.testing.assert_close(model.lm_head(row), model(torch.cat((shared, ids)))[9:], rtol=1e-4, atol=1e-5)


def test_all_parts_that_are_trained_get_gradients(model, waves):
    trained = initialise(small_config(), 2)
    scored_BCT = torch.from_numpy(np.stack([standardise(wave) for wave in waves]))
    encoder = trained.model.time_series
    series = encode_features(encoder, patch_features(encoder.encoder_embed, scored_BCT, RATE_HZ, FULL))
    decoder = trained.model.language_model
    states = decode(decoder, decoder.embed_tokens(torch.tensor([1, 2, 3])), series)
    (trained.lm_head(states) * torch.randn(trained.lm_head(states).shape)).sum().backward()
    without = [
        name
        for name, parameter in trained.named_parameters()
        if "visual." not in name and (parameter.grad is None or not parameter.grad.any())
    ]
    assert without == []
