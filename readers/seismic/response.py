"""Removal of the instrument response by a filter of fixed length, so that a window needs only its surroundings.

ObsPy's `Trace.remove_response` divides the spectrum of the whole trace by the response (passband taper, water level),
so that each sample depends on all others. Here the same quotient, with the same taper and water level, is turned into
an impulse response, cut to `margin.response_half_s` to each side under a Tukey window, freed of its mean, and applied
by convolution. Inside the passband both agree within about a percent of the signal (the tests hold that); the flanks
of the passband are smoothed by the reciprocal of the filter's length.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s1batch.errors import SourceError
from s1batch.readers.seismic.margin import response_corners_hz, response_half_s
from s1batch.readers.seismic.spec import ResponseSpec

UNITS = {"DISP": "m", "VEL": "m/s", "ACC": "m/s**2"}
"""Unit of what each output of `ResponseSpec` is."""


class ResponseRemoval:
    """Inverse responses from one inventory; keeps those it has computed.

    Args:
        spec: Which output, passband and water level.
        base_dir: What the inventory's path is relative to.
    """

    def __init__(self, spec: ResponseSpec, base_dir: Path) -> None:
        self._spec = spec
        self._path = base_dir / spec.inventory
        self._inventory: Any = None
        self._kernels: dict[tuple[int, float], NDArray[np.float64]] = {}

    def apply(self, values: NDArray[np.float64], channel: str, rate_hz: float, time_ns: int) -> NDArray[np.float64]:
        """Return the values with the response removed; outside its ends the input is taken as constant.

        Args:
            values: One contiguous stretch.
            channel: "NET.STA.LOC.CHA".
            rate_hz: Its rate.
            time_ns: Which epoch of the inventory counts.

        Raises:
            SourceError: When the inventory cannot be read or has no response for the channel at that time.
        """
        from scipy.signal import oaconvolve

        kernel = self._kernel(channel, rate_hz, time_ns)
        half = len(kernel) // 2
        # A constant gives zero; taking it away first keeps large offsets out of the rounding.
        padded = np.pad(values - values[0], half, mode="edge")
        removed: NDArray[np.float64] = oaconvolve(padded, kernel, mode="valid")
        return removed

    def _kernel(self, channel: str, rate_hz: float, time_ns: int) -> NDArray[np.float64]:
        response = self._response(channel, time_ns)
        key = (id(response), rate_hz)  # the inventory keeps the response alive
        if key not in self._kernels:
            try:
                self._kernels[key] = inverse_kernel(response, self._spec, rate_hz)
            except Exception as error:  # evalresp raises what it likes
                raise SourceError(
                    "invalid_request", f"{self._path}: the response of {channel} cannot be inverted: {error}"
                ) from error
        return self._kernels[key]

    def _response(self, channel: str, time_ns: int) -> Any:
        import obspy

        if self._inventory is None:
            try:
                self._inventory = obspy.read_inventory(str(self._path))
            except Exception as error:  # its readers raise whatever their parsers meet
                raise SourceError("invalid_request", f"response.inventory {self._path}: {error}") from error
        try:
            return self._inventory.get_response(channel, obspy.UTCDateTime(ns=time_ns))
        except Exception as error:  # ObsPy raises plain Exception
            when = obspy.UTCDateTime(ns=time_ns)
            raise SourceError(
                "invalid_request", f"{self._path} has no response for {channel} at {when}: add it"
            ) from error


def inverse_kernel(response: Any, spec: ResponseSpec, rate_hz: float) -> NDArray[np.float64]:
    """Return the impulse response of 1 / response within the passband, of odd length, centred.

    Args:
        response: An ObsPy `Response`.
        spec: Output, passband and water level.
        rate_hz: Sampling rate.
    """
    from obspy.signal.invsim import cosine_sac_taper
    from scipy.fft import irfft, next_fast_len
    from scipy.signal.windows import tukey

    half = math.ceil(response_half_s(spec, rate_hz) * rate_hz)
    length = next_fast_len(8 * half, real=True)
    length += length % 2
    spectrum, frequencies = response.get_evalresp_response(1 / rate_hz, length, output=spec.output)
    amplitude = np.abs(spectrum)
    amplitude[0] = 0.0
    # ObsPy's water level: smaller amplitudes are raised to it, with their phase kept.
    raised = amplitude
    if spec.water_level_db is not None:
        raised = np.maximum(amplitude, _peak(response, spec, rate_hz) * 10 ** (-spec.water_level_db / 20))
    inverse = np.zeros(len(amplitude), np.complex128)
    passes = amplitude > 0
    inverse[passes] = amplitude[passes] / (np.asarray(spectrum)[passes] * raised[passes])
    inverse *= cosine_sac_taper(frequencies, flimit=response_corners_hz(spec, rate_hz))
    impulse = irfft(inverse, length)
    window = tukey(2 * half + 1, 0.5)
    kernel: NDArray[np.float64] = np.concatenate((impulse[-half:], impulse[: half + 1])) * window
    kernel -= window * (kernel.sum() / window.sum())
    return kernel


def _peak(response: Any, spec: ResponseSpec, rate_hz: float) -> float:
    """The response's largest amplitude, which the water level counts from; it may lie far below the passband."""
    frequencies = np.geomspace(1e-4, rate_hz / 2, 1000)
    values = response.get_evalresp_response_for_frequencies(frequencies, output=spec.output)
    return float(np.abs(values).max())
