"""A series on one line, or a few, of a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from s1batch.envelope import envelope

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bit of each of the 4 x 2 dots of a Braille character, from top to bottom (Unicode block U+2800)."""


def sparkline(values: ArrayLike, width: int, height: int = 1) -> str:
    """Draw the envelope of a series in Braille dots, two bins per character and four levels per line.

    The scale runs from the least to the greatest finite value; a bin spans all levels between its extremes. Bins
    without a finite value stay blank; a constant series is a line in the middle.

    Args:
        values: One-dimensional, of any length.
        width: Characters per line.
        height: Lines.

    Returns:
        `height` lines of `width` characters.
    """
    if width < 1 or height < 1:
        raise ValueError(f"a sparkline of {width} x {height} characters; at least 1 x 1 is needed")
    _, lows, highs = envelope(values, 2 * width)
    rows = 4 * height
    dots = np.zeros((rows, 2 * width), dtype=bool)
    present = np.flatnonzero(~np.isnan(lows))
    if present.size:
        bottom = float(lows[present].min())
        span = float(highs[present].max()) / 2 - bottom / 2  # halved: the full span of float64 extremes overflows
        columns = np.arange(2 * width) * lows.size // (2 * width)  # short series are stretched
        for column in np.flatnonzero(~np.isnan(lows[columns])):
            low, high = (_level(float(edge[columns[column]]), bottom, span, rows) for edge in (lows, highs))
            dots[rows - 1 - high : rows - low, column] = True
    return "\n".join(
        "".join(_braille(dots[top : top + 4, left : left + 2]) for left in range(0, 2 * width, 2))
        for top in range(0, rows, 4)
    )


def _level(value: float, bottom: float, half_span: float, rows: int) -> int:
    if half_span <= 0:
        return rows // 2
    return min(int((value / 2 - bottom / 2) / half_span * rows), rows - 1)


def _braille(dots: np.ndarray) -> str:
    bits = sum(bit for row, pair in zip(dots, _DOTS, strict=True) for on, bit in zip(row, pair, strict=True) if on)
    return chr(0x2800 + bits)
