"""Processing a window with its margin equals processing the whole day and cutting."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s1batch.readers.resample import resample
from s1batch.readers.seismic.margin import filter_memory_samples, margin_ns, resampling_ratio
from s1batch.readers.seismic.process import detrend
from s1batch.readers.seismic.spec import SeismicSource
from tests.readers.seismic.waves import (
    SECOND,
    T0,
    Values,
    chunk,
    counts,
    mseed,
    read_one,
    read_waves,
    seismic_reader,
    wave,
)

Z = "XX.AAA..HHZ"
HOUR = 3600


def noise(samples: int, offset: int = 20_000) -> np.ndarray:
    """White noise on an offset, as a digitiser gives it."""
    return (np.random.default_rng(3).normal(size=samples) * 1000 + offset).astype(np.int32)


def span(seconds: float) -> int:
    return T0 + round(seconds * SECOND)


PROCESSING: dict[str, dict[str, Any]] = {
    "bandpass": {"filter": {"type": "bandpass", "freqmin_hz": 1, "freqmax_hz": 20}},
    "bandpass causal": {"filter": {"type": "bandpass", "freqmin_hz": 1, "freqmax_hz": 20, "zerophase": False}},
    "narrow": {"filter": {"type": "bandpass", "freqmin_hz": 2, "freqmax_hz": 2.3, "corners": 6}},
    "highpass": {"filter": {"type": "highpass", "freqmin_hz": 0.05}},
    "lowpass": {"filter": {"type": "lowpass", "freqmax_hz": 0.5}},
    "up": {"rate_hz": 200},
    "down": {"rate_hz": 40},
    "rational": {"rate_hz": 31.25},
    "filter and down": {"filter": {"type": "highpass", "freqmin_hz": 1}, "rate_hz": 20},
}


@pytest.mark.parametrize("name", PROCESSING)
def test_a_window_equals_the_same_stretch_of_the_processed_hour(tmp_path: Path, name: str) -> None:
    processing = PROCESSING[name]
    values = noise(HOUR * 100)
    (tmp_path / "a").write_bytes(mseed(Z, T0, values, reclen=4096))
    reader = seismic_reader(tmp_path, **processing)
    (whole,) = read_waves(reader, [chunk(T0, span(HOUR), [(Z, "a")])])
    rate_hz = float(processing.get("rate_hz", 100))
    starts_s = [900.0, 1234.56, 2000.0]
    windows = read_waves(reader, [chunk(span(s), span(s + 60), [(Z, "a")]) for s in starts_s])
    for start_s, got in zip(starts_s, windows, strict=True):
        if start_s * rate_hz != round(start_s * rate_hz):
            continue  # between the samples of the whole hour's grid; the next test looks at those
        first = round(start_s * rate_hz)
        assert len(got) == round(60 * rate_hz)
        np.testing.assert_allclose(got, whole[first : first + len(got)], atol=1e-6 * np.abs(values).max(), rtol=0)


@pytest.mark.parametrize(("recorded_hz", "sent_hz"), [(31.25, 100.0), (100.0, 31.25), (40.0, 100.0), (100.0, 40.0)])
def test_resampling_follows_absolute_time_wherever_the_window_begins(
    tmp_path: Path, recorded_hz: float, sent_hz: float
) -> None:
    frequencies_hz = (0.5, 3.0, 0.85 * min(recorded_hz, sent_hz) / 2)
    offset_ns = 1_234_000

    def signal(time_s: Values) -> Values:
        tones: Values = np.sum([np.sin(2 * np.pi * hz * time_s + hz) for hz in frequencies_hz], axis=0)
        return 1e4 * (5 + tones)

    recorded = signal(np.arange(round(200 * recorded_hz)) / recorded_hz + offset_ns / 1e9)
    (tmp_path / "a").write_bytes(mseed(Z, T0 + offset_ns, recorded, recorded_hz))
    reader = seismic_reader(tmp_path, rate_hz=sent_hz)
    for start_s in (50.0, 63.17, 90.001):
        record = read_one(reader, chunk(span(start_s), span(start_s + 30), [(Z, "a")], recorded_hz))
        expected = signal(start_s + np.arange(round(30 * sent_hz)) / sent_hz)
        np.testing.assert_allclose(wave(record)[:, 0], expected, rtol=2e-5)
        assert record.lineage["time_shift_s"] == 0
        assert record.lineage["rate_hz"] == recorded_hz
        assert record.lineage["rate_sent_hz"] == sent_hz
        assert record.lineage["gap_frac"] == 0


def test_resampling_takes_away_what_would_alias() -> None:
    time_s = np.arange(20_000) / 100
    tone = np.sin(2 * np.pi * 23.0 * time_s)
    out = resample(tone, 2000.0, 4000, Fraction(2, 5))
    assert np.abs(out).max() < 2e-5
    constant = resample(np.full(1000, 1e7), 100.3, 500, Fraction(16, 5))
    np.testing.assert_allclose(constant, 1e7, rtol=1e-13)


@pytest.mark.parametrize("how", ["none", "constant", "linear"])
@pytest.mark.parametrize(
    "pieces",
    [
        [(1.30, 1)],  # one sample between two points
        [(1.20, 1), (1.40, 1)],  # a hole of one sample between them, which is bridged
        [(1.99, 1)],  # nearer to the place behind the window than to its last one
    ],
)
def test_samples_between_two_points_of_a_coarser_grid_are_present_and_all_filled(
    tmp_path: Path, pieces: list[tuple[float, int]], how: str
) -> None:
    data = b"".join(mseed(Z, span(begin_s), noise(count), 10) for begin_s, count in pieces)
    (tmp_path / "a").write_bytes(data)
    record = read_one(seismic_reader(tmp_path, rate_hz=1, detrend=how), chunk(T0, span(2), [(Z, "a")], 10))
    np.testing.assert_array_equal(wave(record), np.zeros((2, 1)))
    assert record.lineage["gap_frac"] == 1
    assert record.lineage["segments"] == 0
    assert record.lineage["fill"] == ""


def test_resampled_windows_of_data_that_end_are_covered_to_their_last_sample(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(mseed(Z, T0, noise(1875), 31.25))
    record = read_one(seismic_reader(tmp_path, rate_hz=100), chunk(T0, span(60), [(Z, "a")], 31.25))
    assert wave(record).shape == (6000, 1)
    assert record.lineage["gap_frac"] == 0


@pytest.mark.parametrize("zerophase", [True, False])
def test_the_filter_is_obspys_away_from_the_edges(tmp_path: Path, zerophase: bool) -> None:
    from obspy import Trace

    values = noise(60_000, 0)
    (tmp_path / "a").write_bytes(mseed(Z, T0, values, reclen=4096))
    spec = {"type": "bandpass", "freqmin_hz": 2, "freqmax_hz": 15, "zerophase": zerophase}
    got = wave(read_one(seismic_reader(tmp_path, filter=spec), chunk(span(200), span(260), [(Z, "a")])))[:, 0]
    trace = Trace(values.astype(np.float64), {"sampling_rate": 100.0})
    trace.filter("bandpass", freqmin=2, freqmax=15, corners=4, zerophase=zerophase)
    np.testing.assert_allclose(got, trace.data[20_000:26_000], atol=1e-6 * np.abs(values).max())


def test_a_gap_parts_the_processing_and_its_filling_never_enters_a_filter(tmp_path: Path) -> None:
    first, second = noise(20_000, 50_000), noise(20_000, -50_000)
    (tmp_path / "a").write_bytes(mseed(Z, T0, first, reclen=4096) + mseed(Z, span(230), second, reclen=4096))
    (tmp_path / "b").write_bytes(mseed(Z, T0, first, reclen=4096))
    spec = {"type": "highpass", "freqmin_hz": 1}
    reader = seismic_reader(tmp_path, filter=spec, gap_fill="zero")
    both = read_one(reader, chunk(span(180), span(240), [(Z, "a")]))
    alone = read_one(reader, chunk(span(180), span(240), [(Z, "b")]))
    np.testing.assert_array_equal(wave(both)[:2000], wave(alone)[:2000])
    assert not wave(both)[2000:5000].any()
    assert np.abs(wave(both)[5000:]).max() < 10_000  # the step of 100,000 between the stretches does not ring
    assert both.lineage["gap_frac"] == pytest.approx(0.5)
    assert both.lineage["segments"] == 2


def test_a_single_missing_sample_is_bridged_before_the_filter_and_counted(tmp_path: Path) -> None:
    values = (1000 * np.sin(np.arange(20_000) / 30)).astype(np.int32)
    (tmp_path / "a").write_bytes(mseed(Z, T0, values[:10_000]) + mseed(Z, span(100.01), values[10_001:]))
    (tmp_path / "b").write_bytes(mseed(Z, T0, values))
    reader = seismic_reader(tmp_path, filter={"type": "highpass", "freqmin_hz": 0.1})
    holed = read_one(reader, chunk(span(70), span(130), [(Z, "a")]))
    np.testing.assert_allclose(wave(holed), wave(read_one(reader, chunk(span(70), span(130), [(Z, "b")]))), atol=2)
    assert holed.lineage["gap_frac"] == pytest.approx(1 / 6000)
    assert holed.lineage["segments"] == 1


def test_damage_in_the_margin_ends_the_stretch_and_refuses_nothing(tmp_path: Path) -> None:
    data = bytearray(mseed(Z, T0, noise(20_000)))
    data[512 * 2 + 64 : 512 * 3] = b"\xff" * 448
    (tmp_path / "a").write_bytes(data)
    reader = seismic_reader(tmp_path, filter={"type": "highpass", "freqmin_hz": 1})
    near = read_one(reader, chunk(span(20), span(30), [(Z, "a")]))
    assert near.refusal is None
    hit = read_one(reader, chunk(span(0), span(30), [(Z, "a")]))
    assert hit.refusal is not None
    assert hit.refusal.reason == "decode_error"


def test_nan_in_the_margin_is_refused_because_it_reaches_the_window(tmp_path: Path) -> None:
    values = np.zeros(20_000)
    values[9_900] = np.nan
    (tmp_path / "a").write_bytes(mseed(Z, T0, values))
    reader = seismic_reader(tmp_path, filter={"type": "highpass", "freqmin_hz": 1})
    refusal = read_one(reader, chunk(span(100), span(110), [(Z, "a")])).refusal
    assert refusal is not None
    assert refusal.reason == "not_finite"


def test_a_highpass_above_the_nyquist_frequency_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(mseed(Z, T0, noise(1000), 1.0))
    reader = seismic_reader(tmp_path, filter={"type": "highpass", "freqmin_hz": 2})
    refusal = read_one(reader, chunk(T0, span(60), [(Z, "a")], 1.0)).refusal
    assert refusal is not None
    assert (refusal.outcome, refusal.reason) == ("refused", "invalid_request")
    assert "Nyquist" in refusal.detail


def test_no_processing_needs_no_margin_and_memory_follows_the_poles() -> None:
    plain = SeismicSource.model_validate({"kind": "seismic", "paths": ["*"]})
    assert margin_ns(plain, 100.0) == 0
    assert margin_ns(plain.model_copy(update={"rate_hz": 100.0}), 100.0) == 0
    assert resampling_ratio(plain.model_copy(update={"rate_hz": 100.0}), 31.25) == Fraction(16, 5)
    assert filter_memory_samples(None) == 0


@pytest.mark.parametrize("how", ["constant", "linear"])
def test_detrend_uses_the_real_samples_only(how: str) -> None:
    time = np.arange(1000.0)
    values = 5 + 2 * time
    covered = np.ones(1000, bool)
    covered[300:600] = False
    values[~covered] = 1e9
    mean = detrend(values, covered, how)
    assert mean == pytest.approx((5 + 2 * time)[covered].mean())
    assert abs(values[covered].mean()) < 1e-9
    if how == "linear":
        assert np.abs(values[covered]).max() < 1e-8


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An archive with noise on a channel for which ObsPy ships a response."""
    from obspy import read_inventory

    folder = tmp_path_factory.mktemp("response")
    inventory = read_inventory()
    inventory.write(str(folder / "station.xml"), format="STATIONXML")
    channel = "BW.RJOB..EHZ"
    (folder / "a").write_bytes(mseed(channel, T0, noise(HOUR * 100, 500), reclen=4096))
    return folder, channel


def response(**settings: Any) -> dict[str, Any]:
    return {"inventory": "station.xml", "pre_filt_hz": (0.1, 0.3, 35, 45), **settings}


def test_response_removal_is_local(station: tuple[Path, str]) -> None:
    folder, channel = station
    reader = seismic_reader(folder, response=response())
    (whole,) = read_waves(reader, [chunk(T0, span(HOUR), [(channel, "a")])])
    (got,) = read_waves(reader, [chunk(span(900), span(960), [(channel, "a")])])
    np.testing.assert_allclose(got, whole[90_000:96_000], atol=1e-6 * np.abs(whole).max(), rtol=0)


@pytest.mark.parametrize("output", ["DISP", "VEL", "ACC"])
@pytest.mark.parametrize("water_level_db", [60.0, None])
def test_response_removal_agrees_with_obspy(
    station: tuple[Path, str], output: str, water_level_db: float | None
) -> None:
    from obspy import read, read_inventory

    folder, channel = station
    reader = seismic_reader(folder, response=response(output=output, water_level_db=water_level_db))
    record = read_one(reader, chunk(span(900), span(960), [(channel, "a")]))
    (trace,) = read(str(folder / "a"), format="MSEED")
    trace.remove_response(
        read_inventory(str(folder / "station.xml")),
        output=output,
        pre_filt=(0.1, 0.3, 35, 45),
        water_level=water_level_db,
    )
    expected = trace.data[90_000:96_000]
    assert np.abs(wave(record)[:, 0] - expected).max() < 0.01 * np.abs(expected).max()
    assert record.lineage["units"] == {"DISP": "m", "VEL": "m/s", "ACC": "m/s**2"}[output]


def test_a_channel_without_response_is_refused_with_the_inventory_named(station: tuple[Path, str]) -> None:
    folder, _ = station
    (folder / "b").write_bytes(mseed(Z, T0, counts(1000)))
    refusal = read_one(seismic_reader(folder, response=response()), chunk(T0, span(5), [(Z, "b")])).refusal
    assert refusal is not None
    assert refusal.outcome == "refused"
    assert "station.xml" in refusal.detail
