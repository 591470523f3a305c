"""How much data around a window its processing needs.

The length of each step's kernel is stated here once: the planner lists the files that the margin touches, and the
processing reads as much. Within the margin a kernel has decayed below double precision or ends, so that a window
equals the same stretch cut out of a whole processed day.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from s1batch.errors import SourceError
from s1batch.readers.resample import SINC_HALF_SAMPLES
from s1batch.readers.seismic.spec import FilterSpec, ResponseSpec, SeismicSource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DECAY = 1e-14
"""A filter's memory of what came before the margin, relative to the signal."""

_RESPONSE_CYCLES = 4.0
"""Half the length of the inverse response, in periods of the narrowest flank of its passband."""


def margin_ns(spec: SeismicSource, rate_hz: float) -> int:
    """Return how far before and behind a window samples can influence it, in nanoseconds; 0 without processing.

    Args:
        spec: The source with its filter, response and resampling.
        rate_hz: The recorded rate.
    """
    margin_s = 0.0
    if spec.response is not None:
        margin_s += response_half_s(spec.response, rate_hz)
    if spec.filter is not None and not _is_above_nyquist(spec.filter, rate_hz):
        margin_s += filter_memory_samples(design_sos(spec.filter, rate_hz)) / rate_hz
    if resampling_ratio(spec, rate_hz) != 1:
        margin_s += SINC_HALF_SAMPLES / min(rate_hz, spec.rate_hz or rate_hz)
    return math.ceil((margin_s + 2 / rate_hz) * 1e9) if margin_s else 0


def sent_spec(spec: SeismicSource, sent_hz: float, factor: int) -> SeismicSource:
    """Return the source as it is for windows that are sent at 1/factor of the usual rate, which then is `sent_hz`.

    A lower rate is asked for like `source.rate_hz`, so these windows go the way of every resampled one.
    """
    return spec if factor == 1 else spec.model_copy(update={"rate_hz": sent_hz})


def sent_steps(length_ns: int, sent_hz: float) -> int:
    """Return how many points of the grid that is sent a window holds, whose ends are rounded to ns.

    A window that is sent at a lower rate need not be a whole number of its samples long; the last point then stands for
    less than a whole period, and no sample lies behind what the last point stands for.
    """
    return math.ceil(length_ns * sent_hz / 1e9 - max(1e-5, 2e-9 * sent_hz))


def resampling_ratio(spec: SeismicSource, rate_hz: float) -> Fraction:
    """Return sent rate / recorded rate as a fraction with a denominator of at most 10,000."""
    if spec.rate_hz is None:
        return Fraction(1)
    return Fraction(spec.rate_hz / rate_hz).limit_denominator(10_000)


def design_sos(spec: FilterSpec, rate_hz: float) -> NDArray[np.float64] | None:
    """Return the Butterworth filter as second-order sections; None where it passes everything.

    A corner above the Nyquist frequency has nothing to take away: a low-pass there passes everything, and a
    band-pass becomes a high-pass.

    Raises:
        SourceError: When nothing would pass, because the lower corner is above the Nyquist frequency.
    """
    from scipy.signal import butter

    nyquist_hz = rate_hz / 2
    if _is_above_nyquist(spec, rate_hz):
        raise SourceError(
            "invalid_request",
            f"filter.freqmin_hz {spec.freqmin_hz:g} is not below the Nyquist frequency of {rate_hz:g} Hz data: "
            "lower it, or select other channels",
        )
    low = spec.freqmin_hz if spec.type != "lowpass" else None
    high = spec.freqmax_hz if spec.type != "highpass" else None
    if high is not None and high >= nyquist_hz:
        high = None
    if low is not None and high is not None:
        sos = butter(spec.corners, (low, high), "bandpass", fs=rate_hz, output="sos")
    elif low is not None:
        sos = butter(spec.corners, low, "highpass", fs=rate_hz, output="sos")
    elif high is not None:
        sos = butter(spec.corners, high, "lowpass", fs=rate_hz, output="sos")
    else:
        return None
    found: NDArray[np.float64] = sos
    return found


def filter_memory_samples(sos: NDArray[np.float64] | None) -> int:
    """Return after how many samples the slowest pole of a filter has decayed: ln(1e-14) / ln(pole radius)."""
    if sos is None:
        return 0
    from scipy.signal import sos2zpk

    radius = float(abs(sos2zpk(sos)[1]).max())
    return math.ceil(math.log(_DECAY) / math.log(min(max(radius, 1e-3), 1 - 1e-12)))


def response_corners_hz(spec: ResponseSpec, rate_hz: float) -> tuple[float, float, float, float]:
    """Return the four corners of the passband in which the response is removed.

    Without `pre_filt_hz` these are 0.01, 0.02 Hz, and 80 and 95 % of the Nyquist frequency: an inverse without a
    passband has no finite length.
    """
    if spec.pre_filt_hz is not None:
        return spec.pre_filt_hz
    nyquist_hz = rate_hz / 2
    low = min(0.01, nyquist_hz / 100)
    return (low, 2 * low, 0.8 * nyquist_hz, 0.95 * nyquist_hz)


def response_half_s(spec: ResponseSpec, rate_hz: float) -> float:
    """Return half the length of the inverse response in seconds: 4 periods of the passband's narrowest flank."""
    first, second, third, fourth = response_corners_hz(spec, rate_hz)
    return _RESPONSE_CYCLES / max(min(second - first, fourth - third), 1e-6)


def _is_above_nyquist(spec: FilterSpec, rate_hz: float) -> bool:
    return spec.type != "lowpass" and spec.freqmin_hz is not None and spec.freqmin_hz >= rate_hz / 2
