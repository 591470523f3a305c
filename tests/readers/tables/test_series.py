"""Series that rows of a table hold or name, and what is no series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from s1batch.readers.tables.spec import TableSource
from s1batch.records import Fields, Record, SeriesShape
from tests.readers.tables.test_tables import make_reader, planned

WAVE_T = np.sin(np.arange(300) / 7).astype(np.float32)
WAVE_TC = np.stack([WAVE_T, -WAVE_T], axis=1)


def record_of(folder: Path, value: Any, **fields: Any) -> Record:
    frame = pl.DataFrame({"wave": [value], "rate": [fields.pop("rate", 50)]}, strict=False)
    frame.write_parquet(folder / "a.parquet")
    reader = make_reader(folder, "a.parquet", series="wave", **{"rate_hz": 100.0, **fields})
    [record] = reader.read([entry.chunk for entry in planned(reader)[1]])
    return record


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "waves").mkdir()
    np.save(tmp_path / "waves" / "a.npy", WAVE_TC)
    np.save(tmp_path / "waves" / "flat.npy", WAVE_T.astype(np.int16))
    pl.DataFrame({"Z": WAVE_T, "N": -WAVE_T}).write_csv(tmp_path / "waves" / "a.csv")
    np.savetxt(tmp_path / "waves" / "a.txt", WAVE_TC)
    pl.DataFrame({"Z": WAVE_T, "N": -WAVE_T}).write_parquet(tmp_path / "waves" / "a.parquet")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("a.npy", ("wave[0]", "wave[1]")),
        ("a.csv", ("Z", "N")),
        ("a.txt", ("wave[0]", "wave[1]")),
        ("a.parquet", ("Z", "N")),
    ],
)
def test_a_series_is_read_from_a_file_below_the_root(files: Path, name: str, channels: tuple[str, ...]) -> None:
    record = record_of(files, name, series_root="waves", units="m/s")
    assert record.refusal is None
    assert isinstance(record.payload, Fields)
    (series,) = record.payload.series
    assert np.allclose(series.values_TC, WAVE_TC, atol=1e-6)
    assert series.values_TC.dtype == np.float32
    assert (series.rate_hz, series.channels, series.units) == (
        100.0, channels, "m/s",
    )  # fmt: skip
    assert record.lineage["series_files"] == [name]
    assert (record.lineage["steps"], record.lineage["rate_sent_hz"]) == (300, 100.0)
    assert "wave" not in record.payload.values


def test_numbers_and_lists_of_numbers_are_series_and_a_column_may_tell_the_rate(tmp_path: Path) -> None:
    for value, expected_TC in ((WAVE_T.tolist(), WAVE_T[:, None]), (WAVE_TC.tolist(), WAVE_TC)):
        record = record_of(tmp_path, value, rate_hz="rate", rate=40)
        assert isinstance(record.payload, Fields)
        assert np.array_equal(record.payload.series[0].values_TC, expected_TC)
        assert record.payload.series[0].rate_hz == 40.0


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "source_missing"),
        ([], "series_too_short"),
        ([1.0, None, 2.0], "not_finite"),
        ([1.0, float("nan"), 2.0], "not_finite"),
        ([1.0, 1e300], "not_finite"),
        ([[1.0, 2.0], [3.0]], "wrong_shape"),
        ([[1.0, 2.0, 3.0]], "wrong_shape"),
        (["a", "b"], "wrong_shape"),
        (7.5, "source_missing"),
        (b"\x00\x01", "source_missing"),
        ("none.npy", "source_missing"),
        ("../outside.npy", "not_readable"),
        ("/etc/passwd", "not_readable"),
        ("a.wav", "unknown_format"),
        ("torn.npy", "decode_error"),
        ("longer.npy", "decode_error"),
        ("objects.npy", "decode_error"),
        ("complex.npy", "wrong_shape"),
        ("cube.npy", "wrong_shape"),
        ("empty.npy", "series_too_short"),
        ("ragged.csv", "wrong_shape"),
        ("hole.csv", "decode_error"),
        ("words.txt", "decode_error"),
        ("latin.txt", "decode_error"),
        ("text.parquet", "wrong_shape"),
        ("nulls.parquet", "not_finite"),
        ("no.parquet", "decode_error"),
    ],
)
def test_what_is_no_series_is_a_row_with_its_reason(files: Path, value: Any, reason: str) -> None:
    waves = files / "waves"
    np.save(files / "outside.npy", WAVE_T)
    (waves / "a.wav").write_bytes(b"RIFF")
    content = (waves / "a.npy").read_bytes()
    (waves / "torn.npy").write_bytes(content[:-100])
    (waves / "longer.npy").write_bytes(content + b"\0" * 8)
    np.save(waves / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(waves / "complex.npy", WAVE_T + 1j)
    np.save(waves / "cube.npy", np.zeros((4, 2, 2)))
    np.save(waves / "empty.npy", np.zeros((0, 3)))
    (waves / "ragged.csv").write_text("1,2\n3\n")
    (waves / "hole.csv").write_text("1,2\n3,\n")
    (waves / "words.txt").write_text("1\ntwo\n")
    (waves / "latin.txt").write_bytes(b"gr\xf6\xdfe\n1\n")
    pl.DataFrame({"a": ["x"]}).write_parquet(waves / "text.parquet")
    pl.DataFrame({"a": [1.0, None]}).write_parquet(waves / "nulls.parquet")
    (waves / "no.parquet").write_bytes(b"PAR1")
    record = record_of(files, value, series_root="waves")
    assert record.refusal is not None, value
    assert record.refusal.reason == reason
    assert len(record.refusal.detail) < 500


@pytest.mark.parametrize("rate", [0, -5, None, float("nan"), "fast"])
def test_a_rate_that_is_none_is_said(tmp_path: Path, rate: Any) -> None:
    record = record_of(tmp_path, WAVE_T.tolist(), rate_hz="rate", rate=rate)
    assert record.refusal is not None
    assert (record.refusal.outcome, record.refusal.reason) == ("refused", "rate_missing")


def test_objects_in_a_numpy_file_are_not_loaded(files: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (files / "sprung",))

    np.save(files / "waves" / "trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    record = record_of(files, "trap.npy", series_root="waves")
    assert record.refusal is not None
    assert not (files / "sprung").exists()


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_the_plan_knows_the_shapes_that_the_types_fix(tmp_path: Path, ending: str) -> None:
    flat = pa.array([WAVE_T.tolist()] * 2, pa.list_(pa.float32(), 300))
    deep = pa.array([WAVE_TC.tolist()] * 2, pa.list_(pa.list_(pa.float32(), 2), 300))
    table = pa.table({"a": flat, "b": deep, "c": [WAVE_T.tolist()] * 2})
    if ending == "parquet":
        pq.write_table(table, tmp_path / "x.parquet")
    else:
        with pa.ipc.new_file(tmp_path / "x.arrow", table.schema) as writer:
            writer.write_table(table)
    _, entries = planned(make_reader(tmp_path, f"x.{ending}", series=["a", "b", "c"], rate_hz=100.0))
    assert entries[0].series == SeriesShape(steps=300, channels=1, rate_hz=100.0)
    assert entries[0].further_series == (SeriesShape(steps=300, channels=2, rate_hz=100.0), None)
    _, entries = planned(make_reader(tmp_path, f"x.{ending}", series=["c", "a"], rate_hz=100.0))
    assert entries[0].series is None
    assert entries[0].n_series == 2


def test_a_block_with_series_needs_a_rate_and_reads_its_columns() -> None:
    with pytest.raises(ValidationError, match="series needs rate_hz"):
        TableSource(kind="table", path=("a.csv",), series=("wave",))
    with pytest.raises(ValidationError, match="rate_hz names rate, which columns leaves out"):
        TableSource(kind="table", path=("a.csv",), series=("wave",), rate_hz="rate", columns=("wave",))
    with pytest.raises(ValidationError, match="must be a positive number"):
        TableSource(kind="table", path=("a.csv",), series=("wave",), rate_hz=-1.0)
