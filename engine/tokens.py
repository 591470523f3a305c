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

IMAGE_PATCH = 16
"""Pixels of a side of a patch of the vision tower."""

IMAGE_CELL = 2 * IMAGE_PATCH
"""Pixels of a side of what becomes one token: 2 x 2 patches are merged."""

LEAST_IMAGE_PIXELS = 65_536
MOST_IMAGE_PIXELS = 16_777_216
"""Bounds of the area of a processed image (`size` in preprocessor_config.json); the bounds of Qwen3-VL's processor."""

_STEP_MARGIN = 4e-6
"""Relative distance to a whole number below which float32 may round to its other side: 7 times the largest error that
was found over 4 million rates below 1660 Hz."""


def stride(rate_hz: float) -> int:
    """Return the samples between two patches, floor(160 / (1 + exp(-rate/100))**6), in float64.

    A patch is two strides long. 2 at or below 5 Hz, 24 at 100 Hz, 160 from 3674 Hz on.
    """
    return math.floor(_exact_stride(rate_hz))


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
    """Return whether placeholders (strides in float64) and embeddings (strides in float32) may disagree at this rate.

    They do for 1663.75 to 3673.5 Hz, because 160 * sigmoid**6 is 160 in float32 long before it is in float64; the
    whole range between the two safe rates counts as poison. They also do at single rates where the stride steps up,
    such as 384.94 Hz, as rounding decides on which side of a whole number the value falls.
    """
    return POISON_BELOW_HZ < rate_hz < POISON_ABOVE_HZ or _is_at_a_step(rate_hz)


def safe_rate(rate_hz: float) -> float:
    """Return the rate itself, or one close by at which both precisions agree.

    Inside the poison range that is its nearer end; at a step of the stride it is less than 1 Hz away, with the same
    stride.
    """
    if POISON_BELOW_HZ < rate_hz < POISON_ABOVE_HZ:
        return POISON_BELOW_HZ if rate_hz - POISON_BELOW_HZ < POISON_ABOVE_HZ - rate_hz else POISON_ABOVE_HZ
    if not _is_at_a_step(rate_hz):
        return rate_hz
    value = _exact_stride(rate_hz)
    step = round(value)
    target = step * (1 + 2 * _STEP_MARGIN if value >= step else 1 - 2 * _STEP_MARGIN)
    return -100 * math.log((160 / target) ** (1 / 6) - 1)


def _exact_stride(rate_hz: float) -> float:
    return 160 / (1 + math.exp(-rate_hz / 100)) ** 6


def _is_at_a_step(rate_hz: float) -> bool:
    if not 0 < rate_hz < math.inf:
        return False
    value = _exact_stride(rate_hz)
    step = round(value)
    return step < 160 and abs(value - step) <= _STEP_MARGIN * step


def image_tokens(width: int, height: int) -> int:
    """Return the tokens that an image becomes: one for each 32 x 32 pixels of its processed size.

    320 x 256 becomes 80; 1024 x 1024 becomes 1,024. No image becomes fewer than 64, or more than 16,384.
    """
    sent_width, sent_height = image_size(width, height)
    return (sent_width // IMAGE_CELL) * (sent_height // IMAGE_CELL)


def image_size(width: int, height: int) -> tuple[int, int]:
    """Return the width and height to which the image processor scales an image before its patches are cut.

    Both sides are rounded to multiples of 32 (halves to even). Where that leaves fewer than 65,536 pixels or more than
    16,777,216, the image is scaled first, sides rounded up or down so that the bound holds.
    """
    sides = [round(side / IMAGE_CELL) * IMAGE_CELL for side in (width, height)]
    if sides[0] * sides[1] > MOST_IMAGE_PIXELS:
        shrink = math.sqrt(width * height / MOST_IMAGE_PIXELS)
        sides = [max(math.floor(side / shrink / IMAGE_CELL) * IMAGE_CELL, IMAGE_CELL) for side in (width, height)]
    elif sides[0] * sides[1] < LEAST_IMAGE_PIXELS:
        stretch = math.sqrt(LEAST_IMAGE_PIXELS / (width * height))
        sides = [math.ceil(side * stretch / IMAGE_CELL) * IMAGE_CELL for side in (width, height)]
    return sides[0], sides[1]
