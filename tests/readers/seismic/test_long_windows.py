"""Long windows of real archives: read as they were planned, at the rate that was planned, and all accounted for."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.accounting import take_account
from s1batch.long_series import CoarseToFineSpec, LongSeries
from s1batch.plan_store import PlanStore, PlanWriter
from s1batch.readers.seismic.reader import SeismicReader
from s1batch.readers.seismic.spec import SeismicSource
from s1batch.records import Series
from s1batch.windows import WindowSpec
from tests.archives import START, write_trace
from tests.readers.seismic.test_archives_property import Archive, archives, planned


def long_reader(folder: Path, policy: str, window: dict[str, Any], scan_rate_hz: float = 2.0, **spec: Any):
    source = SeismicSource.model_validate({"kind": "seismic", "paths": ("*",), **spec})
    long = LongSeries(policy=policy, coarse_to_fine=CoarseToFineSpec(scan_rate_hz=scan_rate_hz))  # type: ignore[arg-type]
    return SeismicReader(source, WindowSpec.model_validate(window), folder, long)


windows = st.fixed_dictionaries(
    {
        "length": st.sampled_from([40, 100, 300]),
        "overlap": st.sampled_from(["0%", "25%"]),
        "tail": st.sampled_from(["shift", "pad", "short"]),
        "longest_samples": st.sampled_from([7, 30]),
    }
)


@pytest.mark.parametrize("policy", ["decimate", "coarse_to_fine"])
@settings(max_examples=25, deadline=None)
@given(archive=archives(), window=windows, rate_hz=st.sampled_from([None, None, 25.0]))
def test_plan_and_read_agree_and_every_sample_is_accounted_for(
    policy: str, archive: Archive, window: dict[str, Any], rate_hz: float | None
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "archive")
        folder.mkdir()
        for file, records in enumerate(archive.files):
            (folder / str(file)).write_bytes(b"".join(records))
        reader = long_reader(folder, policy, window, rate_hz=rate_hz)
        items, entries = planned(reader)
        found = list(reader.read([entry.chunk for entry in entries]))
        with PlanWriter(Path(name, "plan")) as writer:
            for item in items:
                writer.add(item)
            for entry in entries:
                writer.add(replace(entry, part=0))
        account = take_account(PlanStore(Path(name, "plan")))
    assert account.balanced
    keys = [entry.chunk.key for entry in entries]
    assert len(keys) == len(set(keys))
    scan = None
    for entry, record in zip(entries, found, strict=True):
        scan = entry.chunk.key if entry.is_scan else scan
        assert entry.condition in (None, scan)
        assert record.refusal is None, record.refusal
        assert isinstance(record.payload, Series)
        assert record.payload.shape == entry.series
        assert record.payload.shape.steps <= window["longest_samples"]
        assert record.lineage["rate_sent_hz"] == record.payload.rate_hz
        full_hz = rate_hz or entry.chunk.inputs[0].rate_hz or 0.0
        assert record.lineage["decimation"] == pytest.approx(full_hz / record.payload.rate_hz)


def test_a_decimated_window_is_the_archive_low_passed_and_not_aliased(tmp_path: Path) -> None:
    rate_hz, samples = 100.0, 40_000
    time_s = np.arange(samples) / rate_hz
    low, high = 10_000 * np.sin(2 * np.pi * 1.3 * time_s), 10_000 * np.sin(2 * np.pi * 27.0 * time_s)
    write_trace(tmp_path / "a.mseed", low + high)
    reader = long_reader(tmp_path, "decimate", {"length": samples, "longest_samples": 9_000}, components="Z")
    _, [entry] = planned(reader)
    assert entry.series is not None
    assert (entry.series.steps, entry.series.rate_hz) == (8_000, 20.0)
    [record] = reader.read([entry.chunk])
    assert isinstance(record.payload, Series)
    inside = slice(100, -100)  # the ends of the data ring
    sent = record.payload.values_TC[inside, 0]
    assert np.abs(sent - low[::5][inside]).max() < 2  # counts are whole numbers


def test_a_window_at_a_lower_rate_does_not_depend_on_where_its_file_ends(tmp_path: Path) -> None:
    values = np.random.default_rng(3).normal(0, 1000, 30_000)
    window = {"length": 20_000, "tail": "short", "longest_samples": 3_000}
    write_trace(tmp_path / "one" / "a.mseed", values)
    for number in range(3):
        start = START + number * 100.0
        write_trace(tmp_path / "three" / f"{number}.mseed", values[number * 10_000 :][:10_000], start=start)
    found = []
    for folder in ("one", "three"):
        reader = long_reader(tmp_path / folder, "decimate", window, components="Z")
        _, entries = planned(reader)
        payloads = [record.payload for record in reader.read([entry.chunk for entry in entries])]
        found.append([payload.values_TC for payload in payloads if isinstance(payload, Series)])
    assert [part.shape for part in found[0]] == [(2858, 1), (2500, 1)]
    for whole, parted in zip(*found, strict=True):
        np.testing.assert_allclose(whole, parted, rtol=1e-5, atol=1e-2)
