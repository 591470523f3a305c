"""Windows of arrays: each sample in its place, once apart from the stated overlap, in any layout of chunks."""

from __future__ import annotations

import pickle
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s1batch.readers.sensors import lane
from tests.readers.sensors.made import plan, read, reader, seconds, series_of, zarr_array

SETTINGS = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def numbered(steps: int, channels: int, dtype: str = "f4") -> np.ndarray:
    """Return an array whose every value is its own number, so that a sample out of place shows."""
    return np.arange(steps * channels, dtype=dtype).reshape(steps, channels)


@SETTINGS
@given(
    steps=st.integers(1, 300),
    channels=st.integers(1, 4),
    chunk=st.integers(1, 80),
    shard=st.integers(0, 3),
    length=st.integers(1, 120),
    overlap=st.integers(0, 119),
    tail=st.sampled_from(["shift", "pad", "short"]),
    group=st.sampled_from(["together", "each"]),
    version=st.sampled_from([2, 3]),
    block=st.sampled_from([1, 500, 1 << 20]),
)
def test_every_sample_is_in_its_windows_as_often_as_the_overlap_says(
    steps, channels, chunk, shard, length, overlap, tail, group, version, block
):
    overlap = min(overlap, length - 1)
    values = numbered(steps, channels)
    about: dict[str, Any] = {"shards": (chunk * shard, channels)} if shard and version == 3 else {}
    patch = pytest.MonkeyPatch()
    with tempfile.TemporaryDirectory() as name, patch.context() as patched:
        patched.setattr(lane, "BLOCK_BYTES", block)
        folder = Path(name)
        zarr_array(folder / "a.zarr", values, version=version, times=seconds(steps), chunks=(chunk, channels), **about)
        sensors = reader(folder, window={"length": length, "overlap": overlap, "tail": tail}, group=group, rate_hz=10.0)
        items, entries = plan(sensors)
        assert sum(item.count for item in items if item.status == "selected") == steps * channels
        records = list(sensors.read([entry.chunk for entry in entries]))
    seen: Counter[float] = Counter()
    for entry, record in zip(entries, records, strict=True):
        series = series_of(record)
        assert entry.series == series.shape
        index = record.chunk.inputs[0].slices[0]
        held = index.stop - index.start
        assert not series.values_TC[held:].any()
        column = 0 if group == "together" else int(record.chunk.inputs[0].slices[1].start)
        assert np.array_equal(
            series.values_TC[:held], values[index.start : index.stop, column : column + series.shape.channels]
        )
        for start, stop in [record.chunk.core or (index.start, index.stop)]:
            assert index.start <= start < stop <= index.stop
        seen.update(series.values_TC[:held].ravel().tolist())
    assert set(seen) == set(values.ravel().tolist())
    starts = sorted({record.chunk.inputs[0].slices[0].start for record in records})
    expected = Counter(
        step for start in starts for step in range(start, min(start + length, steps)) for _ in range(channels)
    )
    assert sum(seen.values()) == sum(expected.values())
    if not overlap and (tail != "shift" or steps % length == 0):
        assert max(seen.values()) == 1


def test_dimensions_in_any_order_become_time_by_channels(tmp_path):
    values = numbered(60, 6).reshape(60, 2, 3)
    zarr_array(
        tmp_path / "a.zarr",
        np.ascontiguousarray(values.transpose(1, 0, 2)),
        dims=("station", "time", "part"),
        times=seconds(60),
        chunks=(1, 13, 3),
    )
    (first, _) = (series_of(record) for record in read(reader(tmp_path, window={"length": 30})))
    assert np.array_equal(first.values_TC, values[:30].reshape(30, 6))
    assert first.channels[4] == "station 1, part 1"


def test_times_of_rows_are_those_of_the_samples(tmp_path):
    zarr_array(tmp_path / "a.zarr", numbered(100, 1), times=seconds(100, 4.0))
    records = read(reader(tmp_path, window={"length": "10s", "overlap": "50%"}))
    assert [record.chunk.times_ns for record in records][1] == (1_700_000_005 * 10**9, 1_700_000_015 * 10**9)
    assert series_of(records[1]).start_ns == 1_700_000_005 * 10**9
    assert series_of(records[1]).rate_hz == 4.0


def test_select_takes_labels_lists_and_ranges(tmp_path):
    store = tmp_path / "a.zarr"
    values = numbered(20, 12).reshape(20, 3, 4)
    zarr_array(store, values, dims=("time", "station", "depth"), times=seconds(20))
    zarr_array(store, np.array(["A", "B", "C"]), name="station", dims=("station",))
    zarr_array(store, np.array([0.5, 1.0, 2.0, 4.0]), name="depth", dims=("depth",))
    for select, picked, names in (
        ({"station": "B"}, values[:, 1], ("B, 0.5", "B, 1", "B, 2", "B, 4")),
        ({"station": ["C", "A"], "depth": 2}, values[:, [0, 2], 2], ("A, 2", "C, 2")),
        ({"station": {"stop": 1}, "depth": {"start": 1, "stop": 3}}, values[:, 0, 1:3], ("A, 1", "A, 2")),
    ):
        sensors = reader(tmp_path, select=select)
        (record,) = read(sensors)
        assert np.array_equal(series_of(record).values_TC, picked.reshape(20, -1))
        assert series_of(record).channels == names
        items, _ = plan(sensors)
        assert sum(item.count for item in items if item.reason == "select") == 240 - picked.size


def test_a_label_or_dimension_that_is_not_there_is_a_row_that_says_so(tmp_path):
    zarr_array(tmp_path / "a.zarr", numbered(20, 2), times=seconds(20))
    for select, words in (({"channel": 7}, "channel has no entry 7"), ({"chanel": 0}, "select names 'chanel'")):
        (entry,) = plan(reader(tmp_path, select=select))[1]
        assert entry.refusal is not None
        assert entry.refusal.reason == "no_match"
        assert words in entry.refusal.detail


def test_dimensions_that_are_no_channels_must_be_narrowed(tmp_path):
    zarr_array(tmp_path / "a.zarr", numbered(20, 6).reshape(20, 2, 3), dims=("time", "x", "y"), times=seconds(20))
    (entry,) = plan(reader(tmp_path, channels="x"))[1]
    assert entry.refusal is not None
    assert "3 entries of y are left" in entry.refusal.detail
    (record,) = read(reader(tmp_path, channels="x", select={"y": 1}))
    assert series_of(record).channels == ("x 0", "x 1")


def test_starttime_and_endtime_choose_samples_and_the_rest_is_counted(tmp_path):
    zarr_array(tmp_path / "a.zarr", numbered(100, 2), times=seconds(100, 1.0))
    sensors = reader(tmp_path, window={"length": 10}, starttime="2023-11-14T22:13:30Z", endtime="2023-11-14T22:13:55Z")
    items, entries = plan(sensors)
    assert {item.reason: item.count for item in items if item.source == "v"} == {"": 50, "time_range": 150}
    assert [entry.chunk.start for entry in entries] == [10, 20, 25]


def test_decimated_windows_are_anti_aliased_and_say_so(tmp_path):
    from s1batch.long_series import LongSeries

    times = np.arange(4000) / 100
    slow, fast = np.sin(2 * np.pi * 0.5 * times), np.sin(2 * np.pi * 40 * times)
    zarr_array(tmp_path / "a.zarr", (slow + fast).astype("f4")[:, None], times=seconds(4000, 100.0))
    sensors = reader(tmp_path, window={"length": 1000, "longest_samples": 250})
    sensors._long = LongSeries(policy="decimate")
    _, entries = plan(sensors)
    records = list(sensors.read([entry.chunk for entry in entries]))
    for entry, record in zip(entries, records, strict=True):
        series = series_of(record)
        assert entry.series == series.shape
        assert series.rate_hz == 25.0
        assert record.lineage["decimation"] == 4
        first = record.chunk.inputs[0].slices[0].start
        inner = slice(20, -20)
        if first not in (0, 3000):
            inner = slice(None)
        assert np.abs(series.values_TC[:, 0] - slow[first : first + 1000 : 4])[inner].max() < 2e-2


def test_the_reader_pickles_and_reads_the_same(tmp_path):
    zarr_array(tmp_path / "a.zarr", numbered(100, 2), times=seconds(100))
    sensors = reader(tmp_path, window={"length": 30})
    chunks = [entry.chunk for entry in plan(sensors)[1]]
    before = [series_of(record).values_TC for record in sensors.read(chunks)]
    after = [series_of(record).values_TC for record in pickle.loads(pickle.dumps(sensors)).read(chunks)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_chunks_in_any_order_are_read_right(tmp_path):
    zarr_array(tmp_path / "a.zarr", numbered(100, 2), times=seconds(100), chunks=(7, 2))
    zarr_array(tmp_path / "b.zarr", numbered(100, 2) + 1000, times=seconds(100))
    sensors = reader(tmp_path, window={"length": 30, "overlap": 10})
    chunks = [entry.chunk for entry in plan(sensors)[1]]
    order = np.random.default_rng(0).permutation(len(chunks)).tolist() * 2
    for place, record in zip(order, sensors.read([chunks[place] for place in order]), strict=True):
        index = chunks[place].inputs[0].slices[0]
        more = 1000 if chunks[place].inputs[0].path == "b.zarr" else 0
        assert np.array_equal(series_of(record).values_TC, numbered(100, 2)[index.start : index.stop] + more)


def test_an_abandoned_read_ends(tmp_path):
    zarr_array(tmp_path / "a.zarr", numbered(1000, 2), times=seconds(1000))
    sensors = reader(tmp_path, window={"length": 10})
    reading = sensors.read([entry.chunk for entry in plan(sensors)[1]])
    next(iter(reading))
    reading.close()  # type: ignore[attr-defined]


def test_keys_do_not_change_when_an_archive_grows(tmp_path):
    for count in (1000, 1500):
        times = seconds(count, 100.0) + np.random.default_rng(0).uniform(-4e-4, 4e-4, 1500)[:count]
        zarr_array(tmp_path / f"{count}" / "a.zarr", numbered(count, 1), times=times)
    before, after = ({entry.chunk.key for entry in plan(reader(tmp_path / f"{count}"))[1]} for count in (1000, 1500))
    assert before < after
