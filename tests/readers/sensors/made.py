"""Small archives of sensor arrays, written by the libraries that people write them with."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from s1batch.readers.sensors.reader import SensorsReader
from s1batch.readers.sensors.spec import SensorsSource
from s1batch.records import InventoryItem, PlanEntry, Record, Series
from s1batch.windows import WindowSpec

START_S = 1_700_000_000


def zarr_array(
    path: Path,
    values: np.ndarray,
    *,
    name: str = "v",
    version: int = 3,
    times: np.ndarray | None = None,
    time_attrs: dict[str, Any] | None = None,
    attrs: dict[str, Any] | None = None,
    dims: tuple[str, ...] | None = None,
    **about: Any,
) -> Path:
    """Add an array, and a coordinate `time`, to a Zarr store."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # text has no type in the standard of version 3
        _add(path, values, name, version, times, time_attrs, attrs, dims, about)
    return path


def _add(
    path: Path,
    values: np.ndarray,
    name: str,
    version: int,
    times: np.ndarray | None,
    time_attrs: dict[str, Any] | None,
    attrs: dict[str, Any] | None,
    dims: tuple[str, ...] | None,
    about: dict[str, Any],
) -> None:
    group = zarr.open_group(path, mode="a", zarr_format=version)  # type: ignore[arg-type]
    dims = dims or ("time", "channel")[: values.ndim]

    def add(name: str, values: np.ndarray, dims: tuple[str, ...], attrs: dict[str, Any], **about: Any) -> None:
        if version == 2:
            attrs = {**attrs, "_ARRAY_DIMENSIONS": list(dims)}
            about.setdefault("fill_value", 0)
        else:
            about["dimension_names"] = dims
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, attributes=attrs, **about)
        array[...] = values

    add(name, values, dims, attrs or {}, **about)
    if times is not None and "time" not in group:
        add("time", times, ("time",), {"units": "seconds since 1970-01-01"} if time_attrs is None else time_attrs)


def seconds(count: int, rate_hz: float = 10.0) -> np.ndarray:
    """Return times as float seconds since 1970."""
    return START_S + np.arange(count) / rate_hz


def reader(folder: Path, *, window: dict[str, Any] | None = None, **source: Any) -> SensorsReader:
    """Return a reader of everything in a folder."""
    block = {"kind": "sensors", "paths": ["**/*"], **source}
    return SensorsReader(
        SensorsSource.model_validate(block),
        WindowSpec.model_validate(window or {"length": 100}),
        folder,
        first_delay_s=0.01,
    )


def plan(sensors: SensorsReader) -> tuple[list[InventoryItem], list[PlanEntry]]:
    """Return inventory and entries."""
    lines = list(sensors.plan())
    items = [line for line in lines if isinstance(line, InventoryItem)]
    return items, [line for line in lines if isinstance(line, PlanEntry)]


def read(sensors: SensorsReader) -> list[Record]:
    """Plan, and read what is not refused."""
    _, entries = plan(sensors)
    return list(sensors.read([entry.chunk for entry in entries if entry.refusal is None]))


def series_of(record: Record) -> Series:
    """Return the series of a record that has one."""
    assert record.refusal is None, record.refusal
    assert isinstance(record.payload, Series)
    return record.payload
