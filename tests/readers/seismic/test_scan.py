"""Headers give every sample of a file, and the bytes that hold none."""

from __future__ import annotations

import glob
import gzip
import io
import os
import random
import tempfile
import warnings
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import obspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.errors import SourceError
from s1batch.readers.seismic.compressed import unpacked
from s1batch.readers.seismic.detect import detect_format
from s1batch.readers.seismic.obspy_formats import read_traces
from s1batch.readers.seismic.record_index import RecordIndex, index_any, index_uniform
from s1batch.readers.seismic.scan import HeaderSegment, scan_file, scan_quickly, scan_records
from tests.readers.seismic.waveforms import OBSPY_IO, T0_NS, mseed_bytes, write_mseed

ONE = ("XX.A..BHZ", T0_NS, 100.0, 5000)


def test_a_clean_file_is_one_segment_per_contiguous_stretch(tmp_path: Path) -> None:
    later = ("XX.A..BHZ", T0_NS + 100 * 10**9, 100.0, 300)
    for version in (2, 3):
        scan = scan_file(str(write_mseed(tmp_path / "x", [ONE, later], version)))
        assert scan.segments == (
            HeaderSegment(channel="XX.A..BHZ", start_ns=T0_NS, rate_hz=100.0, samples=5000),
            HeaderSegment(channel="XX.A..BHZ", start_ns=T0_NS + 100 * 10**9, rate_hz=100.0, samples=300),
        )
        assert scan.unreadable == ()


def test_records_out_of_order_and_twice_are_all_counted(tmp_path: Path) -> None:
    data = mseed_bytes([ONE], 2)
    records = [data[i : i + 512] for i in range(0, len(data), 512)]
    (tmp_path / "x").write_bytes(b"".join([*records[::-1], records[0], records[0]]))
    first = scan_file(str(write_mseed(tmp_path / "first", [ONE], 2)))
    once = obspy_samples(tmp_path / "first")
    assert sum(segment.samples for segment in first.segments) == once == 5000
    scan = scan_file(str(tmp_path / "x"))
    assert sum(segment.samples for segment in scan.segments) == obspy_samples(tmp_path / "x") > 5000


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("cut", [1, 100, 511])
def test_a_cut_off_tail_is_counted_in_bytes(tmp_path: Path, version: int, cut: int) -> None:
    whole = mseed_bytes([ONE], version)
    (tmp_path / "x").write_bytes(whole[:-cut])
    scan = scan_file(str(tmp_path / "x"))
    ((start, stop),) = scan.unreadable
    assert stop == len(whole) - cut
    (tmp_path / "rest").write_bytes(whole[:start])
    assert scan.segments == scan_file(str(tmp_path / "rest")).segments
    assert 3000 < scan.segments[0].samples < 5000


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("stray", [7, 64, 512, 1000])
def test_stray_bytes_in_the_middle_cost_nothing_else(tmp_path: Path, version: int, stray: int) -> None:
    first, second = mseed_bytes([ONE], version), mseed_bytes([("XX.A..BHZ", T0_NS + 50 * 10**9, 100.0, 200)], version)
    (tmp_path / "x").write_bytes(first + b"\x55" * stray + second)
    scan = scan_file(str(tmp_path / "x"))
    assert scan.unreadable == ((len(first), len(first) + stray),)
    assert sum(segment.samples for segment in scan.segments) == 5200


def test_a_record_with_a_wrong_checksum_is_counted_in_bytes(tmp_path: Path) -> None:
    data = bytearray(mseed_bytes([ONE], 3))
    data[-1] ^= 0xFF
    (tmp_path / "x").write_bytes(data)
    scan = scan_file(str(tmp_path / "x"))
    ((start, stop),) = scan.unreadable
    assert stop == len(data)
    assert start > 0


def test_every_byte_of_a_shuffled_file_is_accounted_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    whole = mseed_bytes([ONE, ("XX.A..BHN", T0_NS, 100.0, 5000)], 2)
    for _ in range(20):
        data = bytearray(whole)
        for _ in range(3):
            start = int(rng.integers(512, len(data)))
            data[start : start + 40] = rng.bytes(40)
        (tmp_path / "x").write_bytes(data)
        scan = scan_file(str(tmp_path / "x"))
        assert all(a < b for a, b in scan.unreadable)
        assert sum(segment.samples for segment in scan.segments) > 0


def test_a_clock_that_runs_fast_keeps_samples_within_half_a_period_of_their_times(tmp_path: Path) -> None:
    step_ns = 10**9 + 1_000_000  # each second of data comes a millisecond late
    segments = [("XX.A..BHZ", T0_NS + i * step_ns, 100.0, 100) for i in range(60)]
    found = scan_file(str(write_mseed(tmp_path / "x", segments))).segments
    assert sum(segment.samples for segment in found) == 6000
    assert len(found) > 5
    position = 0
    for segment in found:
        for k in range(0, segment.samples, 100):
            true_ns = T0_NS + (position // 100) * step_ns
            assert abs(segment.start_ns + k * 10**7 - true_ns) <= 5_000_000
            position += 100


def test_records_without_a_rate_are_no_time_series(tmp_path: Path) -> None:
    from pymseed import DataEncoding, MS3Record

    record = MS3Record(reclen=512, encoding=DataEncoding.TEXT)
    record.sourceid = "FDSN:XX_A__L_O_G"
    record.starttime = T0_NS
    record.samprate = 0.0
    data = b"".join(bytes(part) for part in record.generate(b"clock locked", sample_type="t"))
    (tmp_path / "x").write_bytes(data)
    (segment,) = scan_file(str(tmp_path / "x")).segments
    assert (segment.channel, segment.rate_hz, segment.samples) == ("XX.A..LOG", 0.0, 12)


def test_names_that_libraries_take_for_patterns_or_ranges_are_read(tmp_path: Path) -> None:
    sac = (OBSPY_IO / "sac/tests/data/LMOW.BHE.SAC").read_bytes()
    for raw in (b"a[b]*?.sac", b"\xff \n.sac", b"x@1-2.sac"):
        path = os.path.join(os.fsencode(tmp_path), raw)
        for data, channel in ((sac, "LMOW"), (mseed_bytes([ONE]), "A")):
            with open(path, "wb") as stream:
                stream.write(data)
            (segment,) = scan_file(os.fsdecode(path)).segments
            assert segment.channel.split(".")[1] == channel


def test_compressed_miniseed_is_scanned_as_the_plain_file(tmp_path: Path) -> None:
    plain = write_mseed(tmp_path / "x", [ONE])
    (tmp_path / "x.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert scan_file(str(tmp_path / "x.gz")) == scan_file(str(plain))


def test_a_header_that_promises_what_is_not_there_is_not_readable(tmp_path: Path) -> None:
    whole = (OBSPY_IO / "seisan/tests/data/2001-01-13-1742-24S.KONO__004").read_bytes()
    (tmp_path / "x").write_bytes(whole[:1200])
    with pytest.raises(SourceError) as caught:
        scan_file(str(tmp_path / "x"))
    assert caught.value.reason in ("not_readable", "unknown_format")


def test_a_damaged_count_of_samples_does_not_become_millions_of_chunks(tmp_path: Path) -> None:
    data = bytearray((OBSPY_IO / "gse2/tests/data/loc_RJOB20050831023349.z").read_bytes())
    place = data.index(b"12000", 0, 200)
    data[place - 3 : place + 5] = b"99999999"
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(SourceError) as caught:
        scan_file(str(tmp_path / "x"))
    assert caught.value.reason == "not_readable"


def obspy_samples(path: Path) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scan = scan_file(str(path))
        return sum(trace.stats.npts for trace in obspy.read(glob.escape(str(path)), format=scan.format, headonly=True))


SHIPPED = sorted(path for path in OBSPY_IO.rglob("tests/data/**/*") if path.is_file())


def shipped(folder: str) -> list[Path]:
    return [path for path in SHIPPED if path.relative_to(OBSPY_IO).parts[0] == folder]


@pytest.mark.parametrize("folder", sorted({path.relative_to(OBSPY_IO).parts[0] for path in SHIPPED}))
def test_headers_give_the_traces_that_a_full_read_gives(folder: str) -> None:
    """For every file that ObsPy ships, of every format: channels, starts, rates and counts, in their order."""
    for path in shipped(folder):
        try:
            scan = scan_file(str(path))
        except SourceError:
            continue
        if scan.format == "MSEED":
            # microsecond_wrap has a time that libmseed 3 refuses; infinite-loop is noise that ObsPy refuses.
            if path.name not in ("microsecond_wrap.mseed", "infinite-loop.mseed"):
                assert sum(segment.samples for segment in scan.segments) == obspy_samples(path), path.name
            continue
        if "wrong_chksum" in path.name or path.name == "broken_head.gse2":
            continue  # only a full read compares checksums
        with unpacked(str(path)) as plain:
            traces = read_traces(plain, scan.format, path.name, headers_only=False)
        found = [(trace.channel, trace.start_ns, trace.rate_hz, trace.samples) for trace in traces]
        assert [(s.channel, s.start_ns, s.rate_hz, s.samples) for s in scan.segments] == found, path.name
        assert all(trace.values is not None for trace in traces), path.name


def test_every_format_that_obspy_reads_is_among_those_files() -> None:
    """All but pickles, which are programs."""
    found = set()
    for path in SHIPPED:
        try:
            found.add(detect_format(str(path)))
        except SourceError:
            continue
    assert found == {point.name for point in entry_points(group="obspy.plugin.waveform")} - {"PICKLE"}


def in_one_order(segments: Iterable[HeaderSegment]) -> list[tuple[str, int, float, int]]:
    return sorted((item.channel, item.start_ns, item.rate_hz, item.samples) for item in segments)


@pytest.mark.parametrize("path", [path for path in SHIPPED if "mseed" in path.parts], ids=lambda path: path.name)
def test_the_quick_way_gives_the_runs_of_the_index(path: Path) -> None:
    quick = scan_quickly(str(path)) if path.stat().st_size else None
    if quick is not None:
        slow = scan_records(str(path), path.name)
        assert in_one_order(quick.segments) == in_one_order(slow.segments)
        assert (slow.unreadable, slow.metadata_bytes) == ((), 0)


PERIOD_NS = 10_000_000


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(
            st.sampled_from([0, 0, 0, 1, -1, 3]),
            st.one_of(
                st.sampled_from([0, 0, 0, 1, -1]),
                st.integers(-6, 6).map(lambda k: k + PERIOD_NS // 2),
                st.integers(-6, 6).map(lambda k: k - PERIOD_NS // 2),
                st.integers(-(10**7), 10**7),
            ),
            st.integers(1, 60),
            st.sampled_from([100.0, 100.0, 100.0, 100.004, 99.991, 50.0]),
        ),
        min_size=1,
        max_size=6,
    ),
    order=st.randoms(use_true_random=False),
    version=st.sampled_from([2, 3]),
    shuffled=st.booleans(),
)
def test_the_quick_way_gives_the_runs_of_the_index_for_any_jitter_and_order(
    pieces: list[tuple[int, int, int, float]], order: random.Random, version: int, shuffled: bool
) -> None:
    """Records that follow one another up to a jitter, down to the nanoseconds around half a period.

    Where records of several rates stand out of order, libmseed names the rate of another of them than the index.
    """
    records, start_ns = [], T0_NS
    if shuffled:
        pieces = [(gap, jitter_ns, count, pieces[0][3]) for gap, jitter_ns, count, _ in pieces]
    for gap, jitter_ns, count, rate_hz in pieces:
        records.append(mseed_bytes([("XX.A..BHZ", start_ns + jitter_ns, rate_hz, count)], version))
        start_ns += (count + gap) * PERIOD_NS
    if shuffled:
        order.shuffle(records)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(b"".join(records))
        quick = scan_quickly(str(path))
        slow = scan_records(str(path), "x")
    assert sum(segment.samples for segment in slow.segments) == sum(piece[2] for piece in pieces)
    if quick is not None:
        assert in_one_order(quick.segments) == in_one_order(slow.segments)


@pytest.mark.parametrize("samples", [9000, 900_000])
def test_a_record_that_claims_to_reach_beyond_the_end_costs_only_itself(tmp_path: Path, samples: int) -> None:
    """libmseed alone passes over all that follows such a record, without a word."""
    data = bytearray(mseed_bytes([("XX.A..BHZ", T0_NS, 100.0, samples)], 2))
    place = len(data) // 512 // 2 * 512
    data[place + 54] = 20
    (tmp_path / "x").write_bytes(data)
    scan = scan_file(str(tmp_path / "x"))
    assert scan.unreadable == ((place, place + 512),)
    lost = int.from_bytes(data[place + 30 : place + 32], "big")
    assert sum(segment.samples for segment in scan.segments) == samples - lost


def record_lines(index: RecordIndex) -> list[tuple[object, ...]]:
    names = (index.channels[number] for number in index.channel)
    columns = (index.offset, index.length, index.start_ns, index.rate_hz, index.count)
    return sorted(zip(names, *(column.tolist() for column in columns), strict=True))


damaged_bytes = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 63), st.sampled_from([0, 1, 2, 20, 255]) | st.integers(0, 255)),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([50, 700, 3000]), min_size=1, max_size=3),
    rate_hz=st.sampled_from([100.0, 33.333, 0.5]),
    big_endian=st.booleans(),
    damage=damaged_bytes,
    everywhere=st.none() | st.tuples(st.integers(6, 63), st.integers(0, 255)),
    order=st.none() | st.randoms(use_true_random=False),
    cut=st.sampled_from([0, 0, 0, 1, 100, 500]),
)
def test_damaged_headers_are_told_alike_by_all_ways(
    lengths: list[int],
    rate_hz: float,
    big_endian: bool,
    damage: list[tuple[int, int, int]],
    everywhere: tuple[int, int] | None,
    order: random.Random | None,
    cut: int,
) -> None:
    """The quick scan, the index of array operations and pymseed record by record, wherever the first two answer."""
    buffer = io.BytesIO()
    for number, samples in enumerate(lengths):
        header = {"network": "XX", "station": "A", "channel": "HH" + "ZNE"[number], "sampling_rate": rate_hz}
        values = np.random.default_rng(number).integers(-500, 500, samples).astype(np.int32)
        trace = obspy.Trace(values, {**header, "starttime": obspy.UTCDateTime(ns=T0_NS + number * 7_123_000)})
        trace.write(buffer, format="MSEED", reclen=512, encoding="STEIM2", byteorder=">" if big_endian else "<")
    data = buffer.getvalue()
    records = [bytearray(data[first : first + 512]) for first in range(0, len(data), 512)]
    for record, place, value in damage:
        records[record % len(records)][place] = value
    if everywhere is not None:
        for content in records:
            content[everywhere[0]] = everywhere[1]
    if order is not None:
        order.shuffle(records)
    data = b"".join(records)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(data[: len(data) - cut])
        singly = index_any(str(path))
        descriptor = os.open(path, os.O_RDONLY)
        try:
            uniform = index_uniform(descriptor)
        finally:
            os.close(descriptor)
        if uniform is not None:
            assert record_lines(uniform) == record_lines(singly)
            assert uniform.unreadable == singly.unreadable
            assert sorted(uniform.logs) == sorted(singly.logs)
        quick = scan_quickly(str(path))
        if quick is not None:
            slow = scan_records(str(path), "x")
            assert in_one_order(quick.segments) == in_one_order(slow.segments)
            assert (slow.unreadable, slow.metadata_bytes) == ((), 0)
