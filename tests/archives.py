"""Small archives for tests, written as real MiniSEED."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from obspy import Trace, UTCDateTime

START = UTCDateTime("2020-01-01T00:00:00")


def write_trace(
    path: Path,
    samples: np.ndarray,
    *,
    channel: str = "HHZ",
    station: str = "STA",
    start: UTCDateTime = START,
    rate: float = 100.0,
) -> Path:
    """Write one channel as MiniSEED."""
    header = {"network": "XX", "station": station, "channel": channel, "starttime": start, "sampling_rate": rate}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = BytesIO()  # ObsPy leaves a file that it was told to write open
    Trace(samples.astype(np.int32), header).write(content, format="MSEED")
    path.write_bytes(content.getvalue())
    return path


def write_archive(folder: Path, *, stations: int = 2, seconds: float = 300.0, seed: int = 0) -> Path:
    """Write three-component stations with noise, one file per channel."""
    noise = np.random.default_rng(seed)
    for number in range(stations):
        for channel in ("HHZ", "HHN", "HHE"):
            samples = noise.normal(0, 1000, round(seconds * 100))
            write_trace(folder / f"S{number:02d}.{channel}.mseed", samples, channel=channel, station=f"S{number:02d}")
    return folder


def pick_job(archive: Path | str, function: str = "loudest", **changes: Any) -> dict[str, Any]:
    """Return a seismic-pick job over an archive, answered by a function of `tests.answers`."""
    return {
        "name": "test",
        "source": {"kind": "seismic", "paths": [f"{archive}/**/*"]},
        "window": {"length": "20s", "overlap": "50%"},
        "job": {"kind": "seismic-pick"},
        "engine": {"kind": "replay", "function": f"tests.answers:{function}"},
        "run": {"part_chunks": 8},
        **changes,
    }
