"""Labelled recordings from a folder, and windows drawn from them with augmentation.

The folder holds waveform files and `labels.csv` with the columns file, network, station, p_index and s_index; indices
count samples of the file.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from s1batch.errors import UsageError
from s1batch.readers.resample import resample
from s1batch.training.disturbances import disturb
from s1batch.training.labelled import LabelledWindow, Wave, fits
from s1batch.training.noise import coloured_noise

COMPONENTS = ("Z3", "N1", "E2")
"""Last letters of channel codes for each component, in the order of the model."""

QUIET_S = 0.7
"""Noise of a recording ends this long before its P."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """One labelled recording.

    Attributes:
        name: Of its file.
        station: NET.STA.
        wave_CT: Z, N, E as recorded, float64, without their means; zeros where a component is missing.
        present: Which components there are.
        rate_hz: As recorded.
        p: Sample of the P onset.
        s: Sample of the S onset.
    """

    name: str
    station: str
    wave_CT: np.ndarray
    present: tuple[bool, bool, bool]
    rate_hz: float
    p: int
    s: int


def read_recordings(folder: Path) -> list[Recording]:
    """Read a folder of labelled recordings.

    Raises:
        UsageError: There is no such folder, a file is missing, or a label is no number.
    """
    import obspy

    table = folder / "labels.csv"
    found = []
    try:
        with table.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        for row in rows:
            stream = obspy.read(str(folder / row["file"])).merge(fill_value=0)
            steps = min(trace.stats.npts for trace in stream)
            wave_CT = np.zeros((3, steps))
            present = [False] * 3
            for trace in stream:
                for number, letters in enumerate(COMPONENTS):
                    if trace.stats.channel[-1:] in letters and not present[number]:
                        wave_CT[number] = trace.data[:steps] - trace.data[:steps].mean()
                        present[number] = True
            if not any(present):
                raise UsageError(f"{folder / row['file']}: no vertical, north or east component")
            found.append(
                Recording(
                    name=row["file"],
                    station=f"{row['network']}.{row['station']}",
                    wave_CT=wave_CT,
                    present=(present[0], present[1], present[2]),
                    rate_hz=float(stream[0].stats.sampling_rate),
                    p=int(row["p_index"]),
                    s=int(row["s_index"]),
                )
            )
    except (OSError, KeyError, ValueError) as error:
        raise UsageError(
            f"{table}: {error!r}; a folder of labelled recordings has labels.csv with file, network, station, p_index "
            "and s_index"
        ) from error
    if not found:
        raise UsageError(f"{table} names no recording")
    return found


def station_folds(recordings: Sequence[Recording], folds: int) -> list[frozenset[str]]:
    """Divide the stations into sets with about as many recordings each; the same for the same recordings.

    Stations with most recordings are given out first, each to the set that has fewest.
    """
    counts: dict[str, int] = {}
    for recording in recordings:
        counts[recording.station] = counts.get(recording.station, 0) + 1
    sets: list[set[str]] = [set() for _ in range(folds)]
    sizes = [0] * folds
    for station in sorted(counts, key=lambda name: (-counts[name], name)):
        smallest = sizes.index(min(sizes))
        sets[smallest].add(station)
        sizes[smallest] += counts[station]
    return [frozenset(stations) for stations in sets]


def cut(recording: Recording, first: float, steps: int, rate_hz: float, stretch: float = 1.0) -> np.ndarray:
    """Return (3, steps) samples at `rate_hz` from sample `first` of the recording on, resampled as the reader does.

    Args:
        recording: Where from.
        first: In its own samples; may lie between two.
        steps: How many.
        rate_hz: Rate of the result.
        stretch: Factor by which time is drawn out.
    """
    ratio = Fraction(rate_hz / recording.rate_hz * stretch).limit_denominator(64)
    wave_CT = np.zeros((3, steps))
    for number, values in enumerate(recording.wave_CT):
        if recording.present[number]:
            wave_CT[number] = resample(values, first, steps, ratio)
    return wave_CT


class RecordedWindows:
    """Draws windows from recordings.

    Args:
        recordings: Those of the stations to train on.
    """

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._recordings = recordings

    @classmethod
    def of(cls, folder: Path, without: Collection[str] = ()) -> RecordedWindows:
        """Read a folder, leaving out stations."""
        kept = [recording for recording in read_recordings(folder) if recording.station not in without]
        if not kept:
            raise UsageError(f"{folder}: no recording is left of stations to train on")
        return cls(kept)

    def event(self, random: np.random.Generator, steps: int, rate_hz: float, *, partly: bool) -> LabelledWindow:
        """Return a window around a labelled event: shifted, stretched, with noise and disturbances, without components.

        What lies before the beginning of a recording is its noise, mirrored.
        """
        while True:
            recording = self._recordings[int(random.integers(len(self._recordings)))]
            stretch = 1.0 if random.random() < 0.3 else float(np.exp(random.uniform(-0.3, 0.3)))
            ratio = float(Fraction(rate_hz / recording.rate_hz * stretch).limit_denominator(64))
            p_at, s_at = recording.p * ratio, recording.s * ratio
            length = recording.wave_CT.shape[1] * ratio
            if partly:
                first = random.uniform(p_at - 0.98 * steps, min(s_at + 12 * rate_hz, length - steps - 1))
            else:
                low = max(0.0, s_at - steps + 0.4 * rate_hz)
                high = min(p_at - 3, length - steps - 1)
                if high <= low:
                    continue
                first = random.uniform(low, high)
            inside = fits(p_at - first, steps, rate_hz), fits(s_at - first, steps, rate_hz)
            if None in inside or (not partly and inside != (True, True)) or -first > p_at - rate_hz:
                continue
            wave_CT = self._window(recording, first, steps, ratio, stretch, rate_hz)
            p, s = p_at - first, s_at - first
            wave_CT = self._varied(random, wave_CT, recording, rate_hz, p, s)
            return LabelledWindow(
                wave_CT=wave_CT,
                rate_hz=rate_hz,
                p=p if inside[0] else None,
                s=s if inside[1] else None,
                station=recording.station,
            )

    def noise(self, random: np.random.Generator, steps: int, rate_hz: float) -> LabelledWindow:
        """Return a window of noise before an event, mirrored where it is too short."""
        recording = self._recordings[int(random.integers(len(self._recordings)))]
        wave_CT = self._noise(random, recording, steps, rate_hz)
        if random.random() < 0.3:
            wave_CT = wave_CT + _noise_like(random, wave_CT, rate_hz) * np.float32(10 ** random.uniform(-1, 0.3))
        return LabelledWindow(wave_CT=disturb(random, wave_CT, rate_hz), rate_hz=rate_hz, station=recording.station)

    def _noise(self, random: np.random.Generator, recording: Recording, steps: int, rate_hz: float) -> Wave:
        """Return noise of one recording; a window never mixes stations, so that whole stations can be left out."""
        ratio = rate_hz / recording.rate_hz
        quiet = int(recording.p * ratio - QUIET_S * rate_hz)
        piece = cut(recording, 0.0, quiet, rate_hz)
        whole = np.concatenate((piece, piece[:, ::-1]), axis=1)
        at = (int(random.integers(whole.shape[1])) + np.arange(steps)) % whole.shape[1]
        found = whole[:, at] / (np.abs(piece).std() + 1e-12)
        if random.random() < 0.5:
            found = found[:, ::-1]
        return _mixed(random, found.astype(np.float32), recording)

    def _window(
        self, recording: Recording, first: float, steps: int, ratio: float, stretch: float, rate_hz: float
    ) -> Wave:
        if first >= 0:
            return cut(recording, first / ratio, steps, rate_hz, stretch).astype(np.float32)
        before = int(np.ceil(-first))
        # Sample 0 of the recording stands at `before`, a little off the grid of `first`.
        body = cut(recording, (before + first) / ratio, steps, rate_hz, stretch)
        whole = np.concatenate((body[:, before:0:-1], body), axis=1)
        return whole[:, :steps].astype(np.float32)

    def _varied(
        self, random: np.random.Generator, wave_CT: Wave, recording: Recording, rate_hz: float, p: float, s: float
    ) -> Wave:
        steps = wave_CT.shape[1]
        wave_CT = _mixed(random, wave_CT, recording)
        if random.random() < 0.5 and p > rate_hz:
            begin = int(p)
            end = int(min(s, p + 1.5 * rate_hz, steps))
            strength = float(np.diff(wave_CT[:, begin : max(end, begin + 20)]).std())
            quiet = float(np.diff(wave_CT[:, max(0, begin - int(10 * rate_hz)) : begin]).std()) + 1e-12
            if strength > 3 * quiet:  # a strong event may be weakened without being lost
                own = random.random() < 0.5
                other = (
                    self._noise(random, recording, steps, rate_hz) * wave_CT.any(axis=1, keepdims=True)
                    if own
                    else _noise_like(random, wave_CT, rate_hz)
                )
                level = float(np.diff(other).std()) + 1e-12
                wave_CT = wave_CT + other * np.float32(strength / level / 10 ** random.uniform(0.35, 2.0))
        if random.random() < 0.2:
            disturb(random, wave_CT, rate_hz)
        return wave_CT.astype(np.float32)


def _noise_like(random: np.random.Generator, wave_CT: Wave, rate_hz: float) -> Wave:
    """Return synthetic noise on the components that are there."""
    noise_CT = coloured_noise(random, len(wave_CT), wave_CT.shape[1], rate_hz)
    return (noise_CT * wave_CT.any(axis=1, keepdims=True)).astype(np.float32)


def _mixed(random: np.random.Generator, wave_CT: Wave, recording: Recording) -> Wave:
    """Change gains and polarity; turn the horizontals; leave them out now and then."""
    gains = np.exp(random.normal(0, 0.2, (3, 1))).astype(np.float32) * random.choice([-1, 1])
    wave_CT = wave_CT * gains.astype(np.float32)
    if all(recording.present):
        if random.random() < 0.5:
            wave_CT = wave_CT[[0, 2, 1]]
        if random.random() < 0.15:
            wave_CT[1:] = 0
        elif random.random() < 0.04:
            wave_CT[int(random.integers(1, 3))] = 0
    return wave_CT
