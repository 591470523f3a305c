"""A window of three components whose onsets are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float32]

LEAST_SEEN_S = 0.4
"""An onset that begins later before the end is not to be seen: such a window is drawn anew."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledWindow:
    """One window.

    Attributes:
        wave_CT: Components Z, N, E; a missing one is zero, as the reader fills it.
        rate_hz: Sampling rate.
        p: Sample of the P onset, which may lie between samples; None when no P begins in the window.
        s: Likewise for S.
        station: NET.STA that it was recorded at; empty for a synthetic one.
    """

    wave_CT: Wave
    rate_hz: float
    p: float | None = None
    s: float | None = None
    station: str = ""


def fits(onset: float, steps: int, rate_hz: float) -> bool | None:
    """Return whether an onset lies in a window of so many samples; None when it is too near to an edge to say."""
    margin = LEAST_SEEN_S * rate_hz
    if -2.0 <= onset < 2.0 or steps - margin <= onset < steps:
        return None
    return 0 <= onset < steps
