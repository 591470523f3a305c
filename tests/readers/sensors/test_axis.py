"""Time axes: even ones are found even whatever their numbers, others are told and never used silently."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.readers.sensors.made import START_S, plan, read, reader, seconds, series_of, zarr_array

SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refusal_of(folder, **source):
    (entry,) = plan(reader(folder, **source))[1]
    assert entry.refusal is not None
    return entry.refusal


@pytest.mark.parametrize(
    ("times", "attrs", "rate_hz", "start_ns"),
    [
        (np.arange(50) * 10, {"units": "milliseconds since 2020-01-01"}, 100.0, 1_577_836_800 * 10**9),
        (np.arange(50) / 24, {"units": "days since 1970-01-01"}, 1 / 3600, 0),
        (np.arange(50) * 0.02, {"units": "s"}, 50.0, None),
        (np.arange(50) * 0.02, {}, 50.0, None),
        (np.round(np.arange(50) * 1000 / 3), {"units": "ms"}, 3.0, None),
        (np.arange(50).astype("M8[s]"), {}, 1.0, 0),
        ((np.arange(50) * 40_000_000).astype("M8[ns]"), {}, 25.0, 0),
        (np.arange(50, dtype="f4") * 0.01 + 1000, {"units": "s"}, 100.0, None),
        (np.arange(3) / 97, {"units": "s"}, 97.0, None),
    ],
)
@pytest.mark.parametrize("version", [2, 3])
def test_the_rate_is_the_round_one(tmp_path, version, times, attrs, rate_hz, start_ns):
    zarr_array(tmp_path / "a.zarr", np.zeros((len(times), 1), "f4"), version=version, times=times, time_attrs=attrs)
    (entry,) = plan(reader(tmp_path))[1]
    assert entry.refusal is None, entry.refusal
    assert entry.series is not None
    assert entry.series.rate_hz == pytest.approx(rate_hz, rel=1e-12)
    assert (entry.chunk.times_ns or (None,))[0] == start_ns


def test_jitter_within_the_tolerance_is_even_and_more_is_not(tmp_path):
    noise = np.random.default_rng(0).uniform(-1, 1, 1000)
    zarr_array(tmp_path / "a.zarr", np.zeros((1000, 1), "f4"), times=seconds(1000) + noise * 0.004)
    assert len(plan(reader(tmp_path))[1]) == 10
    refusal = refusal_of(tmp_path, jitter=0.02)
    assert refusal.reason == "irregular_axis"
    assert "sample intervals off an even axis of 10" in refusal.detail


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t + (np.arange(100) > 40) * 7.0, "off an even axis"),
        (lambda t: np.where(np.arange(100) == 50, t[49], t), "time 50 is the same as the one before"),
        (lambda t: np.where(np.arange(100) == 50, t[45], t), "time 50 is earlier than the one before"),
        (lambda t: np.where(np.arange(100) == 50, np.nan, t), "time 50 is missing"),
        (lambda t: np.where(np.arange(100) == 0, np.nan, t), "the first time is missing"),
        (lambda t: t[::-1].copy(), "the last time is not later than the first one"),
        (lambda t: np.full(100, 5.0), "the last time is not later than the first one"),
    ],
)
def test_an_uneven_axis_is_one_refused_row_of_the_whole_array(tmp_path, change, words):
    zarr_array(tmp_path / "a.zarr", np.zeros((100, 2), "f4"), times=change(seconds(100)))
    items, (entry,) = plan(reader(tmp_path))
    assert entry.refusal is not None
    assert (entry.refusal.outcome, entry.refusal.reason) == ("refused", "irregular_axis")
    assert words in entry.refusal.detail
    assert (entry.chunk.start, entry.chunk.stop) == (0, 100)
    assert [(item.count, item.status) for item in items if item.source == "v"] == [(200, "selected")]


def test_no_times_and_no_rate_is_a_row_and_a_rate_in_the_block_is_enough(tmp_path):
    zarr_array(tmp_path / "a.zarr", np.zeros((200, 2), "f4"))
    assert refusal_of(tmp_path).reason == "rate_missing"
    records = read(reader(tmp_path, rate_hz=5.0, window={"length": "20s"}))
    assert [series_of(record).shape.steps for record in records] == [100, 100]
    assert records[0].chunk.times_ns is None


def test_a_rate_that_contradicts_the_times_is_refused(tmp_path):
    zarr_array(tmp_path / "a.zarr", np.zeros((200, 2), "f4"), times=seconds(200))
    assert "source.rate_hz is 5, the times say 10 Hz" in refusal_of(tmp_path, rate_hz=5.0).detail


def test_a_variable_of_times_may_be_named(tmp_path):
    store = zarr_array(tmp_path / "a.zarr", np.zeros((50, 2), "f4"), dims=("sample", "channel"))
    zarr_array(store, seconds(50, 20.0), name="stamp", dims=("sample",), attrs={"units": "seconds since 1970-01-01"})
    (record,) = read(reader(tmp_path, time="stamp"))
    assert series_of(record).rate_hz == 20.0
    assert record.chunk.inputs[0].slices[0].dim == "sample"


def test_a_dimension_called_like_a_time_in_nanoseconds_is_still_counted_by_index(tmp_path):
    zarr_array(tmp_path / "a.zarr", np.zeros((50, 2), "f4"), dims=("time_ns", "channel"))
    (entry,) = plan(reader(tmp_path, time="time_ns", rate_hz=1.0))[1]
    assert entry.chunk.extent == (0, 50, None, None)


class TestCalendars:
    @pytest.mark.parametrize("calendar", ["360_day", "noleap"])
    def test_keep_their_dates_as_text_and_have_no_timestamps(self, tmp_path, calendar):
        attrs = {"units": "days since 2001-02-01", "calendar": calendar}
        zarr_array(tmp_path / "a.zarr", np.zeros((60, 1), "f4"), times=np.arange(60), time_attrs=attrs)
        first, second = read(reader(tmp_path, window={"length": 30}))
        assert first.chunk.times_ns is None
        assert first.lineage["calendar"] == calendar
        expected = {"360_day": "2001-02-30T00:00:00 (360_day)", "noleap": "2001-03-02T00:00:00 (noleap)"}
        assert first.lineage["end_text"] == expected[calendar]
        assert second.lineage["start_text"][:8] == "2001-03-"

    def test_dates_of_the_standard_calendar_need_no_text(self, tmp_path):
        zarr_array(tmp_path / "a.zarr", np.zeros((60, 1), "f4"), times=seconds(60))
        (record,) = read(reader(tmp_path))
        assert (record.lineage["calendar"], record.lineage["start_text"]) == ("", "")

    def test_a_time_range_needs_utc(self, tmp_path):
        attrs = {"units": "days since 2001-02-01", "calendar": "noleap"}
        zarr_array(tmp_path / "a.zarr", np.zeros((60, 1), "f4"), times=np.arange(60), time_attrs=attrs)
        assert "no times in UTC" in refusal_of(tmp_path, starttime="2001-02-03T00:00:00Z").detail


class TestResampling:
    def ramp(self, folder: Path, times: np.ndarray, **source):
        """Write values that are their own times, so that what is interpolated is known."""
        values = (times - START_S).astype("f4")[:, None]
        zarr_array(folder / "a.zarr", np.nan_to_num(values), times=times)
        return reader(folder, irregular="resample", **source)

    @SETTINGS
    @given(
        steps=st.lists(st.integers(1, 40), min_size=3, max_size=120),
        back=st.lists(st.integers(0, 119), max_size=3),
        length=st.integers(2, 40),
        tail=st.sampled_from(["shift", "pad", "short"]),
    )
    def test_every_sample_is_in_a_window_or_in_a_row_that_says_why(self, steps, back, length, tail):
        offsets = np.cumsum(steps) / 10.0
        for place in back:
            if place < len(offsets):
                offsets[place:] -= 5.0
        offsets -= offsets[0]
        with tempfile.TemporaryDirectory() as name:
            sensors = self.ramp(Path(name), START_S + offsets, rate_hz=10.0, window={"length": length, "tail": tail})
            items, entries = plan(sensors)
            covered = np.zeros(len(offsets), int)
            for entry in entries:
                covered[entry.chunk.start : entry.chunk.stop] += 1
            assert (covered > 0).all()
            asked = [entry for entry in entries if entry.refusal is None]
            for entry, record in zip(asked, sensors.read([entry.chunk for entry in asked]), strict=True):
                series = series_of(record)
                assert entry.series == series.shape
                assert np.isfinite(series.values_TC).all()
        assert sum(item.count for item in items if item.status == "selected") == len(offsets)

    def test_interpolates_linearly_onto_the_grid(self, tmp_path):
        jumps = np.random.default_rng(0).uniform(0.05, 0.15, 500)
        jumps[0] = 0
        sensors = self.ramp(tmp_path, START_S + np.cumsum(jumps), rate_hz=10.0)
        records = read(sensors)
        for record in records:
            series = series_of(record)
            start_ns = series.start_ns
            expected = (start_ns / 1e9 - START_S) + np.arange(100) / 10
            assert np.abs(series.values_TC[:, 0] - expected)[:-2].max() < 1e-3
            assert record.lineage["resampled"]

    def test_a_gap_is_told_and_a_window_in_it_does_not_exist(self, tmp_path):
        times = np.concatenate([seconds(120), seconds(130) + 412.0])
        records = read(self.ramp(tmp_path, times, window={"length": 100, "tail": "short"}))
        assert [record.chunk.start for record in records] == [0, 100, 120, 220]
        joined = np.concatenate([seconds(120), seconds(130) + 15.0])
        (_, second, *_) = read(self.ramp(tmp_path / "b", joined, window={"length": 100, "tail": "short"}))
        assert second.lineage["gap_frac"] == pytest.approx(0.3, abs=0.02)

    def test_times_that_go_back_begin_a_new_grid_and_twins_are_averaged(self, tmp_path):
        times = np.concatenate([seconds(60), seconds(60) + 2.0])
        records = read(self.ramp(tmp_path, times, window={"length": 60}))
        assert [(record.chunk.start, record.chunk.stop) for record in records] == [(0, 60), (60, 120)]
        twins = np.repeat(seconds(50, 5.0), 2)
        (record,) = read(self.ramp(tmp_path / "b", twins, window={"length": 60}))
        assert series_of(record).rate_hz == 5.0
        assert np.allclose(series_of(record).values_TC[:, 0], np.arange(50) / 5)

    def test_samples_without_a_time_are_a_row(self, tmp_path):
        times = seconds(100)
        times[40:45] = np.nan
        _, entries = plan(self.ramp(tmp_path, times, window={"length": 50}))
        (refused,) = [entry for entry in entries if entry.refusal is not None]
        assert (refused.chunk.start, refused.chunk.stop) == (40, 45)
        assert refused.refusal is not None
        assert "sample 40 has no time" in refused.refusal.detail

    def test_times_in_no_order_at_all_are_refused_as_a_whole(self, tmp_path):
        times = seconds(5000)
        np.random.default_rng(0).shuffle(times[1:-1])
        _, (entry,) = plan(self.ramp(tmp_path, times))
        assert entry.refusal is not None
        assert entry.refusal.reason == "irregular_axis"
