"""Token counts of series: the published examples, and the rules between them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from s1batch.engine.tokens import (
    image_size,
    image_tokens,
    is_poison_rate,
    safe_rate,
    series_tokens,
    shortest_series,
    stride,
)


@pytest.mark.parametrize(
    ("rate_hz", "expected"), [(1, 2), (5, 2), (50, 9), (100, 24), (200, 74), (500, 153), (3674, 160), (16000, 160)]
)
def test_strides(rate_hz, expected):
    assert stride(rate_hz) == expected


@pytest.mark.parametrize(
    ("steps", "rate_hz", "expected"),
    [(6000, 100, 62), (240_000, 100, 2500), (240_000, 50, 6667), (240_000, 5, 30_000), (240_000, 16_000, 375)],
)
def test_published_counts(steps, rate_hz, expected):
    assert series_tokens(steps, rate_hz) == expected


@pytest.mark.parametrize(("rate_hz", "expected"), [(100, 49), (200, 149), (1000, 319), (16_000, 321)])
def test_shortest_series(rate_hz, expected):
    assert shortest_series(rate_hz) == expected
    assert series_tokens(expected, rate_hz) >= 1


@given(st.integers(49, 2_000_000))
def test_a_longer_series_never_becomes_fewer_tokens(steps):
    assert series_tokens(steps, 100) <= series_tokens(steps + 1, 100)


def _stride_float32(rate_hz: float) -> int:
    sigmoid = np.float32(1) / (np.float32(1) + np.exp(np.float32(-rate_hz) / np.float32(100)))
    return int(np.floor(np.float32(160) * sigmoid ** np.float32(6)))


@given(st.floats(0.1, 50_000))
def test_at_a_safe_rate_both_precisions_agree(rate_hz):
    safe = safe_rate(rate_hz)
    assert stride(safe) == _stride_float32(safe) or math.isclose(_raw(safe), round(_raw(safe)), abs_tol=1e-4)
    assert not is_poison_rate(safe)


def _raw(rate_hz: float) -> float:
    return 160 / (1 + math.exp(-rate_hz / 100)) ** 6


def test_every_integer_rate_of_the_range_is_poison():
    rates = range(1664, 3674)
    assert all(stride(rate) != _stride_float32(rate) for rate in rates)
    assert all(is_poison_rate(rate) for rate in rates)


def test_rates_outside_the_range_are_not_touched():
    assert [safe_rate(rate) for rate in (1, 100, 1660, 3680, 44_100)] == [1, 100, 1660, 3680, 44_100]
    assert (safe_rate(1700), safe_rate(3600)) == (1660, 3680)


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [(320, 256, 80), (1024, 1024, 1024), (32, 32, 64), (1, 1, 64), (4096, 4096, 16_384), (8000, 8000, 16_384)],
)
def test_image_tokens(width, height, tokens):
    assert image_tokens(width, height) == tokens


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_images_are_scaled_as_the_processor_scales_them(width, height):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    assume(max(width, height) <= 200 * min(width, height))
    wanted = smart_resize(height, width, factor=32, min_pixels=65_536, max_pixels=16_777_216)
    assert image_size(width, height) == wanted[::-1]
    assert image_tokens(width, height) * 1024 == wanted[0] * wanted[1]
