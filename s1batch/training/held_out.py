"""Windows for scoring, cut from labelled recordings.

Each recording gives windows that begin at random places (so that P stands anywhere in them, and S in them or behind
them), and the noise before its P as one more window, where that is long enough. Every window gets an hour of its own in
time, so that windows of one recording are neither merged nor matched with one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from s1batch.training.labelled import LabelledWindow, fits
from s1batch.training.recordings import Recording, cut

HOUR_NS = 3_600_000_000_000
EDGE_S = 1.0
"""P lies at least this far from both ends of an event window."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOutWindow:
    """A window to be scored.

    Attributes:
        window: Its samples and onsets.
        station: NET.STA.
        missing: Letters of components that the recording does not have.
        start_ns: Its own hour.
    """

    window: LabelledWindow
    station: str
    missing: str
    start_ns: int

    def onset_ns(self, onset: float) -> int:
        """Return the time of a sample."""
        return self.start_ns + round(onset * 1e9 / self.window.rate_hz)


def held_out_windows(
    recordings: Sequence[Recording], length_s: float, rate_hz: float, per_recording: int, seed: int
) -> list[HeldOutWindow]:
    """Cut windows for scoring.

    Args:
        recordings: Which.
        length_s: Of a window.
        rate_hz: That windows are resampled to, as the reader does it.
        per_recording: Windows with an onset that each recording gives.
        seed: Of the places; a recording's do not depend on which others there are.

    Returns:
        The windows, sorted by station.
    """
    found: list[HeldOutWindow] = []
    for recording in sorted(recordings, key=lambda each: (each.station, each.name)):
        random = np.random.default_rng((seed, *recording.name.encode()))
        for window in _windows(random, recording, length_s, rate_hz, per_recording):
            missing = "".join(letter for letter, there in zip("ZNE", recording.present, strict=True) if not there)
            found.append(
                HeldOutWindow(
                    window=window, station=recording.station, missing=missing, start_ns=(len(found) + 1) * HOUR_NS
                )
            )
    return found


def _windows(
    random: np.random.Generator, recording: Recording, length_s: float, rate_hz: float, per_recording: int
) -> list[LabelledWindow]:
    steps, ratio = round(length_s * rate_hz), rate_hz / recording.rate_hz
    inside = steps / ratio
    edge = EDGE_S * recording.rate_hz
    low = max(0.0, recording.p - inside + edge)
    high = min(recording.p - edge, recording.wave_CT.shape[1] - inside)
    found: list[LabelledWindow] = []
    while high > low and len(found) < per_recording:
        first = random.uniform(low, high)
        p, s = (recording.p - first) * ratio, (recording.s - first) * ratio
        holds_s = fits(s, steps, rate_hz)
        if holds_s is None:
            continue  # nobody can say whether an S within the last tenths of a second is in the window
        wave_CT = cut(recording, first, steps, rate_hz).astype(np.float32)
        found.append(
            LabelledWindow(wave_CT=wave_CT, rate_hz=rate_hz, p=p, s=s if holds_s else None, station=recording.station)
        )
    if recording.p >= inside:
        quiet = Recording(
            name=recording.name,
            station=recording.station,
            wave_CT=recording.wave_CT[:, : int(np.ceil(inside))],  # nothing of the event leaks in by resampling
            present=recording.present,
            rate_hz=recording.rate_hz,
            p=recording.p,
            s=recording.s,
        )
        wave_CT = cut(quiet, 0.0, steps, rate_hz).astype(np.float32)
        found.append(LabelledWindow(wave_CT=wave_CT, rate_hz=rate_hz, station=recording.station))
    return found
