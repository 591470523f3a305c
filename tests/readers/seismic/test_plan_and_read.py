"""What was planned from headers is what is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s1batch.records import PlanEntry, Record, Series
from tests.readers.seismic.waves import SECOND, T0, counts, mseed, seismic_reader

CHANNELS = ("XX.AAA..HHZ", "XX.AAA..HHN", "XX.AAA..HHE")


def planned_and_read(folder: Path, window: dict[str, Any], **spec: Any) -> list[tuple[PlanEntry, Record]]:
    reader = seismic_reader(folder, window=window, components="ZNE", **spec)
    entries = [item for item in reader.plan() if isinstance(item, PlanEntry)]
    return list(zip(entries, reader.read([entry.chunk for entry in entries]), strict=True))


pieces = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2500), st.integers(1, 900), st.integers(0, 1), st.integers(0, 4)),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("tail", ["shift", "pad", "short"])
@given(pieces=pieces)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_planned_window_is_read_with_the_planned_shape_and_gaps(
    tmp_path: Path, tail: str, pieces: list[tuple[int, int, int, int, int]]
) -> None:
    for file in (0, 1):
        parts = [
            mseed(CHANNELS[component], T0 + first * 10_000_000 + offset_ms * 1_000_000, counts(count, number))
            for number, (component, first, count, its_file, offset_ms) in enumerate(pieces)
            if its_file == file
        ]
        (tmp_path / str(file)).unlink(missing_ok=True)
        if parts:
            (tmp_path / str(file)).write_bytes(b"".join(parts))
    for entry, record in planned_and_read(tmp_path, {"length": "5s", "overlap": "20%", "tail": tail}):
        assert entry.refusal is None
        assert record.refusal is None, record.refusal
        assert isinstance(record.payload, Series)
        assert record.payload.shape == entry.series
        assert record.lineage["gap_frac"] == pytest.approx(entry.gap_frac, abs=1.01 / record.payload.shape.steps)


@pytest.mark.parametrize(
    "processing", [{}, {"filter": {"type": "bandpass", "freqmin_hz": 1, "freqmax_hz": 20}}, {"rate_hz": 40}]
)
def test_windows_across_files_hold_every_sample_and_equal_the_whole(tmp_path: Path, processing: dict[str, Any]) -> None:
    values = counts(60_000)
    for number in range(4):
        part = values[number * 15_000 : (number + 1) * 15_000]
        for channel in CHANNELS:
            path = tmp_path / f"{channel}.{number}"
            path.write_bytes(mseed(channel, T0 + number * 150 * SECOND, part))
    cut = planned_and_read(tmp_path, {"length": "30s"}, **processing)
    ((_, whole),) = planned_and_read(tmp_path, {"length": "600s"}, **processing)
    assert isinstance(whole.payload, Series)
    windows = [record.payload.values_TC for _, record in cut if isinstance(record.payload, Series)]
    np.testing.assert_allclose(
        np.concatenate(windows), whole.payload.values_TC, atol=1e-6 * np.abs(values).max(), rtol=0
    )
    if not processing:
        np.testing.assert_array_equal(np.concatenate(windows)[:, 0], values)
