"""Whatever lies beside a good file costs its own rows and nothing of the good one."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from s1batch.paths import encode_path
from s1batch.readers.seismic.reader import SeismicReader
from s1batch.readers.seismic.spec import SeismicSource
from s1batch.records import InventoryItem, PlanEntry, Record, Series
from s1batch.windows import WindowSpec
from tests.readers.seismic.waves import T0, counts, mseed, records

GOOD, BAD = "XX.GOOD..HHZ", "XX.BAD..HHZ"
VALUES = counts(3000)


def reader_of(folder: Path) -> SeismicReader:
    source = SeismicSource.model_validate({"kind": "seismic", "paths": ["**/*"], "components": "Z"})
    return SeismicReader(source, WindowSpec.model_validate({"length": "10s"}), folder)


def plan_of(reader: SeismicReader) -> tuple[list[InventoryItem], list[PlanEntry]]:
    found = list(reader.plan())
    items = [item for item in found if isinstance(item, InventoryItem)]
    return items, [entry for entry in found if isinstance(entry, PlanEntry)]


def verdicts(folder: Path, between: Callable[[], None] = lambda: None) -> dict[str, list[str]]:
    """Plan and read a folder with a good file added; return outcome and reason of every other file's chunks."""
    (folder / "good").write_bytes(mseed(GOOD, T0, VALUES))
    reader = reader_of(folder)
    items, entries = plan_of(reader)
    between()
    asked = [entry for entry in entries if entry.refusal is None]
    read: dict[str, Record] = {}
    for entry, record in zip(asked, reader.read([entry.chunk for entry in asked]), strict=True):
        read[entry.chunk.key] = record
    good: list[NDArray[np.float32]] = []
    others: dict[str, list[str]] = {}
    for entry in entries:
        record_of = read.get(entry.chunk.key)
        refusal = entry.refusal or (record_of.refusal if record_of is not None else None)
        path = entry.chunk.inputs[0].path
        if path == "good":
            assert refusal is None
            assert record_of is not None
            assert isinstance(record_of.payload, Series)
            good.append(record_of.payload.values_TC[:, 0])
        else:
            others.setdefault(path, []).append("ok" if refusal is None else f"{refusal.outcome} {refusal.reason}")
    np.testing.assert_array_equal(np.concatenate(good), VALUES)
    assert sum(item.count for item in items if item.path == "good") == 3000
    assert len({entry.chunk.key for entry in entries}) == len(entries)
    return others


def test_bytes_that_are_no_waveforms_are_one_row_each(tmp_path: Path) -> None:
    (tmp_path / "text.mseed").write_text("dear diary")
    (tmp_path / "pickle.mseed").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "empty.mseed").touch()
    (tmp_path / "cut.mseed.gz").write_bytes(b"\x1f\x8b\x08\x00")
    os.symlink("nowhere", tmp_path / "broken-link")
    assert verdicts(tmp_path) == {
        "text.mseed": ["unreadable unknown_format"],
        "pickle.mseed": ["unreadable unknown_format"],
        "empty.mseed": ["unreadable empty_file"],
        "cut.mseed.gz": ["unreadable not_readable"],
        "broken-link": ["unreadable source_missing"],
    }


def test_stray_bytes_and_a_cut_tail_are_a_row_each_beside_what_can_be_read(tmp_path: Path) -> None:
    parts = records(mseed(BAD, T0, counts(3000, 1)))
    (tmp_path / "bad").write_bytes(b"".join([*parts[:2], b"\x55" * 100, *parts[2:-1], parts[-1][:300]]))
    found = verdicts(tmp_path)["bad"]
    assert found.count("unreadable not_readable") == 2
    assert found.count("ok") >= 2
    assert set(found) == {"ok", "unreadable not_readable"}


def test_a_wrong_steim_checksum_refuses_only_the_windows_of_its_record(tmp_path: Path) -> None:
    data = bytearray(mseed(BAD, T0, counts(3000, 1)))
    data[512 + 64 + 8 : 512 + 64 + 12] = b"\0\0\x12\x34"  # the last sample, as the record's first frame tells it
    (tmp_path / "bad").write_bytes(data)
    first = struct.unpack_from(">H", data, 30)[0]
    behind = first + struct.unpack_from(">H", data, 512 + 30)[0]
    expected = ["unreadable decode_error" if k < behind and k + 1000 > first else "ok" for k in (0, 1000, 2000)]
    assert verdicts(tmp_path)["bad"] == expected


def test_one_sample_and_a_constant_are_read(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(mseed(BAD, T0, np.array([7], np.int32)))
    (tmp_path / "constant").write_bytes(mseed("XX.FLAT..HHZ", T0, np.full(1000, 5, np.int32)))
    assert verdicts(tmp_path) == {"one": ["ok"], "constant": ["ok"]}


def test_mixed_rates_in_one_file_are_apart(tmp_path: Path) -> None:
    slow = mseed(BAD, T0, counts(500, 1), 50.0)
    fast = mseed(BAD, T0 + 10**10, counts(1000, 2), 100.0)
    (tmp_path / "bad").write_bytes(slow + fast)
    _, entries = plan_of(reader_of(tmp_path))
    rates = sorted(entry.series.rate_hz for entry in entries if entry.series is not None)
    assert rates == [50.0, 100.0]
    assert verdicts(tmp_path)["bad"] == ["ok", "ok"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_refuse_their_own_window(tmp_path: Path, bad: float) -> None:
    values = np.linspace(0, 1, 3000).astype(np.float32)
    values[1500] = bad
    (tmp_path / "bad").write_bytes(mseed(BAD, T0, values))
    assert verdicts(tmp_path)["bad"] == ["ok", "refused not_finite", "ok"]


def test_folders_that_look_like_files_and_links_in_a_circle_cost_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.mseed").mkdir()
    (tmp_path / "x.mseed" / "inner").write_bytes(mseed(BAD, T0, counts(1000, 1)))
    os.symlink("..", tmp_path / "x.mseed" / "up")
    os.symlink("loop", tmp_path / "loop")
    found = verdicts(tmp_path)
    assert found.pop("x.mseed/inner") == ["ok"]
    assert set(found) <= {"loop"}
    assert all(value.startswith("unreadable") for values in found.values() for value in values)


def test_names_of_any_bytes_are_read(tmp_path: Path) -> None:
    names = [b"with space", b"new\nline", b"\xff\xfe", b"star*[1]?", b"back\\slash"]
    for number, raw in enumerate(names):
        with open(os.path.join(os.fsencode(tmp_path), raw), "wb") as file:
            file.write(mseed(f"XX.S{number}..HHZ", T0, counts(1000, number)))
    assert verdicts(tmp_path) == {encode_path(os.fsdecode(raw)): ["ok"] for raw in names}


def test_a_file_that_vanishes_or_shrinks_after_the_plan_costs_its_own_windows(tmp_path: Path) -> None:
    data = mseed(BAD, T0, counts(3000, 1))
    for name in ("gone", "shrunk", "emptied", "text"):
        (tmp_path / name).write_bytes(data.replace(b"BAD  ", name[:3].upper().encode() + b"  "))

    def change() -> None:
        (tmp_path / "gone").unlink()
        (tmp_path / "shrunk").write_bytes((tmp_path / "shrunk").read_bytes()[:1024])
        (tmp_path / "emptied").write_bytes(b"")
        (tmp_path / "text").write_text("dear diary")

    found = verdicts(tmp_path, change)
    assert found["gone"] == ["unreadable source_missing"] * 3
    assert found["emptied"] == ["unreadable empty_file"] * 3
    assert found["text"] == ["unreadable unknown_format"] * 3
    # What is left of the first window is read; whoever knows the planned size says that the file changed.
    assert found["shrunk"] == ["ok", "unreadable decode_error", "unreadable decode_error"]


def test_samples_outside_of_the_selection_do_not_leak_into_padding_or_filters(tmp_path: Path) -> None:
    values = counts(3000) + 10_000
    (tmp_path / "a").write_bytes(mseed(GOOD, T0, values))
    for processing in ({}, {"filter": {"type": "lowpass", "freqmax_hz": 20.0}}):
        source = SeismicSource.model_validate(
            {"kind": "seismic", "paths": ["a"], "components": "Z", "endtime": "2024-01-01T00:00:13", **processing}
        )
        window = WindowSpec.model_validate({"length": "10s", "tail": "pad"})
        reader = SeismicReader(source, window, tmp_path)
        _, entries = plan_of(reader)
        first, last = (record.payload for record in reader.read([entry.chunk for entry in entries]))
        assert isinstance(first, Series)
        assert isinstance(last, Series)
        assert not last.values_TC[300:].any()
        if not processing:
            np.testing.assert_array_equal(last.values_TC[:300, 0], values[1000:1300])
            np.testing.assert_array_equal(first.values_TC[:, 0], values[:1000])


def test_the_size_of_a_file_that_cannot_be_opened_any_more_is_told(tmp_path: Path) -> None:
    """So that its row can say that it changed, rather than that it is empty."""
    (tmp_path / "bad").write_bytes(mseed(BAD, T0, counts(1000, 1)))
    reader = reader_of(tmp_path)
    _, (entry,) = plan_of(reader)
    (tmp_path / "bad").write_text("dear diary")
    (record,) = reader.read([entry.chunk])
    assert record.refusal is not None
    assert record.lineage["source_sizes"] == [10]
    (tmp_path / "bad").unlink()
    (record,) = reader.read([entry.chunk])
    assert record.lineage["source_sizes"] == [None]


def test_detrending_comes_before_the_cast_so_that_offsets_beyond_24_bits_lose_nothing(tmp_path: Path) -> None:
    values = counts(1000) + 1_000_000_000
    (tmp_path / "a").write_bytes(mseed(GOOD, T0, values, encoding="INT32"))
    source = SeismicSource.model_validate({"kind": "seismic", "paths": ["a"], "components": "Z", "detrend": "constant"})
    reader = SeismicReader(source, WindowSpec.model_validate({"length": "10s"}), tmp_path)
    (record,) = reader.read([plan_of(reader)[1][0].chunk])
    assert isinstance(record.payload, Series)
    np.testing.assert_allclose(record.payload.values_TC[:, 0], values - values.mean(), atol=1e-4 * counts(1000).std())
    assert record.lineage["removed_mean"] == [pytest.approx(values.mean())]
