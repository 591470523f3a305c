"""`ds.s1.infer`: one row for each window of an xarray object."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import s1batch  # noqa: F401  (registers the namespace)

ROOT = Path(__file__).resolve().parent.parent
ECHO = {"kind": "replay", "function": "tests.answers:echo"}
SCHEMA = {"type": "object", "properties": {"length": {"type": "integer"}, "first": {"type": "string"}}}


@pytest.fixture
def dataset() -> Any:
    times = np.datetime64("2024-01-01", "ns") + np.arange(300) * np.timedelta64(1, "s")
    noise = np.random.default_rng(0).normal(size=(300, 2))
    return xr.Dataset(
        {"heat": (("time", "rig"), noise, {"units": "K"}), "load": (("time",), noise[:, 0])},
        coords={"time": times, "rig": ["A", "B"]},
    )


def test_every_window_is_a_row_with_its_times(dataset):
    rows = dataset.s1.infer("{{ variable }} of {{ channels }}", window="100s", schema=SCHEMA, engine=ECHO)
    assert rows["outcome"].to_list() == ["ok"] * 6
    heat = rows.filter(rows["variable"] == "heat")
    assert heat["channels"].to_list() == [["A", "B"]] * 3
    assert [start.isoformat() for start in heat["start"]][1] == "2024-01-01T00:01:40+00:00"
    assert heat["span_end"].to_list() == [100, 200, 300]
    assert heat["first"].to_list() == ["A"] * 3  # of the schema, which goes first


def test_one_array_is_enough_and_fields_of_the_source_may_be_given(dataset):
    rows = dataset["heat"].s1.infer("x", window={"length": 300}, source={"group": "each"}, engine=ECHO)
    assert rows["channels"].to_list() == [["A"], ["B"]]


def test_a_second_call_asks_nothing_twice(dataset, tmp_path):
    first = dataset.s1.infer("x", window="100s", engine=ECHO, output=tmp_path)
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "results" / "rows").iterdir()}
    again = dataset.s1.infer("x", window="100s", engine=ECHO, output=tmp_path)
    assert again.equals(first)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results" / "rows").iterdir()} == parts


@pytest.mark.parametrize("order", ["s1batch, xarray", "xarray, s1batch"])
def test_the_namespace_is_there_in_any_order_of_imports(order):
    code = f"import {order}; print(hasattr(xarray.Dataset, 's1') and hasattr(xarray.DataArray, 's1'))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "True", done.stderr
