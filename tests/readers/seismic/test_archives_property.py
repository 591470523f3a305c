"""Whatever an archive holds, what was planned is what is read, and no selected sample is lost or moved."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.records import InventoryItem, PlanEntry, Series
from tests.readers.seismic.waves import seismic_reader

MIDNIGHT_NS = 1_704_067_200_000_000_000
CHANNELS = ["XX.A..HHZ", "XX.A..HHN", "XX.A..HHE", "XX.A..HH1", "XX.B.00.BHZ", "XX.B.00.BHE"]
RATE_HZ = 20.0


@dataclass
class Archive:
    """Records by file, and what each sample's value stands for: file, channel and the time its record gives it."""

    files: list[list[bytes]] = field(default_factory=list, repr=False)
    origin: dict[int, tuple[str, str, int, float]] = field(default_factory=dict, repr=False)
    told: list[tuple[int, str, int, int, float]] = field(default_factory=list)


@st.composite
def archives(draw: st.DrawFn) -> Archive:
    """Stretches on either side of midnight, their records jittered, shuffled, repeated, in one file or in two."""
    from pymseed import DataEncoding, MS3Record, nslc2sourceid

    archive = Archive()
    number = 0
    # Values that tell samples apart: exact as float32, and hardly ever the mean of two others.
    odd = np.random.default_rng(draw(st.integers(0, 99))).choice(1 << 22, 4000, replace=False) * 2 + 1
    marks = odd.astype(np.int32)
    for file in range(draw(st.integers(1, 3))):
        records: list[bytes] = []
        for _ in range(draw(st.integers(1, 3))):
            channel = draw(st.sampled_from(CHANNELS))
            rate_hz = draw(st.sampled_from([RATE_HZ] * 6 + [10.0, RATE_HZ * (1 + 3e-5), RATE_HZ * (1 - 9e-5)]))
            on_grid = draw(st.booleans())
            offset = draw(st.integers(-400, 400))
            start_ns = MIDNIGHT_NS + offset * 50_000_000 + (0 if on_grid else draw(st.integers(0, 49_999_999)))
            jitter_ns = draw(st.sampled_from([0, 0, 1_000_000, 11_000_000]))
            for count in draw(st.lists(st.integers(1, 90) | st.integers(1, 3), min_size=1, max_size=4)):
                shift_ns = draw(st.integers(-jitter_ns, jitter_ns)) if jitter_ns else 0
                record = MS3Record(reclen=512, encoding=DataEncoding.INT32)
                record.formatversion = 3
                record.sourceid = nslc2sourceid(*channel.split("."))
                record.starttime = start_ns + shift_ns
                record.samprate = rate_hz
                values = marks[number : number + count]
                for k, value in enumerate(values.tolist()):
                    time_ns = start_ns + shift_ns + round(k * 1e9 / rate_hz)
                    archive.origin[value] = (str(file), channel, time_ns, rate_hz)
                records += [bytes(part) for part in record.generate(values, sample_type="i")]
                archive.told.append((file, channel, start_ns + shift_ns - MIDNIGHT_NS, count, rate_hz))
                number += count
                start_ns += round(count * 1e9 / rate_hz)
        if draw(st.booleans()):
            random.Random(draw(st.integers(0, 99))).shuffle(records)
        archive.files.append(records)
    if len(archive.files) > 1 and draw(st.booleans()):
        archive.files[-1] += archive.files[0]
    return archive


def planned(reader: Any) -> tuple[list[InventoryItem], list[PlanEntry]]:
    items: list[InventoryItem] = []
    entries: list[PlanEntry] = []
    for thing in reader.plan():
        (items if isinstance(thing, InventoryItem) else entries).append(thing)
    return items, entries


windows = st.fixed_dictionaries(
    {
        "length": st.sampled_from([7, 40, 100]),
        "overlap": st.sampled_from(["0%", "25%", "50%"]),
        "tail": st.sampled_from(["shift", "pad", "short"]),
    }
)
ranges = st.sampled_from(
    [
        {},
        {"starttime": "2023-12-31T23:59:50"},
        {"endtime": "2024-01-01T00:00:03.333333"},
        {"starttime": "2023-12-31T23:59:55.01", "endtime": "2024-01-01T00:00:04"},
    ]
)


@pytest.mark.parametrize("compressed", [False, True])
@settings(max_examples=150, deadline=None)
@given(archive=archives(), window=windows, selection=ranges)
def test_plan_and_read_agree_and_every_selected_sample_is_in_a_window(
    compressed: bool, archive: Archive, window: dict[str, Any], selection: dict[str, str]
) -> None:
    import bz2

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, records in enumerate(archive.files):
            data = b"".join(records)
            (folder / f"{file}{'.bz2' if compressed else ''}").write_bytes(
                bz2.compress(data, 1) if compressed else data
            )
        reader = seismic_reader(folder, window=window, components="ZNE", gap_fill="zero", **selection)
        items, entries = planned(reader)
        found = list(reader.read([entry.chunk for entry in entries]))

    assert sum(item.count for item in items) == sum(map(count_of, archive.files))
    seen: dict[int, set[str]] = {}
    for entry, record in zip(entries, found, strict=True):
        assert entry.refusal is None
        assert record.refusal is None, record.refusal
        assert isinstance(record.payload, Series)
        series, lineage = record.payload, record.lineage
        assert series.shape == entry.series
        assert lineage["gap_frac"] == pytest.approx(entry.gap_frac, abs=1e-9)
        steps, rate_hz = series.shape.steps, series.rate_hz
        listed = {(address.source, address.path.removesuffix(".bz2")) for address in entry.chunk.inputs}
        codes = {source.rpartition(".")[2][-1].replace("1", "N") for source, _ in listed}
        assert lineage["fill"] == "".join(letter for letter in "ZNE" if letter not in codes)
        broken = []
        for column, letter in enumerate("ZNE"):
            values = series.values_TC[:, column]
            real = np.zeros(steps, np.bool_)
            for place, value in enumerate(values.tolist()):
                if int(value) != value or int(value) not in archive.origin:
                    continue  # zero, or a hole of one sample that holds its neighbours' mean
                path, channel, time_ns, own_rate_hz = archive.origin[int(value)]
                away = (time_ns - series.start_ns) * rate_hz / 1e9 - place
                if abs(away) > 1.0 + 1e-6 or ((channel, path) not in listed and not is_copy(archive, channel, listed)):
                    continue
                assert (
                    abs(own_rate_hz / rate_hz - 1) < 2.1e-4
                )  # records of one run, and runs of one group, differ by 1e-4
                assert in_range(time_ns, selection)
                real[place] = True
                seen.setdefault(int(value), set()).add(letter)
            if letter in codes:
                assert real.any()
                broken.append(stretches_of(real))
        assert lineage["segments"] == max(broken)
    selected = sum(item.count for item in items if item.status == "selected")
    assert len(seen) == selected


resampled = given(
    archive=archives(),
    window=windows,
    selection=ranges,
    sent_hz=st.sampled_from([2.0, 15.0, 50.0]),
    detrend=st.sampled_from(["none", "linear"]),
)


@settings(max_examples=25, deadline=None)
@resampled
def test_resampled_windows_have_the_planned_shape_and_components(**drawn: Any) -> None:
    """Down to stretches of one sample, which may lie between two points of the grid that is sent."""
    check_resampled(**drawn)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@resampled
def test_resampled_windows_of_many_archives_have_the_planned_shape_and_components(**drawn: Any) -> None:
    check_resampled(**drawn)


def check_resampled(
    archive: Archive, window: dict[str, Any], selection: dict[str, str], sent_hz: float, detrend: str
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, records in enumerate(archive.files):
            (folder / str(file)).write_bytes(b"".join(records))
        reader = seismic_reader(folder, window=window, components="ZNE", rate_hz=sent_hz, detrend=detrend, **selection)
        items, entries = planned(reader)
        found = list(reader.read([entry.chunk for entry in entries]))

    assert sum(item.count for item in items) == sum(map(count_of, archive.files))
    for entry, record in zip(entries, found, strict=True):
        assert entry.refusal is None
        assert record.refusal is None, record.refusal
        assert isinstance(record.payload, Series)
        series, lineage = record.payload, record.lineage
        assert series.shape == entry.series
        assert np.isfinite(series.values_TC).all()
        assert 0 <= lineage["gap_frac"] <= 1
        codes = {address.source[-1].replace("1", "N") for address in entry.chunk.inputs}
        assert lineage["fill"] == "".join(letter for letter in "ZNE" if letter not in codes)


def count_of(records: list[bytes]) -> int:
    return sum(int.from_bytes(record[24:28], "little") for record in records)


def is_copy(archive: Archive, channel: str, listed: set[tuple[str, str]]) -> bool:
    """The last file may repeat the first one's records."""
    return (channel, str(len(archive.files) - 1)) in listed


def in_range(time_ns: int, selection: dict[str, str]) -> bool:
    """Up to the jitter of a record's own time against its run's grid."""
    start = np.datetime64(selection.get("starttime", "1970-01-01"), "ns").astype(np.int64)
    stop = np.datetime64(selection.get("endtime", "2100-01-01"), "ns").astype(np.int64)
    return bool(start - 30_000_000 <= time_ns < stop + 30_000_000)


def stretches_of(real: np.ndarray) -> int:
    """Contiguous stretches, single missing samples bridged."""
    bridged = real.copy()
    if len(real) > 2:
        bridged[1:-1] |= real[:-2] & real[2:]
    return int(np.count_nonzero(np.diff(np.concatenate(([0], bridged.astype(np.int8)))) == 1))
