"""Sampling rates at which float32 and float64 compute different strides are found and replaced."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from s1batch.engine.tokens import is_poison_rate, safe_rate, stride

RATES_IN_USE = [0.1, 1, 2, 4, 5, 10, 18.18, 20, 25, 31.25, 40, 50, 62.5, 75, 80, 100, 120, 125, 128, 150, 200, 250, 256]
RATES_IN_USE += [
    300,
    400,
    500,
    512,
    600,
    800,
    1000,
    1024,
    1250,
    1500,
    1600,
    4000,
    4096,
    5000,
    8000,
    16_000,
    44_100,
    48_000,
]


def stride_in_float32(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    hundred, one, most = np.float32(100), np.float32(1), np.float32(160)
    sums = one + np.exp(-rates.astype(np.float32) / hundred)
    strides: NDArray[np.float64] = np.floor(most / sums**6).astype(np.float64)
    return strides


@given(st.floats(0.01, 50_000))
@example(384.94)
@example(183.864)
@example(686.325)
@example(1663.75)
@example(2000.0)
def test_both_precisions_agree_at_a_safe_rate(rate_hz: float) -> None:
    safe = safe_rate(rate_hz)
    assert stride_in_float32(np.array([safe]))[0] == stride(safe)
    assert not is_poison_rate(safe)
    assert safe_rate(safe) == safe
    assert (safe != rate_hz) == is_poison_rate(rate_hz)


@pytest.mark.parametrize("rate_hz", RATES_IN_USE)
def test_rates_that_instruments_use_are_left_alone(rate_hz: float) -> None:
    assert safe_rate(rate_hz) == rate_hz


def test_a_nudge_at_a_step_keeps_the_stride_and_is_small() -> None:
    rates = np.arange(5.0, 1660.0, 0.001)
    disagree = rates[stride_in_float32(rates) != np.floor(160 / (1 + np.exp(-rates / 100)) ** 6)]
    assert len(disagree) > 5, "there are such rates"
    for rate_hz in disagree.tolist():
        safe = safe_rate(rate_hz)
        assert is_poison_rate(rate_hz)
        assert 0 < abs(safe - rate_hz) < 1
        assert stride(safe) == stride(rate_hz)


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, -1e9, float("inf"), float("-inf")])
def test_what_is_no_rate_stays_as_it_is_for_the_rules_to_refuse(rate_hz: float) -> None:
    assert safe_rate(rate_hz) == rate_hz
    assert not is_poison_rate(float("nan"))
