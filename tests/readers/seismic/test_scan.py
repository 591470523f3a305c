"""Headers give every sample of a file, and the bytes that hold none."""

from __future__ import annotations

import glob
import gzip
import os
import warnings
from pathlib import Path

import numpy as np
import obspy
import pytest

from s1batch.errors import SourceError
from s1batch.readers.seismic.scan import HeaderSegment, scan_file
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


FORMATS = ["ah", "alsep", "cybershake", "dmx", "gcf", "gse2", "kinemetrics", "mseed", "nied", "pdas", "reftek", "rg16"]
FORMATS += ["sac", "segy", "seisan", "wav", "y"]


@pytest.mark.parametrize("folder", FORMATS)
def test_the_samples_are_those_that_obspy_sees(folder: str) -> None:
    compared = 0
    for path in sorted((OBSPY_IO / folder / "tests" / "data").iterdir()):
        # microsecond_wrap has a time that libmseed 3 refuses; infinite-loop is noise that ObsPy refuses.
        if path.is_dir() or path.name in ("microsecond_wrap.mseed", "infinite-loop.mseed"):
            continue
        try:
            scan = scan_file(str(path))
        except SourceError:
            continue
        assert sum(segment.samples for segment in scan.segments) == obspy_samples(path), path.name
        compared += 1
    assert compared
