"""Figures of the series that a model is shown, and the same on a terminal.

Drawn with matplotlib's objects alone, without pyplot: nothing global changes, and any thread may draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from s1batch.envelope import envelope
from s1batch.sparkline import sparkline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from s1batch.records import Series

__all__ = ["plot_series", "Mark", "Stretch", "sparkline"]

DPI = 120
MOST_PANELS = 24
"""Channels that are drawn; the title tells how many there are besides."""

SHORTEST_DATED_S = 0.01
"""Shorter series have an axis in seconds: a date as a number has no more than microseconds."""

INK = "#1b2a41"
GRID = "#d9dee6"
"""Colours of text and lines."""

_MARKS = ("#c8102e", "#0067b1", "#2a8c4a", "#8e44ad", "#b8860b", "#00838f")
_STRETCHES = {"filled": "#f2c14e", "padded": "#9aa5b1"}
_LABEL_PX = 18
_NS_PER_DAY = 86_400_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A labelled instant, such as a picked arrival.

    Attributes:
        sample: Where, in samples from the start of the series; fractions are fine, and what lies outside the series
            (or is NaN) is not drawn.
        label: What stands above it. Marks of one label have one colour.
    """

    sample: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Samples that the archive does not hold.

    Attributes:
        start: First sample.
        stop: First sample behind it.
        kind: Whether a gap inside the data was filled, or the end was padded.
    """

    start: int
    stop: int
    kind: Literal["filled", "padded"] = "filled"


def plot_series(
    series: Series,
    title: str,
    path: str | Path | IO[bytes],
    *,
    marks: Sequence[Mark] = (),
    stretches: Sequence[Stretch] = (),
    size_px: tuple[int, int] | None = None,
    time_axis: Literal["auto", "utc", "seconds"] = "auto",
) -> None:
    """Draw one panel per channel over a shared time axis into a PNG file.

    Long series are drawn as the envelope of each pixel column, so that no spike is missed. Values that are not finite
    leave a hole. Titles and labels are drawn as they are: nothing in them is read as a formula.

    Args:
        series: What to draw.
        title: Above the panels.
        path: The file to write, or an open binary file.
        marks: Vertical lines over all panels.
        stretches: Shaded parts.
        size_px: Width and height of the figure, 300 x 200 at least; by default 1200 wide, 150 high per channel.
        time_axis: UTC, or seconds from the start; `auto` takes UTC for a series that knows when it starts.

    Raises:
        ValueError: The figure is too small for its margins.
    """
    from matplotlib.figure import Figure

    steps, channels = series.values_TC.shape
    drawn = min(channels, MOST_PANELS)
    width, height = size_px or (1200, max(320, 110 + 150 * drawn))
    if width < 300 or height < 200:
        raise ValueError(f"a figure of {width} x {height} pixels; at least 300 x 200 are needed")
    levels = _levels([mark for mark in marks if 0 <= mark.sample <= steps - 1], steps)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    # Fixed margins, in pixels: an automatic layout gives up, with a warning, when there is little room.
    figure.subplots_adjust(
        left=64 / width,
        right=1 - 30 / width,
        bottom=50 / height,
        top=1 - (34 + _LABEL_PX * (1 + max((level for _, level in levels), default=-1))) / height,
        hspace=0.13,
    )
    if channels > drawn:
        title = f"{title} ({drawn} of {channels} channels)"
    axes: list[Any] = list(figure.subplots(max(drawn, 1), 1, sharex=True, squeeze=False)[:, 0])
    figure.text(8 / width, 1 - 8 / height, drawable(title), va="top", fontsize=11, color=INK, parse_math=False)
    if steps == 0 or channels == 0:
        note(axes[0], "no samples")
    else:
        dated = series.start_ns != 0 and steps >= SHORTEST_DATED_S * series.rate_hz
        utc = time_axis == "utc" or (time_axis == "auto" and (dated or (steps == 1 and series.start_ns != 0)))
        time = TimeAxis(series.start_ns, series.rate_hz, utc)
        for channel, axis in enumerate(axes):
            name = series.channels[channel] if channel < len(series.channels) else str(channel)
            _panel(axis, series.values_TC[:, channel], name, series.units, time, 2 * width)
        _shade(axes, stretches, time)
        _draw_marks(axes, levels, time)
        if height / drawn < 50:  # no room for numbers
            for axis in axes:
                axis.tick_params(labelleft=False)
                axis.yaxis.get_offset_text().set_visible(False)
        time.label(axes[-1], steps)
    save(figure, path)


def save(figure: Figure, path: str | Path | IO[bytes]) -> None:
    """Write a figure as PNG: the same figure gives the same bytes, without a date or the name of a program."""
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


class TimeAxis:
    """Where a sample stands on the axis: days since 1970 for UTC, else seconds from the start."""

    def __init__(self, start_ns: int, rate_hz: float, utc: bool) -> None:
        self.start_ns = start_ns
        self.rate_hz = rate_hz
        self.utc = utc

    def at(self, samples: NDArray[Any] | float) -> NDArray[np.float64]:
        seconds = np.asarray(samples, dtype=np.float64) / self.rate_hz
        return self.start_ns / _NS_PER_DAY + seconds / 86_400 if self.utc else seconds

    def label(self, axis: Axes, steps: int) -> None:
        half = 0.5 if steps == 1 else 0.0
        axis.set_xlim(*(float(edge) for edge in self.at(np.array([-half, steps - 1 + half]))))
        if not self.utc:
            since = f" after {np.datetime64(self.start_ns, 'ns')}Z" if self.start_ns else ""
            axis.set_xlabel(f"seconds{since}", fontsize=9, color=INK)
            return
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        axis.xaxis.get_offset_text().set(fontsize=9, color=INK)
        axis.set_xlabel("UTC", fontsize=9, color=INK)


def _panel(axis: Axes, values_T: NDArray[Any], name: str, units: str, time: TimeAxis, bins: int) -> None:
    starts, lows, highs = envelope(values_T, bins)
    if values_T.size > bins:
        x = np.repeat(time.at(starts), 2)
        y = np.column_stack([lows, highs]).ravel()
    else:
        x, y = time.at(starts), lows
    present = y[np.isfinite(y)]
    if not present.size:
        note(axis, "no finite samples")
    else:
        axis.plot(x, y, color=INK, linewidth=0.7, solid_joinstyle="round")
        alone = _alone(lows)
        axis.plot(time.at(starts[alone]), lows[alone], ".", color=INK, markersize=4)
        low, high = float(present.min()), float(present.max())
        margin = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
        axis.set_ylim(low - margin, high + margin)
    label = f"{name} [{units}]" if units else name
    axis.text(
        0.006,
        0.94,
        drawable(label),
        transform=axis.transAxes,
        va="top",
        fontsize=8,
        color=INK,
        parse_math=False,
        clip_on=True,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
    )
    axis.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4), useOffset=True)
    axis.yaxis.get_offset_text().set_fontsize(7)
    axis.tick_params(labelsize=8, colors=INK)
    axis.grid(visible=True, color=GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    for side in axis.spines.values():
        side.set_color(GRID)


def _alone(lows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which bins stand between holes: a line through one point would show nothing."""
    present = np.concatenate([[False], np.isfinite(lows), [False]])
    alone: NDArray[np.bool_] = present[1:-1] & ~present[:-2] & ~present[2:]
    return alone


def _levels(marks: Sequence[Mark], steps: int) -> list[tuple[Mark, int]]:
    """Return the marks in order of time, each with the level of its label: labels that would touch get up to three."""
    found: list[tuple[Mark, int]] = []
    for mark in sorted(marks, key=lambda mark: mark.sample):
        near = bool(found) and mark.sample - found[-1][0].sample < 0.03 * steps
        found.append((mark, (found[-1][1] + 1) % 3 if near else 0))
    return found


def _draw_marks(axes: list[Axes], levels: Sequence[tuple[Mark, int]], time: TimeAxis) -> None:
    colours: dict[str, str] = {}
    for mark, level in levels:
        colours.setdefault(mark.label, _MARKS[len(colours) % len(_MARKS)])
        x = float(time.at(mark.sample))
        for axis in axes:
            axis.axvline(x, color=colours[mark.label], linewidth=1.2)
        axes[0].annotate(
            drawable(mark.label),
            (x, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2 + _LABEL_PX * level * 72 / DPI),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9,
            fontweight="bold",
            color=colours[mark.label],
            parse_math=False,
        )


def _shade(axes: list[Axes], stretches: Sequence[Stretch], time: TimeAxis) -> None:
    for stretch in stretches:
        left, right = (float(time.at(edge - 0.5)) for edge in (stretch.start, stretch.stop))
        for axis in axes:
            axis.axvspan(left, right, color=_STRETCHES[stretch.kind], alpha=0.35, linewidth=0)
    kinds = sorted({stretch.kind for stretch in stretches})
    if kinds:
        from matplotlib.patches import Patch

        handles = [Patch(color=_STRETCHES[kind], alpha=0.35, label=kind) for kind in kinds]
        axes[0].figure.legend(handles=handles, loc="upper right", ncols=2, fontsize=8, frameon=False, borderpad=0)


def note(axis: Axes, text: str) -> None:
    """Write into the middle of an empty panel why it is empty."""
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=INK)
    axis.set_yticks([])


def drawable(text: str) -> str:
    """Return the text with what matplotlib's own font does not hold, and control characters, as the sign for it."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont("DejaVu Sans")).get_charmap()
    return "".join(sign if ord(sign) in known and sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
