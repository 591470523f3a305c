"""The auxiliary heads' losses and what is read off them."""

from __future__ import annotations

import math

import pytest
import torch

from s1batch.engine.reference.training.losses import onset_losses, text_loss
from s1batch.engine.reference.training.onset_heads import OnsetHeads, OnsetReading, read_onsets

TOKENS, STEP = 8, 100


def perfect(onsets: list[list[float]]) -> OnsetReading:
    """What heads say that know the onsets."""
    batch = len(onsets)
    presence = torch.full((batch, TOKENS, 2), -20.0)
    tens, circle = torch.zeros(batch, TOKENS, 2, 10), torch.zeros(batch, TOKENS, 2, 2)
    for row, pair in enumerate(onsets):
        for phase, onset in enumerate(pair):
            if not math.isnan(onset):
                token, offset = divmod(onset, STEP)
                presence[row, int(token), phase] = 20.0
                tens[row, int(token), phase, int(offset // 10)] = 40.0
                angle = 2 * math.pi * offset / STEP
                circle[row, int(token), phase] = torch.tensor([math.cos(angle), math.sin(angle)])
    place = torch.zeros(batch, TOKENS, 20)
    for token in range(TOKENS):
        place[:, token, token // 10] = place[:, token, 10 + token % 10] = 40.0
    return OnsetReading(presence_BNF=presence, tens_BNFD=tens, circle_BNF2=circle, place_BND=place)


def test_knowing_heads_lose_nothing_and_their_onsets_come_back():
    onsets = [[123.0, 456.5], [799.0, math.nan], [math.nan, math.nan]]
    reading = perfect(onsets)
    assert float(onset_losses(reading, torch.tensor(onsets), STEP).total()) < 1e-4
    found, probability = read_onsets(reading, STEP)
    for row, pair in enumerate(onsets):
        for phase, onset in enumerate(pair):
            assert float(probability[row, phase]) == pytest.approx(0.0 if math.isnan(onset) else 1.0, abs=1e-4)
            if not math.isnan(onset):
                assert float(found[row, phase]) == pytest.approx(onset, abs=0.01)


def test_ignorant_heads_lose_the_entropy_of_guessing():
    heads = OnsetHeads(6)
    torch.nn.init.zeros_(heads.read.weight)
    torch.nn.init.zeros_(heads.read.bias)
    with torch.no_grad():
        said = heads(torch.randn(2, TOKENS, 6))
    losses = onset_losses(said, torch.tensor([[10.0, 250.0], [math.nan, 30.0]]), STEP)
    assert float(losses.pointer) == pytest.approx(math.log(TOKENS + 1), rel=1e-5)
    assert float(losses.tens) == pytest.approx(math.log(10), rel=1e-5)
    assert float(losses.circle) == pytest.approx(1.0, rel=1e-5)


def test_a_batch_without_any_onset_has_a_finite_loss():
    losses = onset_losses(perfect([[math.nan, math.nan]]), torch.full((1, 2), math.nan), STEP)
    assert math.isfinite(float(losses.total()))


def test_padding_has_no_part_in_the_text_loss():
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    answer = torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 1, 2]])
    weight = torch.tensor([[1.0, 2, 1, 0, 0], [1.0, 1, 1, 1, 1]])
    before = text_loss(logits, answer, weight)
    logits[0, 3:] = 100 * torch.randn(2, 7)
    assert torch.equal(before, text_loss(logits, answer, weight))
