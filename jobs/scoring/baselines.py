"""Classical pickers, which a model must beat: ObsPy's `ar_pick`, a recursive STA/LTA picker, one behind the other.

They see the same samples that were sent, and answer in the same form: whether there is an earthquake, and the samples
where P and S begin. Constants are ObsPy's documented ones where there are such, and usual ones otherwise; none was
fitted to the data that are scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

BaselineName = Literal["ar_pick", "sta_lta", "ar_pick+sta_lta", "median"]
Floats = NDArray[np.float64]

GATED: BaselineName = "ar_pick+sta_lta"
READING: tuple[BaselineName, ...] = ("ar_pick", "sta_lta", GATED)
"""Baselines that look at the samples; `median` needs only the results and the truth."""

SHORTEST_S = 10.0
"""Shorter windows get no pick: the averages need that much."""
SLOWEST_HZ = 20.0
"""Slower series get no pick: the filter band begins at 1 Hz and the shortest average is 0.1 s."""

_BAND_HZ = (1.0, 20.0)
_STA_S, _LTA_S = 0.5, 5.0
_AR_LTA_S, _AR_END_S = 4.0, 2.0
_GATE = 4.0
"""An earthquake is where STA/LTA on the vertical reaches this; P begins there, moved back to where the rise began."""
_RISE = 1.5
_S_LTA_S = 3.0
_S_RATIO = 1.3
_S_AFTER_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPicks:
    """What a picker says about a window."""

    contain: bool
    p_index: int | None = None
    s_index: int | None = None


NOTHING = WindowPicks(contain=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Waves:
    """A window's components.

    Attributes:
        vertical: The vertical component; where that is missing, the first that is there.
        horizontal: The horizontal components; fewer than two where they are missing.
        rate_hz: Their rate.
    """

    vertical: Floats
    horizontal: tuple[Floats, ...]
    rate_hz: float

    @classmethod
    def of(cls, wave_TC: NDArray[np.float32], components: str, missing: str, rate_hz: float) -> Waves | None:
        """Split a window into components.

        Args:
            wave_TC: The samples, shape (T, C).
            components: The letter of each column.
            missing: Letters of columns that are filled because the archive has none.
            rate_hz: Their rate.

        Returns:
            The components without a linear trend; None when the window is too short or too slow, or nothing moves.
        """
        from scipy.signal import detrend

        if rate_hz < SLOWEST_HZ or wave_TC.shape[0] < SHORTEST_S * rate_hz:
            return None
        columns = {
            letter: detrend(wave_TC[:, number].astype(np.float64))
            for number, letter in enumerate(components)
            if letter not in missing and np.ptp(wave_TC[:, number]) > 0
        }
        if not columns:
            return None
        up = "Z" if "Z" in columns else next(iter(columns))
        horizontal = tuple(values for letter, values in columns.items() if letter != up)
        return cls(vertical=columns[up], horizontal=horizontal[:2], rate_hz=rate_hz)


def pick_ar(waves: Waves) -> WindowPicks:
    """Pick with ObsPy's `ar_pick`, with the parameters of ObsPy's tutorial.

    It always names an onset, so every window is said to hold an earthquake unless it finds none. S needs two
    horizontal components, and a P that lies at least its long average, 4 s, behind the start.
    """
    steps = len(waves.vertical)
    # ObsPy's C code writes up to 0.2 s behind its buffers when P is at the very end: it gets a quiet end.
    vertical, *others = (
        np.pad(values, (0, round(_AR_END_S * waves.rate_hz)), mode="edge")
        for values in (waves.vertical, *waves.horizontal)
    )
    p_s, _ = _ar_pick(vertical, vertical, vertical, waves.rate_hz, with_s=False)
    p_index = round(p_s * waves.rate_hz)
    if not 0 < p_index < steps:
        return NOTHING
    # And it reads before its buffers when P is earlier than the long average, which makes S a matter of chance.
    if len(others) < 2 or p_index < _AR_LTA_S * waves.rate_hz:
        return WindowPicks(contain=True, p_index=p_index)
    _, s_s = _ar_pick(vertical, others[0], others[1], waves.rate_hz, with_s=True)
    s_index = round(s_s * waves.rate_hz)
    return WindowPicks(contain=True, p_index=p_index, s_index=s_index if p_index < s_index < steps else None)


def _ar_pick(vertical: Floats, north: Floats, east: Floats, rate_hz: float, *, with_s: bool) -> tuple[float, float]:
    from obspy.signal.trigger import ar_pick

    f1_hz, f2_hz = _BAND_HZ[0], min(_BAND_HZ[1], 0.4 * rate_hz)
    p_s, s_s = ar_pick(vertical, north, east, rate_hz, f1_hz, f2_hz, 1.0, 0.1, _AR_LTA_S, 1.0, 2, 8, 0.1, 0.2, with_s)
    return float(p_s), float(s_s)


def pick_sta_lta(waves: Waves) -> WindowPicks:
    """Pick with the recursive STA/LTA of Withers et al. 1998, between 1 and 20 Hz.

    P: where the ratio on the vertical (0.5 s over 5 s) first reaches 4, moved back to where it last was below 1.5.
    S: where the ratio of the horizontals (0.5 s over 3 s) is largest from 0.5 s behind P on, if it reaches 1.3, moved
    back to the middle of its rise.
    """
    ratio = _ratio(_bandpass(waves.vertical, waves.rate_hz), waves.rate_hz, _STA_S, _LTA_S)
    reached = np.flatnonzero(ratio >= _GATE)
    if len(reached) == 0:
        return NOTHING
    p_index = _back_to(ratio, int(reached[0]), _RISE, 0)
    return WindowPicks(contain=True, p_index=p_index, s_index=_pick_s(waves, p_index))


def pick_with(waves: Waves, names: Sequence[BaselineName]) -> dict[BaselineName, WindowPicks]:
    """Pick with several baselines; `ar_pick+sta_lta` is `ar_pick` where STA/LTA sees an earthquake."""
    found: dict[BaselineName, WindowPicks] = {}
    if {"sta_lta", GATED} & set(names):
        found["sta_lta"] = pick_sta_lta(waves)
    is_open = GATED in names and found["sta_lta"].contain
    if "ar_pick" in names or is_open:
        found["ar_pick"] = pick_ar(waves)
    if GATED in names:
        found[GATED] = replace(found["ar_pick"], contain=True) if is_open else NOTHING
    return {name: found[name] for name in names}


def _pick_s(waves: Waves, p_index: int) -> int | None:
    if not waves.horizontal:
        return None
    energy = sum(_bandpass(values, waves.rate_hz) ** 2 for values in waves.horizontal)
    ratio = _ratio(np.sqrt(energy), waves.rate_hz, _STA_S, _S_LTA_S)
    first = p_index + round(_S_AFTER_S * waves.rate_hz)
    if first >= len(ratio):
        return None
    peak = first + int(np.argmax(ratio[first:]))
    if ratio[peak] < _S_RATIO:
        return None
    low = first + int(np.argmin(ratio[first : peak + 1]))
    return _back_to(ratio, peak, (ratio[peak] + ratio[low]) / 2, low)


def _back_to(ratio: Floats, index: int, level: float, first: int) -> int:
    """Return the last place before `index` (and not before `first`) where the ratio is below a level."""
    below = np.flatnonzero(ratio[first:index] < level)
    return first + int(below[-1]) if len(below) else first


def _bandpass(values: Floats, rate_hz: float) -> Floats:
    from scipy.signal import butter, sosfilt

    sections = butter(4, (_BAND_HZ[0], min(_BAND_HZ[1], 0.4 * rate_hz)), btype="bandpass", fs=rate_hz, output="sos")
    filtered: Floats = sosfilt(sections, values)
    return filtered


def _ratio(values: Floats, rate_hz: float, sta_s: float, lta_s: float) -> Floats:
    from obspy.signal.trigger import recursive_sta_lta

    if not np.any(values):
        return np.zeros(len(values))
    ratio: Floats = recursive_sta_lta(values, max(round(sta_s * rate_hz), 1), max(round(lta_s * rate_hz), 2))
    return ratio
