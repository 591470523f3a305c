"""Formats and damage: true zeros stay, what is broken costs its own rows only, nothing is left out of the account."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

from s1batch.errors import JobFileError, MissingExtra, UsageError
from s1batch.long_series import LongSeries
from s1batch.readers.sensors.spec import SensorsSource
from s1batch.readers.spec import ReaderSetting
from s1batch.records import Address, Chunk
from s1batch.windows import WindowSpec
from tests.readers.sensors.made import plan, read, reader, seconds, series_of, zarr_array


def values(steps: int = 200, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(steps, channels)).astype("f4")


def dataset() -> xr.Dataset:
    times = np.datetime64("2020-01-01", "ns") + np.arange(200) * np.timedelta64(100, "ms")
    return xr.Dataset(
        {
            "temperature": (
                ("time", "station"),
                values().astype("f8"),
                {"units": "degC", "long_name": "Air temperature", "coordinates": "height"},
            ),
            "packed": (("time",), np.arange(200, dtype="f4") / 2),
        },
        coords={"time": times, "station": ["north", "south"], "height": ("station", [2.0, 10.0])},
    )


ENCODING = {"packed": {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -999}}


class TestFormats:
    @pytest.mark.parametrize("kind", ["zarr2", "zarr3", "netcdf4", "netcdf3"])
    def test_what_xarray_writes_is_read_as_it_was(self, tmp_path, kind):
        made = dataset()
        made["packed"][7] = np.nan
        with pytest.warns() if kind == "zarr3" else nothing():
            match kind:
                case "zarr2" | "zarr3":
                    made.to_zarr(tmp_path / "a.zarr", zarr_format=int(kind[-1]), encoding=ENCODING)
                case "netcdf4":
                    made.to_netcdf(tmp_path / "a.nc", engine="h5netcdf", encoding=ENCODING)
                case "netcdf3":
                    made.to_netcdf(tmp_path / "a.nc", engine="scipy", encoding=ENCODING)
        first, _, third, _ = sorted(read(reader(tmp_path, nan="interpolate")), key=lambda r: r.lineage["variable"])
        packed, temperature = series_of(first), series_of(third)
        assert packed.values_TC[:, 0].tolist() == (np.arange(100) / 2).tolist()
        assert first.lineage["nan_frac"] == 0.01
        assert np.array_equal(temperature.values_TC, values()[:100])
        assert temperature.channels == ("north", "south")
        assert temperature.start_ns == 1_577_836_800 * 10**9
        assert (third.lineage["units"], third.lineage["long_name"]) == ("degC", "Air temperature")
        assert third.lineage["coordinates"] == '{"station": ["north", "south"], "height": [2.0, 10.0]}'

    @pytest.mark.parametrize("version", [2, 3])
    @pytest.mark.parametrize("dtype", ["i2", "f4", "u1"])
    def test_true_zeros_stay_zeros(self, tmp_path, version, dtype):
        made = (np.arange(100) % 3).astype(dtype)[:, None]
        zarr_array(tmp_path / "a.zarr", made, version=version, times=seconds(100), chunks=(10, 1))
        (record,) = read(reader(tmp_path))
        assert np.array_equal(series_of(record).values_TC, made)
        assert record.lineage["nan_frac"] == 0.0

    def test_a_fill_value_of_version_2_that_somebody_chose_stands_for_nothing(self, tmp_path):
        made = np.array([[1.0], [-999.0], [3.0]], "f4")
        zarr_array(tmp_path / "a.zarr", made, version=2, times=seconds(3), fill_value=-999.0)
        (record,) = read(reader(tmp_path, nan="interpolate"))
        assert series_of(record).values_TC[:, 0].tolist() == [1, 2, 3]

    def test_values_that_netcdf_never_wrote_are_missing(self, tmp_path):
        made = np.arange(10, dtype="f4")
        made[4] = np.float32(9.969209968386869e36)
        data = xr.Dataset({"v": (("time",), made)}, coords={"time": np.arange(10.0)})
        data["time"].attrs["units"] = "s"
        data["v"].encoding["_FillValue"] = None
        data.to_netcdf(tmp_path / "a.nc", engine="scipy")
        (record,) = read(reader(tmp_path, nan="interpolate"))
        assert series_of(record).values_TC[:, 0].tolist() == list(range(10))

    def test_sharded_arrays_are_read_across_shards(self, tmp_path):
        made = values(1000, 3)
        zarr_array(tmp_path / "a.zarr", made, times=seconds(1000), shards=(300, 3), chunks=(50, 3))
        records = read(reader(tmp_path, window={"length": 170, "overlap": 20}))
        for record in records:
            index = record.chunk.inputs[0].slices[0]
            assert np.array_equal(series_of(record).values_TC, made[index.start : index.stop])

    def test_plain_hdf5_without_names_of_dimensions(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["rig/accelerometer"] = values()
            file["rig/accelerometer"].attrs["units"] = "g"
            file["rig/serial"] = "X17"
        items, _ = plan(reader(tmp_path, rate_hz=10.0))
        assert {item.source: item.status for item in items} == {
            "rig/accelerometer": "selected",
            "rig/serial": "not_selected",
        }
        (first, _) = read(reader(tmp_path, rate_hz=10.0, variables="rig/*lero*"))
        assert np.array_equal(series_of(first).values_TC, values()[:100])
        assert first.lineage["units"] == "g"

    def test_arrays_in_groups_are_found_and_chosen_by_pattern(self, tmp_path):
        for name in ("pump1/vibration", "pump1/heat", "pump2/vibration"):
            group, short = name.split("/")
            zarr_array(tmp_path / "a.zarr" / group, values(), name=short, times=seconds(200))
        zarr.open_group(tmp_path / "a.zarr", mode="a", zarr_format=3)
        for patterns, chosen in (("vibration", 2), ("pump1/*", 2), (["pump2/heat", "pump1/heat"], 1)):
            items, _ = plan(reader(tmp_path, variables=patterns))
            assert sum(item.status == "selected" for item in items) == chosen
            assert sum(item.count for item in items) == 3 * 400 + 2 * 200

    def test_an_array_that_is_a_store_by_itself(self, tmp_path):
        array = zarr.create_array(tmp_path / "a.zarr", shape=(200, 2), dtype="f4", chunks=(64, 2))
        array[...] = values()
        (first, _) = read(reader(tmp_path, rate_hz=10.0, time="dim_0"))
        assert np.array_equal(series_of(first).values_TC, values()[:100])


class nothing:  # noqa: N801
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


class TestDamage:
    @pytest.mark.parametrize("version", [2, 3])
    def test_a_corrupt_chunk_is_one_row_for_each_window_that_touches_it(self, tmp_path, version):
        made = values(1000, 2)
        store = zarr_array(tmp_path / "a.zarr", made, version=version, times=seconds(1000), chunks=(70, 2))
        damaged = store / "v" / ("5.0" if version == 2 else "c/5/0")
        damaged.write_bytes(damaged.read_bytes()[:40])
        sensors = reader(tmp_path, window={"length": 50, "overlap": 10})
        for record in sensors.read([entry.chunk for entry in plan(sensors)[1]]):
            index = record.chunk.inputs[0].slices[0]
            if index.start < 420 and index.stop > 350:
                assert record.refusal is not None
                assert (record.refusal.outcome, record.refusal.reason) == ("unreadable", "decode_error")
            else:
                assert np.array_equal(series_of(record).values_TC, made[index.start : index.stop])

    def test_a_shard_without_its_end_costs_its_windows(self, tmp_path):
        made = values(900, 2)
        store = zarr_array(tmp_path / "a.zarr", made, times=seconds(900), shards=(300, 2), chunks=(50, 2))
        shard = store / "v" / "c" / "1" / "0"
        shard.write_bytes(shard.read_bytes()[:-30])
        states = [record.refusal and record.refusal.reason for record in read(reader(tmp_path))]
        assert states == [None] * 3 + ["decode_error"] * 3 + [None] * 3

    def test_a_missing_chunk_is_fill_and_told_or_refused(self, tmp_path):
        made = values(300, 2)
        store = zarr_array(tmp_path / "a.zarr", made, times=seconds(300), chunks=(50, 2))
        (store / "v" / "c" / "2" / "0").unlink()
        first, second, third = read(reader(tmp_path))
        assert [record.lineage["absent_frac"] for record in (first, second, third)] == [0.0, 0.5, 0.0]
        assert not series_of(second).values_TC[:50].any()
        assert np.array_equal(series_of(second).values_TC[50:], made[150:200])
        states = [record.refusal and record.refusal.reason for record in read(reader(tmp_path, missing="refuse"))]
        assert states == [None, "missing_chunk", None]

    def test_inner_chunks_that_a_shard_does_not_hold_are_told(self, tmp_path):
        made = values(600, 2)
        made[100:150] = 0  # Zarr writes no chunk that is all fill
        zarr_array(tmp_path / "a.zarr", made, times=seconds(600), shards=(300, 2), chunks=(50, 1))
        records = read(reader(tmp_path, window={"length": 100, "overlap": 25}))
        for record in records:
            index = record.chunk.inputs[0].slices[0]
            inside = max(0, min(index.stop, 150) - max(index.start, 100))
            assert record.lineage["absent_frac"] == inside / 100
            assert np.array_equal(series_of(record).values_TC, made[index.start : index.stop])

    def test_broken_metadata_costs_its_array_alone(self, tmp_path):
        store = zarr_array(tmp_path / "a.zarr", values(), times=seconds(200))
        zarr_array(store, values(), name="w")
        (store / "w" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "arr')
        items, entries = plan(reader(tmp_path))
        assert [(entry.label, entry.refusal and entry.refusal.reason) for entry in entries] == [
            ("a.zarr/w", "not_readable"),
            ("a.zarr/v", None),
            ("a.zarr/v", None),
        ]
        (broken,) = [item for item in items if item.source == "w"]
        assert (broken.unit, broken.status) == ("bytes", "unreadable")
        assert broken.count > 40

    def test_stores_that_cannot_be_opened_are_counted_in_bytes(self, tmp_path):
        (tmp_path / "folder.zarr").mkdir()
        (tmp_path / "folder.zarr" / "x").write_bytes(b"12345")
        (tmp_path / "text.nc").write_text("no array at all")
        (tmp_path / "empty.h5").write_bytes(b"")
        with h5py.File(tmp_path / "cut.h5", "w") as file:
            file["v"] = values(10_000)
        os.truncate(tmp_path / "cut.h5", 3000)
        os.symlink("nowhere", tmp_path / "gone.nc")
        items, entries = plan(reader(tmp_path))
        states = {entry.label: entry.refusal and entry.refusal.reason for entry in entries}
        assert states == {
            "cut.h5": "not_readable",
            "empty.h5": "empty_file",
            "folder.zarr": "not_readable",
            "gone.nc": "source_missing",
            "text.nc": "unknown_format",
        }
        assert {item.path: item.count for item in items} == {
            "cut.h5": 3000,
            "empty.h5": 0,
            "folder.zarr": 5,
            "gone.nc": 0,
            "text.nc": 15,
        }

    @pytest.mark.parametrize(
        "made", [np.array(["a", "b"] * 50), np.zeros(100, "c8"), np.arange(100).astype("M8[s]")], ids=str
    )
    def test_arrays_of_no_real_numbers_are_a_row(self, tmp_path, made):
        zarr_array(tmp_path / "a.zarr", values(100), times=seconds(100))
        zarr_array(tmp_path / "a.zarr", made, name="odd", dims=("time",))
        items, entries = plan(reader(tmp_path))
        (odd,) = [entry for entry in entries if entry.refusal is not None]
        assert odd.refusal is not None
        assert odd.refusal.reason == "unknown_format"
        assert sum(item.count for item in items) == 200 + 100 + 100

    def test_an_array_that_shrank_or_went_is_told(self, tmp_path):
        store = zarr_array(tmp_path / "a.zarr", values(300), times=seconds(300))
        chunks = [entry.chunk for entry in plan(reader(tmp_path))[1]]

        def states():
            return [record.refusal and record.refusal.reason for record in reader(tmp_path).read(chunks)]

        shutil.rmtree(store)
        zarr_array(store, values(150), times=seconds(150))
        assert states() == [None, "source_changed", "source_changed"]
        shutil.rmtree(store / "v")
        assert states() == ["source_changed"] * 3
        shutil.rmtree(store)
        assert states() == ["source_missing"] * 3

    def test_a_store_that_is_written_while_it_is_read_is_told(self, tmp_path):
        store = zarr_array(tmp_path / "a.zarr", values(200), times=seconds(200), chunks=(100, 2))
        sensors = reader(tmp_path)
        chunks = [entry.chunk for entry in plan(sensors)[1]]
        (store / "v" / "c" / "1" / "0").write_bytes(b"half of it")
        states = [record.refusal and record.refusal.reason for record in sensors.read(chunks)]
        assert states == [None, "source_changed"]


class TestNames:
    def test_odd_names_of_files_and_loops_of_links(self, tmp_path):
        odd = os.fsdecode(b"a b\n\xff[1].zarr")
        zarr_array(tmp_path / "in side" / odd, values(100), times=seconds(100))
        os.symlink(tmp_path, tmp_path / "in side" / "loop")
        os.symlink("self.zarr", tmp_path / "self.zarr")
        _, entries = plan(reader(tmp_path))
        assert [(entry.label, entry.refusal and entry.refusal.reason) for entry in entries] == [
            ("in side/a b\n\\xff[1].zarr/v", None),
            ("self.zarr", "not_readable"),
        ]
        (record,) = read(reader(tmp_path, paths=["in side/*.zarr"]))
        assert np.array_equal(series_of(record).values_TC, values(100))

    def test_a_store_is_one_thing_for_every_glob(self, tmp_path):
        zarr_array(tmp_path / "x" / "a.zarr", values(100), times=seconds(100))
        for pattern in ("**/*", "**/*.zarr", "x/*", "*/a.zarr", "x/a.zarr", "**/[a]*"):
            assert list(reader(tmp_path, paths=pattern, root=".").files()) == ["x/a.zarr"]

    def test_no_address_leads_out_of_the_root(self, tmp_path):
        zarr_array(tmp_path / "a.zarr", values(100), times=seconds(100))
        sensors = reader(tmp_path / "b", paths=[str(tmp_path / "b" / "*.zarr")])
        (tmp_path / "b").mkdir()
        for path in ("../a.zarr", str(tmp_path / "a.zarr"), "x/../../a.zarr"):
            address = Address(source="v", root="archive", path=path, slices=plan_slice(tmp_path), rate_hz=10.0)
            (record,) = sensors.read([Chunk((address,))])
            assert record.refusal is not None
            assert record.refusal.reason == "source_missing"
        with pytest.raises(UsageError, match="outside of the root"):
            list(reader(tmp_path, paths=["a.zarr"], root="b").plan())

    def test_what_matches_nothing_and_plain_folders_are_errors_of_the_job(self, tmp_path):
        (tmp_path / "folder").mkdir()
        with pytest.raises(UsageError, match="matches nothing"):
            list(reader(tmp_path, paths=["*.zarr"]).files())
        with pytest.raises(UsageError, match=r"write folder/\*\*/\*"):
            list(reader(tmp_path, paths=["folder"]).files())


def plan_slice(folder: Path):
    (entry,) = plan(reader(folder, paths=["a.zarr"]))[1]
    return entry.chunk.inputs[0].slices


class TestJobFile:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"storage_options": {"secret": "x"}}, "secrets do not belong into a job file"),
            ({"paths": ["s3://a/b.zarr", "c.zarr"]}, "all local or all URLs"),
            ({"time": "t", "select": {"t": 3}}, "use starttime and endtime"),
            ({"starttime": "2020-01-02", "endtime": "2020-01-01"}, "endtime must be later"),
            ({"select": {"x": {"start": 3, "stop": 3}}}, "stop must be larger"),
        ],
    )
    def test_what_cannot_work_is_said_at_once(self, changes, words):
        with pytest.raises(ValueError, match=words):
            SensorsSource.model_validate({"kind": "sensors", "paths": ["a"], **changes})

    def test_scans_are_for_waveforms(self, tmp_path):
        spec = SensorsSource.model_validate({"kind": "sensors", "paths": ["a"]})
        setting = ReaderSetting(
            base_dir=tmp_path,
            window=WindowSpec.model_validate({}),
            long_series=LongSeries(policy="coarse_to_fine"),
        )
        with pytest.raises(JobFileError, match="use split, decimate or refuse"):
            spec.build(setting)

    def test_a_missing_library_is_named_with_its_command(self, tmp_path, monkeypatch):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["v"] = values()
        monkeypatch.setitem(sys.modules, "h5netcdf", None)
        with pytest.raises(MissingExtra, match=r"pip install 's1batch\[sensors\]'"):
            list(reader(tmp_path).plan())
