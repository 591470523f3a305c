"""What is done to the samples before they are cut: response, filter, resampling, in this order.

Each contiguous stretch is processed by itself, with as much of it as lies within the margin of the window, in
float64. A single missing sample is bridged by its neighbours' mean first; a longer gap ends a stretch, so that no
filling ever enters a filter. At the end of a stretch the signal is taken to go on constant, which keeps transients
small there; further from the ends than the margin, the result is that of processing the whole day.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s1batch.errors import SourceError
from s1batch.readers.seismic.assemble import Placed, bridge, count_covered, stretches
from s1batch.readers.seismic.margin import design_sos, resampling_ratio
from s1batch.readers.seismic.response import ResponseRemoval
from s1batch.readers.seismic.spec import SeismicSource


class Processor:
    """The processing that a source asks for; keeps designed filters and inverse responses.

    Args:
        spec: The source.
        base_dir: What the inventory's path is relative to.
    """

    def __init__(self, spec: SeismicSource, base_dir: Path) -> None:
        self._spec = spec
        self._response = ResponseRemoval(spec.response, base_dir) if spec.response is not None else None
        self._sos: dict[float, NDArray[np.float64] | None] = {}

    def apply(self, placed: Placed, *, first: int, steps: int, channel: str, rate_hz: float, start_ns: int) -> Placed:
        """Return one channel of a window, processed.

        Args:
            placed: The recorded samples of the window and its margin.
            first: Place of `placed.values[0]` on the recorded grid whose place 0 is the window's start (so <= 0).
            steps: Samples of the window at the rate that is sent.
            channel: "NET.STA.LOC.CHA", for the response.
            rate_hz: Recorded rate.
            start_ns: The window's start, which selects the response's epoch.

        Raises:
            SourceError: `not_finite` for NaN or infinity in the data, or what the response or filter cannot do.
        """
        bridged = bridge(placed)
        ratio = resampling_ratio(self._spec, rate_hz)
        out = np.zeros(steps, np.float64)
        covered = np.zeros(steps, np.bool_)
        for low, high in stretches(bridged.covered, len(bridged.values)):
            values = np.asarray(bridged.values[low:high], np.float64)
            if not np.isfinite(values).all():
                raise SourceError("not_finite", f"{channel}: NaN or infinity in the window or its margin")
            if self._response is not None:
                values = self._response.apply(values, channel, rate_hz, start_ns)
            values = self._filter(values, rate_hz)
            begin = first + low
            if ratio == 1:
                place_low, place_high = max(begin, 0), min(begin + len(values), steps)
                if place_low < place_high:
                    out[place_low:place_high] = values[place_low - begin : place_high - begin]
                    covered[place_low:place_high] = True
            else:
                self._resample_into(out, covered, values, begin + placed.shift_s * rate_hz, ratio)
        inside = slice(-first, -first + math.ceil(steps / ratio))
        return replace(
            placed,
            values=out,
            covered=None if covered.all() else covered,
            shift_s=placed.shift_s if ratio == 1 else 0.0,
            bridged=float((count_covered(bridged, inside) - count_covered(placed, inside)) * ratio),
        )

    def _filter(self, values: NDArray[np.float64], rate_hz: float) -> NDArray[np.float64]:
        if self._spec.filter is None:
            return values
        if rate_hz not in self._sos:
            self._sos[rate_hz] = design_sos(self._spec.filter, rate_hz)
        sos = self._sos[rate_hz]
        if sos is None:
            return values
        filtered = _run_filter(sos, values)
        return _run_filter(sos, filtered[::-1])[::-1] if self._spec.filter.zerophase else filtered

    def _resample_into(
        self,
        out: NDArray[np.float64],
        covered: NDArray[np.bool_],
        values: NDArray[np.float64],
        begin: float,
        ratio: Fraction,
    ) -> None:
        """Resample one stretch whose first sample is at `begin` on the recorded grid; a sample lasts one period."""
        from s1batch.readers.resample import resample

        step = float(1 / ratio)
        positions = np.arange(len(out)) * step - begin
        inside = np.flatnonzero((positions >= -0.5) & (positions < len(values) - 1e-6))
        if len(inside):
            low, high = int(inside[0]), int(inside[-1]) + 1
            out[low:high] = resample(values, low * step - begin, high - low, ratio)
            covered[low:high] = True


def detrend(values: NDArray[np.float64], covered: NDArray[np.bool_] | None, how: str) -> float:
    """Take the mean or the straight line of the real samples away, in place; return their mean.

    Args:
        values: One channel of a window.
        covered: Which samples are real; None means all.
        how: `constant` or `linear`.
    """
    real = values if covered is None else values[covered]
    mean = float(real.mean())
    if how == "linear" and len(real) > 1:
        time = np.arange(len(values), dtype=np.float64) if covered is None else np.flatnonzero(covered)
        centred = time - time.mean()
        slope = float(centred @ (real - mean)) / float(centred @ centred)
        trend = mean + slope * centred
    else:
        trend = np.full(len(real), mean)
    if covered is None:
        values -= trend
    else:
        values[covered] -= trend
    return mean


def _run_filter(sos: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Filter forward, as if the first sample had stood for ever."""
    from scipy.signal import sosfilt, sosfilt_zi

    filtered: NDArray[np.float64] = sosfilt(sos, values, zi=sosfilt_zi(sos) * values[0])[0]
    return filtered
