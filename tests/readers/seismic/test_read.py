"""The seismic reader: planned chunks in, records out."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s1batch.readers.seismic.components import role_of
from s1batch.records import Address, Chunk, Series, Slice
from tests.readers.seismic.waves import (
    SECOND,
    T0,
    ZNE,
    Z,
    chunk,
    counts,
    day,
    mseed,
    obspy_file,
    read_one,
    read_waves,
    records,
    seismic_reader,
    wave,
)


def test_a_window_holds_the_recorded_values_in_the_order_of_the_components(tmp_path: Path) -> None:
    values = day(tmp_path)
    reader = seismic_reader(tmp_path, components="ENZ")
    record = read_one(reader, chunk(T0 + 10 * SECOND, T0 + 70 * SECOND, [(c, "day") for c in ZNE[::-1]]))
    np.testing.assert_array_equal(wave(record), np.stack([v[1000:7000] for v in values[::-1]], axis=1))
    assert isinstance(record.payload, Series)
    assert record.payload.channels == ZNE[::-1]
    assert record.payload.start_ns == T0 + 10 * SECOND
    assert record.payload.units == "counts"
    assert record.payload.values_TC.flags.c_contiguous
    assert record.lineage["components"] == "ENZ"
    assert record.lineage["gap_frac"] == 0
    assert record.lineage["segments"] == 1


def test_every_lineage_column_is_in_every_record_with_its_type(tmp_path: Path) -> None:
    import pyarrow as pa

    day(tmp_path)
    reader = seismic_reader(tmp_path, components="ZNE")
    wanted = [
        chunk(T0, T0 + SECOND, [(Z, "day")]),
        chunk(T0, T0 + SECOND, [(Z, "gone")]),
        Chunk(inputs=(Address(root="archive", path="bad", slices=(Slice(dim="bytes", start=0, stop=9),)),)),
    ]
    schema = pa.schema([(column.name, column.type) for column in reader.lineage])
    rows = [record.lineage for record in reader.read(wanted)]
    for row in rows:
        assert list(row) == [column.name for column in reader.lineage]
    assert pa.Table.from_pylist([dict(row) for row in rows], schema=schema).num_rows == 3


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("io/mseed/tests/data/gaps.mseed", "MSEED"),
        ("io/mseed/tests/data/two_channels.mseed", "MSEED"),
        ("io/mseed/tests/data/timingquality.mseed", "MSEED"),
        ("io/mseed/tests/data/fullseed.mseed", "MSEED"),
        ("io/mseed/tests/data/corrupt_one_extra_byte_at_end.mseed", "MSEED"),
        ("io/mseed/tests/data/three_records_zero_data_in_middle.mseed", "MSEED"),
        ("io/mseed/tests/data/encoding/float64_Float64_littleEndian.mseed", "MSEED"),
        ("io/mseed/tests/data/encoding/int32_Steim1_bigEndian.mseed", "MSEED"),
        ("io/mseed/tests/data/GEOSCOPE16_4_encoding.mseed", "MSEED"),
        ("io/sac/tests/data/test.sac", "SAC"),
        ("io/gse2/tests/data/loc_RJOB20050831023349.z", "GSE2"),
        ("io/nied/tests/data/test.knet", "KNET"),
        ("io/segy/tests/data/example.y_first_trace", "SEGY"),
    ],
)
def test_shipped_files_read_as_obspy_reads_them(name: str, format: str) -> None:
    import obspy

    path = obspy_file(name)
    for trace in obspy.read(str(path), format=format):
        stats = trace.stats
        length = min(stats.npts, 2000)
        start = stats.starttime.ns
        role = role_of(trace.id, {})
        if role is None or length == 0:
            continue
        reader = seismic_reader(path.parent, components=role.component)
        stop = start + round(length * SECOND / stats.sampling_rate)
        record = read_one(reader, chunk(start, stop, [(trace.id, path.name)], stats.sampling_rate))
        np.testing.assert_array_equal(wave(record)[:, 0], trace.data[:length].astype(np.float32))


def test_missing_component_is_zeros_and_recorded_or_refused(tmp_path: Path) -> None:
    day(tmp_path)
    wanted = chunk(T0, T0 + SECOND, [(ZNE[0], "day"), (ZNE[2], "day")])
    record = read_one(seismic_reader(tmp_path, components="ZNE"), wanted)
    assert record.lineage["fill"] == "N"
    assert record.lineage["channels"] == [ZNE[0], "", ZNE[2]]
    assert not wave(record)[:, 1].any()
    assert record.lineage["gap_frac"] == 0
    refused = read_one(seismic_reader(tmp_path, components="ZNE", missing="refuse"), wanted).refusal
    assert refused is not None
    assert (refused.outcome, refused.reason) == ("refused", "missing_component")


@pytest.mark.parametrize(("how", "expected"), [("mean", None), ("zero", 0.0)])
def test_gaps_are_filled_as_asked_and_counted(tmp_path: Path, how: str, expected: float | None) -> None:
    first, second = counts(300), counts(400, 1) + 100
    (tmp_path / "a").write_bytes(mseed(Z, T0, first) + mseed(Z, T0 + 6 * SECOND, second))
    record = read_one(seismic_reader(tmp_path, gap_fill=how), chunk(T0, T0 + 10 * SECOND, [(Z, "a")]))
    got = wave(record)[:, 0]
    np.testing.assert_array_equal(got[:300], first)
    np.testing.assert_array_equal(got[600:], second)
    filling = np.concatenate((first, second)).mean() if expected is None else expected
    np.testing.assert_allclose(got[300:600], filling, rtol=1e-6)
    assert record.lineage["gap_frac"] == pytest.approx(0.3)
    assert record.lineage["segments"] == 2


def test_too_much_gap_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(mseed(Z, T0, counts(300)))
    reader = seismic_reader(tmp_path, window={"max_gap_frac": 0.5})
    refusal = read_one(reader, chunk(T0, T0 + 10 * SECOND, [(Z, "a")])).refusal
    assert refusal is not None
    assert refusal.reason == "gap_too_large"


def test_padding_behind_the_data_is_zero_and_is_no_gap(tmp_path: Path) -> None:
    values = counts(300) + 1000
    (tmp_path / "a").write_bytes(mseed(Z, T0, values))
    reader = seismic_reader(tmp_path, window={"length": "10s", "tail": "pad"})
    wanted = chunk(T0, T0 + 10 * SECOND, [(Z, "a")], core=(T0, T0 + 3 * SECOND))
    record = read_one(reader, wanted)
    np.testing.assert_array_equal(wave(record)[:300, 0], values)
    assert not wave(record)[300:].any()
    assert record.lineage["pad_frac"] == pytest.approx(0.7)
    assert record.lineage["gap_frac"] == 0


def test_the_first_file_wins_where_two_overlap_and_margins_across_midnight_join(tmp_path: Path) -> None:
    values = counts(2000)
    midnight = T0 + 86_400 * SECOND
    (tmp_path / "a").write_bytes(mseed(Z, midnight - 10 * SECOND, values[:1200]))
    (tmp_path / "b").write_bytes(mseed(Z, midnight, values[1000:] + 7))
    record = read_one(
        seismic_reader(tmp_path), chunk(midnight - 5 * SECOND, midnight + 5 * SECOND, [(Z, "a"), (Z, "b")])
    )
    expected = np.concatenate((values[500:1200], values[1200:1500] + 7))
    np.testing.assert_array_equal(wave(record)[:, 0], expected)
    assert record.lineage["source_files"] == ["a", "b"]


def test_records_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    values = counts(6000)
    parts = records(mseed(Z, T0, values))
    (tmp_path / "a").write_bytes(b"".join(parts[::-1]))
    record = read_one(seismic_reader(tmp_path), chunk(T0, T0 + 60 * SECOND, [(Z, "a")]))
    np.testing.assert_array_equal(wave(record)[:, 0], values)
    assert record.lineage["segments"] == 1


@pytest.mark.parametrize("suffix", [".gz", ".bz2"])
def test_compressed_files_read_like_plain_ones(tmp_path: Path, suffix: str) -> None:
    values = day(tmp_path)
    plain = (tmp_path / "day").read_bytes()
    (tmp_path / f"day{suffix}").write_bytes(gzip.compress(plain) if suffix == ".gz" else bz2.compress(plain))
    record = read_one(seismic_reader(tmp_path), chunk(T0, T0 + SECOND, [(Z, f"day{suffix}")]))
    np.testing.assert_array_equal(wave(record)[:, 0], values[0][:100])
    assert record.lineage["source_sizes"] == [(tmp_path / f"day{suffix}").stat().st_size]


def test_threads_may_read_at_once(tmp_path: Path) -> None:
    values = day(tmp_path)
    reader = seismic_reader(tmp_path)
    wanted = [chunk(T0 + k * SECOND, T0 + (k + 1) * SECOND, [(Z, "day")]) for k in range(600)]
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: read_waves(reader, wanted), range(4)):
            np.testing.assert_array_equal(np.concatenate(got)[:, 0], values[0])


def test_memory_that_is_used_again_holds_nothing_of_windows_already_read(tmp_path: Path) -> None:
    """Blocks large enough to be decoded into lent memory, int32 and float64, and threads that lend it at once."""
    values = day(tmp_path, seconds=7000)
    single = counts(400_000) + 0.25
    (tmp_path / "float").write_bytes(mseed("XX.BBB..HHZ", T0, single, reclen=4096))
    reader = seismic_reader(tmp_path, components="ZNE")
    wanted = [chunk(T0 + k * 50 * SECOND, T0 + (k + 1) * 50 * SECOND, [(c, "day") for c in ZNE]) for k in range(140)]
    alone = [chunk(T0 + k * 50 * SECOND, T0 + (k + 1) * 50 * SECOND, [("XX.BBB..HHZ", "float")]) for k in range(80)]
    mixed = [one for pair in zip(wanted, alone, strict=False) for one in pair] + wanted[80:]
    with ThreadPoolExecutor(3) as pool:
        for got in pool.map(lambda chunks: read_waves(reader, chunks), [wanted, mixed, wanted[::-1]]):
            if len(got) > len(wanted):
                np.testing.assert_array_equal(np.concatenate(got[1:160:2])[:, 0], single.astype(np.float32))
                got = [*got[:160:2], *got[160:]]
            elif got[0][0, 0] != values[0][0]:
                got = got[::-1]
            np.testing.assert_array_equal(np.concatenate(got), np.stack(values, axis=1))


def test_a_clock_that_drifts_keeps_every_sample_within_a_period_of_its_time(tmp_path: Path) -> None:
    """Header says 100 Hz, the records' times say 99.9: single samples are bridged, and nothing runs away."""
    data, sent = b"", counts(60_000)
    for number in range(60):
        data += mseed(Z, T0 + round(number * 1000 * SECOND / 99.9), sent[number * 1000 : number * 1000 + 1000])
    (tmp_path / "a").write_bytes(data)
    wanted = [chunk(T0 + k * 60 * SECOND, T0 + (k + 1) * 60 * SECOND, [(Z, "a")]) for k in range(10)]
    found = list(seismic_reader(tmp_path).read(wanted))
    got = np.concatenate([wave(record)[:, 0] for record in found])
    at = np.rint(np.arange(60_000) * 100 / 99.9).astype(int)
    near = [got[np.clip(at + shift, 0, len(got) - 1)] == sent for shift in (-1, 0, 1)]
    assert np.any(near, axis=0)[:-100].all()
    assert sum(record.lineage["gap_frac"] * 6000 for record in found) == pytest.approx(60, abs=3)
    assert all(abs(record.lineage["time_shift_s"]) < 0.0051 for record in found)


def test_hash_records_each_file_once(tmp_path: Path) -> None:
    day(tmp_path)
    digest = hashlib.sha256((tmp_path / "day").read_bytes()).hexdigest()
    wanted = chunk(T0, T0 + SECOND, [(c, "day") for c in ZNE])
    assert read_one(seismic_reader(tmp_path, components="ZNE", hash=True), wanted).lineage["source_sha256"] == [digest]
    record = read_one(seismic_reader(tmp_path, components="ZNE"), wanted)
    assert record.lineage["source_sha256"] == []
    facts = (tmp_path / "day").stat()
    assert record.lineage["source_sizes"] == [facts.st_size]
    assert record.lineage["source_mtimes_ns"] == [facts.st_mtime_ns]


def test_source_facts_tell_a_changed_file(tmp_path: Path) -> None:
    day(tmp_path)
    reader = seismic_reader(tmp_path)
    wanted = chunk(T0, T0 + SECOND, [(Z, "day"), (Z, "gone")])
    before = reader.source_facts(wanted)
    os.utime(tmp_path / "day", ns=(1, 1))
    assert before["day"] != reader.source_facts(wanted)["day"]
    assert before["gone"] is None


def test_sub_sample_offsets_between_components_are_kept_and_recorded(tmp_path: Path) -> None:
    values = [counts(1000, seed) for seed in range(2)]
    (tmp_path / "a").write_bytes(mseed(ZNE[0], T0, values[0]) + mseed(ZNE[1], T0 + 3_000_000, values[1]))
    reader = seismic_reader(tmp_path, components="ZN")
    record = read_one(reader, chunk(T0, T0 + 5 * SECOND, [(ZNE[0], "a"), (ZNE[1], "a")]))
    np.testing.assert_array_equal(wave(record), np.stack([v[:500] for v in values], axis=1))
    assert record.lineage["time_shift_s"] == pytest.approx(0.003)


def test_a_jittered_rate_loses_no_sample_between_windows(tmp_path: Path) -> None:
    values = counts(6000)
    (tmp_path / "a").write_bytes(mseed(Z, T0, values, 100.0007))
    wanted = [chunk(T0 + k * 10 * SECOND, T0 + (k + 1) * 10 * SECOND, [(Z, "a")]) for k in range(6)]
    np.testing.assert_array_equal(np.concatenate(read_waves(seismic_reader(tmp_path), wanted))[:, 0], values)


def test_one_sample_and_constant_traces_are_read(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(mseed(Z, T0, np.array([42], np.int32)))
    (tmp_path / "flat").write_bytes(mseed(Z, T0, np.full(1000, 7, np.int32)))
    reader = seismic_reader(tmp_path)
    assert wave(read_one(reader, chunk(T0, T0 + 10_000_000, [(Z, "one")]))).tolist() == [[42.0]]
    assert (wave(read_one(reader, chunk(T0, T0 + SECOND, [(Z, "flat")]))) == 7).all()


def test_integers_up_to_2_to_the_24_are_exact_and_detrend_works_in_float64(tmp_path: Path) -> None:
    small = np.arange(1000, dtype=np.int32) % 3
    (tmp_path / "a").write_bytes(mseed(Z, T0, (2**24 - 3) + small))
    (tmp_path / "b").write_bytes(mseed(Z, T0, 2**30 + small, encoding="INT32"))
    np.testing.assert_array_equal(
        wave(read_one(seismic_reader(tmp_path), chunk(T0, T0 + 10 * SECOND, [(Z, "a")])))[:, 0], 2**24 - 3 + small
    )
    record = read_one(seismic_reader(tmp_path, detrend="constant"), chunk(T0, T0 + 10 * SECOND, [(Z, "b")]))
    np.testing.assert_allclose(wave(record)[:, 0], small - small.mean(), atol=1e-6)
    assert record.lineage["removed_mean"] == [pytest.approx(2**30 + small.mean())]


def test_a_reader_pickles_and_reads_the_same(tmp_path: Path) -> None:
    day(tmp_path)
    reader = seismic_reader(tmp_path)
    again = pickle.loads(pickle.dumps(reader))
    wanted = chunk(T0, T0 + SECOND, [(Z, "day")])
    np.testing.assert_array_equal(wave(read_one(reader, wanted)), wave(read_one(again, wanted)))


def test_order_and_partition_of_chunks_do_not_change_a_value(tmp_path: Path) -> None:
    """Records with jittering start times, an overlap and a gap, read in any order, alone or together."""
    rng = np.random.default_rng(1)
    data, start = b"", T0
    for piece in range(40):
        data += mseed(Z, start + int(rng.integers(-4_000_000, 4_000_000)), counts(400, piece))
        start += 4 * SECOND + (2 * SECOND if piece == 10 else 0) - (SECOND if piece == 20 else 0)
    (tmp_path / "a").write_bytes(data)
    reader = seismic_reader(tmp_path)
    wanted = [chunk(T0 + k * 3 * SECOND, T0 + (k * 3 + 7) * SECOND, [(Z, "a")]) for k in range(50)]
    together = read_waves(reader, wanted)
    backwards = read_waves(reader, wanted[::-1])[::-1]
    alone = [wave(read_one(reader, one)) for one in wanted]
    sparse = read_waves(reader, wanted[::9])
    for first, second, third in zip(together, backwards, alone, strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, third)
    for first, second in zip(together[::9], sparse, strict=True):
        np.testing.assert_array_equal(first, second)


segments = st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 900), st.integers(0, 1)), min_size=1, max_size=6)


@given(
    pieces=segments, windows=st.lists(st.tuples(st.integers(-100, 3800), st.integers(1, 900)), min_size=1, max_size=5)
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_segments_in_two_files_read_as_a_plain_model_says(
    tmp_path: Path, pieces: list[tuple[int, int, int]], windows: list[tuple[int, int]]
) -> None:
    model = np.full(5000, np.nan)
    files: tuple[list[bytes], list[bytes]] = ([], [])
    for wanted_file in (0, 1):
        for number, (first, count, file) in enumerate(pieces):
            if file != wanted_file:
                continue
            values = counts(count, number) + 1000 * number
            files[file].append(mseed(Z, T0 + first * 10_000_000, values, reclen=256))
            free = np.isnan(model[first : first + count])
            model[first : first + count][free] = values[free]
    for file, parts in enumerate(files):
        (tmp_path / str(file)).write_bytes(b"".join(parts))
    names = [str(file) for file, parts in enumerate(files) if parts]
    reader = seismic_reader(tmp_path, gap_fill="zero")
    wanted = [
        chunk(T0 + first * 10_000_000, T0 + (first + count) * 10_000_000, [(Z, name) for name in names])
        for first, count in windows
    ]
    for (first, count), record in zip(windows, reader.read(wanted), strict=True):
        padded = np.concatenate((np.full(100, np.nan), model))[first + 100 : first + 100 + count]
        covered = ~np.isnan(padded)
        if not covered.any():
            assert record.refusal is not None
            assert record.refusal.outcome == "unreadable"
            continue
        holes = ~covered
        if count > 2:
            holes[1:-1] &= ~(covered[:-2] & covered[2:])  # a single missing sample is bridged
            holes[0], holes[-1] = ~covered[0], ~covered[-1]
        got = wave(record)[:, 0]
        np.testing.assert_array_equal(got[covered], padded[covered])
        assert not got[holes].any()
        assert record.lineage["gap_frac"] == pytest.approx(1 - covered.mean())
