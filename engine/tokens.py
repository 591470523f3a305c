"""How many tokens a series or an image becomes in Intern-S1-Pro; arithmetic only, no weights.

Source of the formulas: the public modelling and preprocessing code of Intern-S1-Pro and LMDeploy 0.18.0.
"""

from __future__ import annotations

import math

LMDEPLOY_LONGEST_SERIES = 240_000
"""Samples after which LMDeploy 0.18.0 cuts a series without a word."""

POISON_BELOW_HZ = 1660.0
POISON_ABOVE_HZ = 3680.0
"""Safe rates on both sides of the range in which float32 and float64 disagree about the stride."""


def stride(rate_hz: float) -> int:
    """Return the samples between two patches, floor(160 / (1 + exp(-rate/100))**6), in float64.

    A patch is two strides long. 2 at or below 5 Hz, 24 at 100 Hz, 160 from 3674 Hz on.
    """
    return math.floor(160 / (1 + math.exp(-rate_hz / 100)) ** 6)


def patches(steps: int, rate_hz: float) -> int:
    """Return the number of half-overlapping patches of a series of `steps` samples; the last is zero-padded."""
    hop = stride(rate_hz)
    return max(math.ceil((steps - 2 * hop) / hop) + 1, 0)


def series_tokens(steps: int, rate_hz: float) -> int:
    """Return the tokens that a series of `steps` samples at `rate_hz` becomes, whatever its channels.

    (6000, 3) at 100 Hz becomes 62; 240,000 at 100 Hz becomes 2,500.
    """
    return (patches(steps, rate_hz) // 2 + 1) // 2


def shortest_series(rate_hz: float) -> int:
    """Return the fewest samples that the encoder takes at this rate: one more than a patch (49 at 100 Hz)."""
    return 2 * stride(rate_hz) + 1


def is_poison_rate(rate_hz: float) -> bool:
    """Return whether placeholders (strides in float64) and embeddings (strides in float32) disagree at this rate.

    They do for 1663.75 to 3673.5 Hz, because 160 * sigmoid**6 is 160 in float32 long before it is in float64; the
    whole range between the two safe rates counts as poison.
    """
    return POISON_BELOW_HZ < rate_hz < POISON_ABOVE_HZ


def safe_rate(rate_hz: float) -> float:
    """Return the rate itself, or the nearest one outside the poison range."""
    if not is_poison_rate(rate_hz):
        return rate_hz
    return POISON_BELOW_HZ if rate_hz - POISON_BELOW_HZ < POISON_ABOVE_HZ - rate_hz else POISON_ABOVE_HZ


def image_tokens(width: int, height: int, patch: int = 16, merge: int = 2) -> int:
    """Return the tokens of an image whose sides were rounded to multiples of patch * merge (320 x 256 becomes 80)."""
    cell = patch * merge
    return max(round(width / cell), 1) * max(round(height / cell), 1)
