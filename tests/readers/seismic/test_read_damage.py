"""Damaged, hostile and vanished files cost the windows that touch them, and no other."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from s1batch.records import Address, Chunk, Slice
from tests.readers.seismic.waves import (
    SECOND,
    T0,
    Z,
    chunk,
    counts,
    day,
    mseed,
    read_one,
    records,
    seismic_reader,
    wave,
)


def test_stray_bytes_and_a_cut_off_tail_cost_only_what_they_hit(tmp_path: Path) -> None:
    values = counts(6000)
    parts = records(mseed(Z, T0, values))
    (tmp_path / "a").write_bytes(b"".join([*parts[:2], b"garbage" * 11, *parts[2:-1], parts[-1][:200]]))
    record = read_one(seismic_reader(tmp_path), chunk(T0, T0 + 60 * SECOND, [(Z, "a")]))
    lost = struct.unpack_from(">H", parts[-1], 30)[0]
    np.testing.assert_array_equal(wave(record)[: 6000 - lost, 0], values[: 6000 - lost])
    assert record.lineage["gap_frac"] == pytest.approx(lost / 6000)
    assert "277 bytes" in record.lineage["remark"]


@pytest.mark.parametrize("damage", ["flipped", "zeroed", "ones", "checksum"])
def test_a_corrupt_record_refuses_the_windows_that_touch_it_and_no_other(tmp_path: Path, damage: str) -> None:
    values = counts(20_000)
    data = bytearray(mseed(Z, T0, values))
    count = struct.unpack_from(">H", data, 5 * 512 + 30)[0]
    before = sum(struct.unpack_from(">H", data, k * 512 + 30)[0] for k in range(5))
    body = slice(5 * 512 + 64 + 12, 6 * 512)
    if damage == "flipped":
        data[5 * 512 + 200] ^= 0x55
    elif damage == "checksum":
        data[5 * 512 + 64 + 8 : 5 * 512 + 64 + 12] = b"\0\0\x12\x34"
    else:
        data[body] = (b"\0" if damage == "zeroed" else b"\xff") * (body.stop - body.start)
    (tmp_path / "a").write_bytes(data)
    wanted = [chunk(T0 + k * SECOND, T0 + (k + 1) * SECOND, [(Z, "a")]) for k in range(200)]
    for number, record in enumerate(seismic_reader(tmp_path).read(wanted)):
        low, high = number * 100, number * 100 + 100
        if low < before + count and high > before:
            assert record.refusal is not None, number
            assert (record.refusal.outcome, record.refusal.reason) == ("unreadable", "decode_error")
            assert "byte 2560" in record.refusal.detail
        else:
            np.testing.assert_array_equal(wave(record)[:, 0], values[low:high])


@pytest.mark.parametrize("encoding", ["FLOAT32", "FLOAT64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_in_their_window_only(tmp_path: Path, encoding: str, bad: float) -> None:
    values = np.linspace(0, 1, 2000).astype(np.float64 if encoding == "FLOAT64" else np.float32)
    values[1500] = bad
    (tmp_path / "a").write_bytes(mseed(Z, T0, values))
    wanted = [chunk(T0 + k * 10 * SECOND, T0 + (k + 1) * 10 * SECOND, [(Z, "a")]) for k in range(2)]
    good, refused = seismic_reader(tmp_path).read(wanted)
    np.testing.assert_array_equal(wave(good)[:, 0], values[:1000].astype(np.float32))
    assert refused.refusal is not None
    assert (refused.refusal.outcome, refused.refusal.reason) == ("refused", "not_finite")


def test_a_value_beyond_float32_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(mseed(Z, T0, np.full(1000, 1e300)))
    refusal = read_one(seismic_reader(tmp_path), chunk(T0, T0 + SECOND, [(Z, "a")])).refusal
    assert refusal is not None
    assert refusal.reason == "not_finite"


def test_a_vanished_file_costs_its_own_windows(tmp_path: Path) -> None:
    values = day(tmp_path)
    wanted = [chunk(T0, T0 + SECOND, [(Z, "gone")]), chunk(T0, T0 + SECOND, [(Z, "day")])]
    gone, good = seismic_reader(tmp_path).read(wanted)
    assert gone.refusal is not None
    assert (gone.refusal.outcome, gone.refusal.reason) == ("unreadable", "source_missing")
    assert gone.lineage["source_files"] == ["gone"]
    np.testing.assert_array_equal(wave(good)[:, 0], values[0][:100])


def test_a_path_that_leads_out_of_the_root_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(mseed(Z, T0, counts(500)))
    inner = tmp_path / "inner"
    inner.mkdir()
    refusal = read_one(seismic_reader(inner), chunk(T0, T0 + SECOND, [(Z, "../secret")])).refusal
    assert refusal is not None
    assert refusal.reason == "source_missing"


def test_chunks_of_unreadable_files_are_unreadable_records(tmp_path: Path) -> None:
    wanted = Chunk(inputs=(Address(root="archive", path="x", slices=(Slice(dim="bytes", start=0, stop=3),)),))
    refusal = read_one(seismic_reader(tmp_path), wanted).refusal
    assert refusal is not None
    assert refusal.outcome == "unreadable"


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (os.environ["S1BATCH_TEST_TRAP"],))


def test_a_pickle_named_mseed_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = tmp_path / "trap"
    monkeypatch.setenv("S1BATCH_TEST_TRAP", str(trap))
    (tmp_path / "a.mseed").write_bytes(pickle.dumps(_Payload()))
    refusal = read_one(seismic_reader(tmp_path), chunk(T0, T0 + SECOND, [(Z, "a.mseed")])).refusal
    assert refusal is not None
    assert refusal.outcome == "unreadable"
    assert not trap.exists()


def test_names_that_look_like_patterns_mean_themselves(tmp_path: Path) -> None:
    from obspy import Trace, UTCDateTime

    values = counts(500).astype(np.float32)
    header = {"network": "XX", "station": "AAA", "channel": "HHZ", "sampling_rate": 100.0}
    Trace(values, {**header, "starttime": UTCDateTime(ns=T0)}).write(str(tmp_path / "s.sac"), format="SAC")
    (tmp_path / "s.sac").rename(tmp_path / "s[1]*.sac")
    record = read_one(seismic_reader(tmp_path), chunk(T0, T0 + SECOND, [(Z, "s[1]*.sac")]))
    np.testing.assert_array_equal(wave(record)[:, 0], values[:100])
