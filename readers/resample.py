"""Resampling to an even grid at any phase, with an anti-alias filter.

Output j is the sum over k of x[k] g(p + j r - k), where p is the place of output 0 in input samples, r is input rate
over output rate, and g a sinc of cut-off 0.95 of the lower Nyquist frequency under a Kaiser window of 64 samples of
the lower rate to each side: flat up to 0.9, 99.8 dB down from 1.0 of the lower Nyquist frequency on (Kaiser 1974).
Because p is any real number, the result depends on absolute time alone, not on where a window begins.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

SINC_HALF_SAMPLES = 64
"""Half the length of the kernel, in samples of the lower of the two rates."""

_CUTOFF = 0.95
_KAISER_BETA = 0.1102 * (99.8 - 8.7)


def resample(values: NDArray[np.float64], position: float, count: int, ratio: Fraction) -> NDArray[np.float64]:
    """Return `count` samples at position, position + 1/ratio, ... in units of input samples.

    Args:
        values: Input; before its first and behind its last sample it is taken as constant.
        position: Place of output 0; 0 is the first input sample. May lie outside.
        count: How many outputs.
        ratio: Output rate over input rate.
    """
    from scipy.signal import upfirdn

    up, down = ratio.numerator, ratio.denominator
    half = math.ceil(SINC_HALF_SAMPLES * max(1.0, down / up))
    low = math.floor(position) - half - 1
    high = math.floor(position + (count - 1) * down / up) + half + 2
    padded = values[np.clip(np.arange(low, high), 0, len(values) - 1)]
    # In steps of 1/up of an input sample, output j stands at `whole` + `part` + j * down in `padded`.
    whole = math.floor((position - low) * up)
    part = (position - low) * up - whole
    # The kernel is delayed by `skipped` outputs so that it begins at index 0.
    skipped = math.ceil((whole + half * up + 1) / down)
    taps = np.arange(skipped * down - whole + half * up + 1)
    kernel = _kernel((taps - skipped * down + whole + part) / up, half, min(1.0, up / down))
    if len(kernel) % up:
        kernel = np.concatenate((kernel, np.zeros(up - len(kernel) % up)))
    phases = kernel.reshape(-1, up)
    phases /= phases.sum(axis=0)  # every phase passes a constant unchanged, however large it is
    found: NDArray[np.float64] = upfirdn(phases.reshape(-1), padded, up, down)[skipped : skipped + count]
    return found


def _kernel(at: NDArray[np.float64], half: int, bandwidth: float) -> NDArray[np.float64]:
    """The windowed sinc at distances in input samples; 0 beyond `half`."""
    cutoff = _CUTOFF * bandwidth
    inside = np.clip(1 - (at / half) ** 2, 0, None)
    window = np.where(np.abs(at) < half, np.i0(_KAISER_BETA * np.sqrt(inside)), 0.0)
    kernel: NDArray[np.float64] = np.sinc(cutoff * at) * window
    return kernel
