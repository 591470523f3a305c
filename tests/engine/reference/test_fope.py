"""FoPE's tables against the formula in float64, one number at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from s1batch.engine.reference.checkpoint import initialise
from s1batch.engine.reference.config import FopeConfig, TextConfig
from s1batch.engine.reference.fope import Fope, rotate
from tests.engine.reference.conftest import small_config

POSITIONS = (0, 1, 2, 7, 100, 511, 20_000)


def coefficients(fope: Fope) -> tuple[Fope, NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(1)
    sin = rng.standard_normal(fope.sin_coef.shape).astype(np.float32)
    cos = rng.standard_normal(fope.cos_coef.shape).astype(np.float32)
    fope.load_state_dict({"sin_coef": torch.from_numpy(sin), "cos_coef": torch.from_numpy(cos)})
    return fope, sin.astype(np.float64), cos.astype(np.float64)


def by_formula(config: TextConfig, table: NDArray[np.float64], position: int, wave: str) -> NDArray[np.float64]:
    """One position's table for each key/value head, (n_kv, D)."""
    half = config.head_dim // 2
    thetas = [config.rope_theta ** (-2 * i / config.head_dim) for i in range(half)]
    limit = config.fope.num_inv_freq
    kept = (
        thetas[:limit] if limit else [theta for theta in thetas if theta > 2 * math.pi / config.max_position_embeddings]
    )
    result = np.ones((config.num_key_value_heads, half))
    for head in range(config.num_key_value_heads):
        matrix = table[head] if config.fope.sep_head else table
        for column in range(len(kept)):
            result[head, column] = sum(
                getattr(math, wave)(position * theta) * matrix[row, column] for row, theta in enumerate(kept)
            )
    return np.concatenate((result, result), axis=1)


@pytest.mark.parametrize("sep_head", [True, False])
@pytest.mark.parametrize("num_inv_freq", [None, 1, 5, 8])
def test_the_tables_are_the_formula(sep_head: bool, num_inv_freq: int | None) -> None:
    config = small_config(rope_theta=1000.0, fope=FopeConfig(sep_head=sep_head, num_inv_freq=num_inv_freq)).text
    fope, sin, cos = coefficients(Fope(config))
    made_cos, made_sin = fope(torch.tensor(POSITIONS))
    assert made_cos.dtype == made_sin.dtype == torch.float32
    for place, position in enumerate(POSITIONS):
        for made, table, wave in ((made_cos, cos, "cos"), (made_sin, sin, "sin")):
            wanted = by_formula(config, table, position, wave)
            given = np.broadcast_to(made[:, place].numpy(), wanted.shape)
            # An angle of 20,000 radians has an error of about 1e-3 in float32, as in the public code.
            np.testing.assert_allclose(given, wanted, atol=2e-6 * max(position, 5))


def test_pairs_without_a_frequency_turn_by_45_degrees_and_grow_by_root_two() -> None:
    config = small_config(rope_theta=1e6).text
    kept, half = config.fope_frequencies, config.head_dim // 2
    assert kept < half
    cos, sin = coefficients(Fope(config))[0](torch.arange(9))
    for table in (cos, sin):
        assert (table[..., kept:half] == 1).all()
        assert (table[..., half + kept :] == 1).all()
    heads = torch.randn(config.num_key_value_heads, 9, config.head_dim)
    turned = rotate(heads, cos, sin)
    first, second = heads[..., kept:half], heads[..., half + kept :]
    torch.testing.assert_close(turned[..., kept:half], first - second)
    torch.testing.assert_close(turned[..., half + kept :], second + first)


def test_with_identity_coefficients_it_is_plain_rotation() -> None:
    config = small_config(rope_theta=1000.0, fope=FopeConfig(num_inv_freq=8)).text
    fope = Fope(config)
    unit = torch.eye(8).expand(3, 8, 8)
    fope.load_state_dict({"sin_coef": unit, "cos_coef": unit})
    cos, sin = fope(torch.arange(50))
    heads = torch.randn(3, 50, 16, generator=torch.Generator().manual_seed(0))
    angles = torch.arange(50)[:, None] * 1000.0 ** (-torch.arange(8) * 2 / 16)
    wanted = torch.view_as_complex(torch.stack((heads[..., :8], heads[..., 8:]), -1)) * torch.polar(
        torch.ones_like(angles), angles
    )
    torch.testing.assert_close(rotate(heads, cos, sin), torch.cat((wanted.real, wanted.imag), -1), atol=1e-5, rtol=1e-5)


def test_initial_coefficients_are_the_identity_plus_xavier_noise_of_the_given_gain() -> None:
    for sep_head, wanted in ((True, 0.5 * math.sqrt(2 / (64 * 64 + 3 * 64))), (False, 0.5 * math.sqrt(2 / 128))):
        config = small_config(head_dim=128, fope=FopeConfig(sep_head=sep_head, num_inv_freq=64))
        tables = initialise(config, 0).model.language_model.rotary_emb
        for table in (tables.sin_coef, tables.cos_coef):
            noise = table - torch.eye(64)
            assert abs(float(noise.std()) / wanted - 1) < 0.05
            assert abs(float(noise.mean())) < wanted / 10
        assert not torch.equal(tables.sin_coef, tables.cos_coef)
        assert not list(tables.parameters()), "the coefficients take no gradient"
