"""Numbers about the time series that the question is about; an engine normalises it, so the model never sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from s1batch.records import Series

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_BANDS = 12
SEGMENT = 1024
"""Samples of a segment of the spectrum, at most."""

Seconds = Annotated[float, Field(ge=0)]


def series_statistics(
    series: Series, channel: str | None = None, start_s: Seconds = 0.0, end_s: Seconds | None = None
) -> list[dict[str, Any]]:
    """Mean, standard deviation, extremes and peak of each channel of the time series, or of a stretch of it.

    Args:
        channel: Name of one channel; left out: all of them.
        start_s: Begin of the stretch, in seconds from the first sample.
        end_s: End of the stretch; left out: the end of the series.
    """
    found = []
    for name, values_T, first in _stretches(series, channel, start_s, end_s):
        centred_T = values_T - values_T.mean()
        peak = int(np.abs(centred_T).argmax())
        found.append(
            {
                "channel": name,
                "units": series.units,
                "rate_hz": series.rate_hz,
                "samples": len(values_T),
                "mean": _rounded(values_T.mean()),
                "std": _rounded(values_T.std()),
                "min": _rounded(values_T.min()),
                "max": _rounded(values_T.max()),
                "peak": _rounded(centred_T[peak]),
                "peak_index": first + peak,
                "peak_s": _rounded((first + peak) / series.rate_hz),
            }
        )
    return found


def series_spectrum(
    series: Series,
    channel: str | None = None,
    start_s: Seconds = 0.0,
    end_s: Seconds | None = None,
    bands: Annotated[int, Field(ge=1, le=MOST_BANDS)] = 6,
) -> list[dict[str, Any]]:
    """Where the power of each channel of the time series lies: dominant frequency, and the share of octave bands.

    Welch's method: segments of at most 1,024 samples, half overlapping, Hann window, mean removed.

    Args:
        channel: Name of one channel; left out: all of them.
        start_s: Begin of the stretch, in seconds from the first sample.
        end_s: End of the stretch; left out: the end of the series.
        bands: How many octaves below the Nyquist frequency are told apart; what lies below them is one more band.
    """
    found = []
    for name, values_T, _ in _stretches(series, channel, start_s, end_s):
        frequencies_F, power_F = _welch(values_T, series.rate_hz)
        total = float(power_F.sum())
        edges = [series.rate_hz / 2 ** (1 + octave) for octave in range(bands, -1, -1)]
        shares = []
        for low, high in zip([0.0, *edges[:-1]], edges, strict=True):
            inside = (frequencies_F > low) & (frequencies_F <= high)
            share = float(power_F[inside].sum()) / total if total > 0 else 0.0
            shares.append({"from_hz": _rounded(low), "to_hz": _rounded(high), "share": round(share, 4)})
        found.append(
            {
                "channel": name,
                "dominant_hz": _rounded(frequencies_F[int(power_F.argmax())]) if total > 0 else None,
                "bands": shares,
            }
        )
    return found


def _stretches(
    series: Series, channel: str | None, start_s: float, end_s: float | None
) -> list[tuple[str, NDArray[np.float64], int]]:
    """Return name, values and first index of each channel that is asked for."""
    if channel is not None and channel not in series.channels:
        raise ValueError(f"no channel {channel[:40]!r}; there are {', '.join(series.channels)}")
    steps = len(series.values_TC)
    first = min(round(start_s * series.rate_hz), steps)
    stop = steps if end_s is None else min(round(end_s * series.rate_hz), steps)
    if stop - first < 2:
        raise ValueError(f"from {start_s:g} s there are {max(stop - first, 0)} samples; the series has {steps}")
    return [
        (name, series.values_TC[first:stop, column].astype(np.float64), first)
        for column, name in enumerate(series.channels)
        if channel in (None, name)
    ]


def _welch(values_T: NDArray[np.float64], rate_hz: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return frequencies in Hz, without 0, and the mean power at each."""
    size = min(len(values_T), SEGMENT)
    window = np.hanning(size + 2)[1:-1]
    hop = max(size // 2, 1)
    segments = [values_T[start : start + size] for start in range(0, len(values_T) - size + 1, hop)]
    power = sum(np.abs(np.fft.rfft((each - each.mean()) * window)) ** 2 for each in segments) / len(segments)
    frequencies = np.asarray(np.fft.rfftfreq(size, 1 / rate_hz), dtype=np.float64)
    return frequencies[1:], np.asarray(power, dtype=np.float64)[1:]


def _rounded(value: float) -> float:
    return float(f"{float(value):.6g}")
