"""Plots of time series for the model: waveform, spectrogram and recurrence plot, as PNG.

The same series gives the same bytes: no date, no name of a program, no layout that depends on the machine. Long series
are drawn without losing what matters: waveforms as envelopes, so that no spike is missed; spectrograms as means over
neighbouring segments; recurrence plots of means over neighbouring samples, as their axis says.
"""

from __future__ import annotations

import math
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

from s1batch.errors import SourceError
from s1batch.plotting import DPI, GRID, INK, MOST_PANELS, TimeAxis, drawable, note, plot_series, save
from s1batch.records import ImagePart, Series

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

SHORTEST_SPECTRUM = 16
"""Samples of the shortest spectrogram."""

LONGEST_SEGMENT = 1024
"""Samples of the longest segment of a spectrogram."""

RANGE_DB = 60
"""What lies farther below the largest value of a channel has one colour."""

MOST_STATES = 400
"""Points along each side of a recurrence plot."""

EMBEDDING = 3
NEAR = 0.1
"""Two states recur when they are nearer than this share of the largest distance."""


def draw(series: Series, plot: Literal["waveform", "spectrogram", "recurrence"], size_px: tuple[int, int]) -> ImagePart:
    """Draw a series.

    Args:
        series: What to draw.
        plot: How.
        size_px: Width and height of the picture, exactly.

    Raises:
        SourceError: It has no samples, more channels than panels, or is too short for a spectrum.
    """
    steps, channels = series.values_TC.shape
    if not steps or not channels:
        raise SourceError("series_too_short", "there is nothing to draw: the series has no samples")
    if channels > MOST_PANELS:
        raise SourceError("wrong_shape", f"a plot shows {MOST_PANELS} channels at most; the series has {channels}")
    content = BytesIO()
    title = f"{steps:,} samples at {series.rate_hz:g} Hz"
    match plot:
        case "waveform":
            plot_series(series, title, content, size_px=size_px)
        case "spectrogram":
            save(_spectrogram(series, title, size_px), content)
        case "recurrence":
            save(_recurrence(series, title, size_px), content)
    return ImagePart(content.getvalue(), "image/png")


def _spectrogram(series: Series, title: str, size_px: tuple[int, int]) -> Figure:
    """One panel per channel over a shared time axis: power spectral density in dB below the channel's largest."""
    from matplotlib.figure import Figure

    steps, channels = series.values_TC.shape
    if steps < SHORTEST_SPECTRUM:
        raise SourceError("series_too_short", f"a spectrogram needs {SHORTEST_SPECTRUM} samples; there are {steps}")
    width, height = size_px
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    figure.subplots_adjust(left=64 / width, right=1 - 30 / width, bottom=50 / height, top=1 - 34 / height, hspace=0.13)
    axes: list[Any] = list(figure.subplots(channels, 1, sharex=True, squeeze=False)[:, 0])
    _title(figure, f"spectrogram, dB below the largest ({RANGE_DB} dB black to yellow), {title}", size_px)
    time = TimeAxis(series.start_ns, series.rate_hz, series.start_ns != 0 and steps > series.rate_hz)
    left, right = (float(edge) for edge in time.at(_edges(steps)))
    for channel, axis in enumerate(axes):
        frequencies_hz, levels_FT = _levels(series.values_TC[:, channel], series.rate_hz, width)
        if levels_FT is None:
            note(axis, "no finite samples, or all of them equal")
        else:
            axis.imshow(
                levels_FT,
                extent=(left, right, 0.0, float(frequencies_hz[-1])),
                origin="lower",
                aspect="auto",
                interpolation="nearest",
                cmap="inferno",
                vmin=-RANGE_DB,
                vmax=0,
            )
        _name(axis, series, channel)
        _style(axis)
        axis.set_ylabel("Hz", fontsize=8, color=INK, labelpad=1)
        if height / channels < 50:  # no room for numbers
            axis.tick_params(labelleft=False)
    time.label(axes[-1], steps)
    return figure


def _levels(
    values_T: NDArray[Any], rate_hz: float, columns: int
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return frequencies (Hz), and levels (frequency, time) in dB below the largest; None where there is no power."""
    import numpy as np
    from scipy.signal import spectrogram

    steps = len(values_T)
    # Time and frequency share the resolution evenly; for long series, time has more points than the picture anyway.
    segment = min(2 ** round(math.log2(2 * math.sqrt(steps))), LONGEST_SEGMENT, steps)
    hop = max(segment // 8, min(segment // 2, steps // columns), 1)
    frequencies_hz, _, power_FT = spectrogram(
        values_T.astype(np.float64), rate_hz, nperseg=segment, noverlap=segment - hop, detrend="constant"
    )
    together = -(-power_FT.shape[1] // columns)
    starts = np.arange(0, power_FT.shape[1], together)
    power_FT = np.add.reduceat(power_FT, starts, axis=1) / np.diff(np.append(starts, power_FT.shape[1]))
    largest = np.nanmax(power_FT, initial=0.0)
    if not 0 < largest < math.inf:
        return frequencies_hz, None
    with np.errstate(divide="ignore"):
        return frequencies_hz, 10 * np.log10(power_FT / largest)


def _recurrence(series: Series, title: str, size_px: tuple[int, int]) -> Figure:
    """Panels of channels: black where the state at one time comes near to the state at another.

    J.-P. Eckmann, S. Oliffson Kamphorst and D. Ruelle, Recurrence plots of dynamical systems, Europhysics Letters 4
    (1987) 973. A state is three neighbouring points; near is a tenth of the largest distance (J. P. Zbilut and C. L.
    Webber, Physics Letters A 171 (1992) 199).
    """
    from matplotlib.figure import Figure

    steps, channels = series.values_TC.shape
    if steps < 2 * EMBEDDING:
        raise SourceError("series_too_short", f"a recurrence plot needs {2 * EMBEDDING} samples; there are {steps}")
    width, height = size_px
    across = math.ceil(math.sqrt(channels * width / height)) if channels > 1 else 1
    down = math.ceil(channels / across)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    figure.subplots_adjust(
        left=64 / width, right=1 - 30 / width, bottom=50 / height, top=1 - 34 / height, hspace=0.25, wspace=0.25
    )
    axes: list[Any] = list(figure.subplots(down, across, squeeze=False).ravel())
    together = -(-steps // min(MOST_STATES, max(height // down, 2 * EMBEDDING)))
    mean = f", means of {together:,}" if together > 1 else ""
    _title(figure, f"recurrence plot, black where states are near, {title}{mean}", size_px)
    seconds = steps / series.rate_hz
    for channel, axis in enumerate(axes[:channels]):
        near = _near(series.values_TC[:, channel], together)
        axis.imshow(
            near, extent=(0.0, seconds, 0.0, seconds), origin="lower", interpolation="nearest", cmap="gray_r", vmin=0,
            vmax=1,
        )  # fmt: skip
        _name(axis, series, channel)
        _style(axis)
    for axis in axes[channels:]:
        axis.set_visible(False)
    for axis in axes[max(channels - across, 0) : channels]:
        axis.set_xlabel("seconds", fontsize=9, color=INK)
    for axis in axes[:channels:across]:
        axis.set_ylabel("seconds", fontsize=9, color=INK, labelpad=1)
    return figure


def _near(values_T: NDArray[Any], together: int) -> NDArray[np.bool_]:
    """Return whether the states at two times are near; never where samples are missing."""
    import numpy as np

    starts = np.arange(0, len(values_T), together)
    sums = np.add.reduceat(values_T.astype(np.float64), starts)
    points = sums / np.diff(np.append(starts, len(values_T)))
    states = np.stack([points[shift : len(points) - EMBEDDING + 1 + shift] for shift in range(EMBEDDING)], axis=1)
    # Coordinate by coordinate, and not as a product of matrices, whose rounding depends on the machine.
    distances = np.sqrt(sum(np.subtract.outer(axis, axis) ** 2 for axis in states.T))
    finite = distances[np.isfinite(distances)]
    largest = float(finite.max()) if finite.size else 0.0
    found: NDArray[np.bool_] = distances <= NEAR * largest
    return found


def _edges(steps: int) -> NDArray[np.float64]:
    import numpy as np

    return np.array([0.0, float(steps - 1)])


def _title(figure: Figure, title: str, size_px: tuple[int, int]) -> None:
    width, height = size_px
    # A line of the font at this size takes about six pixels a letter at 600 pixels of width.
    fontsize = min(10.0, 0.95 * width / max(len(title), 1))
    figure.text(8 / width, 1 - 8 / height, drawable(title), va="top", fontsize=fontsize, color=INK, parse_math=False)


def _name(axis: Axes, series: Series, channel: int) -> None:
    name = series.channels[channel] if channel < len(series.channels) else str(channel)
    axis.text(
        0.006,
        0.94,
        drawable(f"{name} [{series.units}]" if series.units else name),
        transform=axis.transAxes,
        va="top",
        fontsize=8,
        color=INK,
        parse_math=False,
        clip_on=True,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
    )


def _style(axis: Axes) -> None:
    axis.tick_params(labelsize=8, colors=INK)
    for side in axis.spines.values():
        side.set_color(GRID)
