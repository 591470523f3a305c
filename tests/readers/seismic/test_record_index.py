"""The record index finds what libmseed finds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from s1batch.readers.seismic.record_index import RecordIndex, index_any, index_uniform
from tests.readers.seismic.waves import T0, counts, mseed, obspy_file, records

SHIPPED = sorted(
    path
    for folder in ("io/mseed/tests/data", "signal/tests/data", "core/tests/data", "clients/filesystem/tests/data")
    for path in obspy_file(folder).rglob("*")
    if path.is_file()
)


def uniform(path: Path) -> RecordIndex | None:
    fd = os.open(path, os.O_RDONLY)
    try:
        return index_uniform(fd)
    finally:
        os.close(fd)


def same(first: RecordIndex, second: RecordIndex) -> None:
    assert [first.channels[number] for number in first.channel] == [second.channels[n] for n in second.channel]
    for name in ("offset", "length", "start_ns", "rate_hz", "count"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
    assert first.unreadable == second.unreadable
    assert sorted(first.logs) == sorted(second.logs)


def test_both_ways_agree_on_every_miniseed_file_that_obspy_ships() -> None:
    indexed = 0
    for path in SHIPPED:
        fast = uniform(path)
        if fast is not None:
            same(fast, index_any(str(path)))
            indexed += 1
    assert indexed > 40


@pytest.mark.parametrize("reclen", [256, 512, 4096])
def test_multiplexed_records_of_three_channels_are_told_apart(tmp_path: Path, reclen: int) -> None:
    pieces = [
        records(mseed(f"XX.AAA.00.HH{c}", T0, counts(9000, n), reclen=reclen), reclen) for n, c in enumerate("ZNE")
    ]
    path = tmp_path / "a"
    path.write_bytes(b"".join(record for group in zip(*pieces, strict=False) for record in group))
    fast = uniform(path)
    assert fast is not None
    assert set(fast.channels) == {"XX.AAA.00.HHZ", "XX.AAA.00.HHN", "XX.AAA.00.HHE"}
    same(fast, index_any(str(path)))


def test_stray_bytes_in_the_middle_lose_no_record(tmp_path: Path) -> None:
    parts = records(mseed("XX.AAA..HHZ", T0, counts(5000)))
    path = tmp_path / "a"
    path.write_bytes(b"".join([*parts[:3], b"stray" * 7, *parts[3:]]))
    assert uniform(path) is None
    found = index_any(str(path))
    assert int(found.count.sum()) == 5000
    ((start, stop),) = found.unreadable
    assert stop - start == 35


def test_a_cut_off_tail_is_counted_in_bytes(tmp_path: Path) -> None:
    data = mseed("XX.AAA..HHZ", T0, counts(5000))
    path = tmp_path / "a"
    path.write_bytes(data[:-112])
    fast = uniform(path)
    assert fast is not None
    assert fast.unreadable == ((len(data) - 512, len(data) - 112),)
    assert len(fast.offset) == len(data) // 512 - 1
    same(fast, index_any(str(path)))


def test_records_of_mixed_length_are_left_to_pymseed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(
        mseed("XX.AAA..HHZ", T0, counts(2000), reclen=512)
        + mseed("XX.AAA..HHZ", T0 + 20 * 10**9, counts(9000), reclen=4096)
    )
    assert uniform(path) is None
    assert int(index_any(str(path)).count.sum()) == 11000


def test_a_shorter_record_at_the_end_is_not_taken_for_a_cut_off_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    long, short = mseed("XX.AAA..HHZ", T0, counts(9000), reclen=4096), mseed("XX.AAA..HHN", T0, counts(50))
    path.write_bytes(long + short)
    assert uniform(path) is None
    assert int(index_any(str(path)).count.sum()) == 9050


@pytest.mark.parametrize("rates_hz", [(100.0, 100.0), (100.0, 50.0)])
def test_more_records_than_are_looked_at_together_and_a_change_of_rate_among_them(
    tmp_path: Path, rates_hz: tuple[float, float]
) -> None:
    first, second = rates_hz
    behind = T0 + 400_000 * 10_000_000
    path = tmp_path / "a"
    path.write_bytes(
        mseed("XX.AAA..HHZ", T0, counts(400_000), rate_hz=first, reclen=256, encoding="INT32")
        + mseed("XX.AAA..HHZ", behind, counts(9000), rate_hz=second, reclen=256, encoding="INT32")
        + mseed("XX.AAA..HHN", T0, counts(9000), rate_hz=first, reclen=256, encoding="INT32")
    )
    fast = uniform(path)
    assert fast is not None
    assert len(fast.offset) > 8192
    assert set(fast.rate_hz.tolist()) == set(rates_hz)
    same(fast, index_any(str(path)))
