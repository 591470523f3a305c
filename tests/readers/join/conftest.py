"""Fixtures of joins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.archives import START, write_trace


@pytest.fixture
def waves(tmp_path: Path) -> Path:
    """Five minutes of two stations, and a catalogue in UTC."""
    noise = np.random.default_rng(0)
    for station in ("AAA", "BBB"):
        for channel in ("HHZ", "HHN", "HHE"):
            path = tmp_path / "waves" / f"{station}.{channel}.mseed"
            write_trace(path, noise.normal(0, 1000, 30_000), station=station, channel=channel)
    origins = [START + seconds for seconds in (30, 40, 100, 400)]
    pl.DataFrame(
        {
            "origin": [str(origin) for origin in origins],
            "station": ["AAA", "BBB", "AAA", "AAA"],
            "magnitude": [1.0, 2.0, 3.0, 4.0],
        }
    ).write_csv(tmp_path / "events.csv")
    return tmp_path
