"""Stores at URLs: read as on disk, asked again while they do not answer, and then a row."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import fsspec
import h5py
import numpy as np
import pytest
import zarr
from moto.server import ThreadedMotoServer

from s1batch.errors import UsageError
from tests.readers.sensors.made import plan, read, reader, seconds, series_of

pytestmark = [
    pytest.mark.slow,  # the server and its client take seconds to import
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

VALUES = np.random.default_rng(0).normal(size=(1000, 2)).astype("f4")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    patch = pytest.MonkeyPatch()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN"):
        patch.setenv(name, "testing")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket="plant")
    options = {"endpoint_url": url}
    for number in range(2):
        group = zarr.open_group(f"s3://plant/rigs/{number}.zarr", mode="w", zarr_format=3, storage_options=options)
        array = group.create_array(
            "v", shape=(1000, 2), shards=(500, 2), chunks=(100, 2), dtype="f4", dimension_names=("time", "channel")
        )
        array[...] = VALUES + number
        times = group.create_array("time", shape=1000, dtype="f8", dimension_names=("time",))
        times[...] = seconds(1000)
        times.attrs["units"] = "seconds since 1970-01-01"
    content = BytesIO()
    with h5py.File(content, "w") as file:
        file["v"] = VALUES
    fsspec.filesystem("s3", **options).pipe("plant/rigs/a.h5", content.getvalue())
    yield url
    server.stop()
    patch.undo()


def remote(endpoint: str, *paths: str, **source: Any):
    block = {"paths": [f"s3://plant/{path}" for path in paths], "storage_options": {"endpoint_url": endpoint}}
    return reader(Path("/"), **{**block, **source})


def test_zarr_and_hdf5_are_read_as_on_disk(endpoint):
    sensors = remote(endpoint, "rigs/*", window={"length": 250}, rate_hz=10.0)
    assert list(sensors.files()) == ["0.zarr", "1.zarr", "a.h5"]
    records = read(sensors)
    assert len(records) == 12
    for record in records:
        address = record.chunk.inputs[0]
        index = address.slices[0]
        expected = VALUES[index.start : index.stop] + (address.path == "1.zarr")
        assert np.array_equal(series_of(record).values_TC, expected)
        assert record.lineage["source_sizes"][0] > 0
    assert records[0].chunk.times_ns is not None


def test_a_shard_that_went_is_told(endpoint):
    system = fsspec.filesystem("s3", endpoint_url=endpoint)
    system.copy("plant/rigs/0.zarr", "plant/other/c.zarr", recursive=True)
    sensors = remote(endpoint, "other/c.zarr", window={"length": 250})
    before = sensors.look_at("c.zarr")
    system.rm("plant/other/c.zarr/v/c/1/0")
    assert sensors.look_at("c.zarr") != before
    assert [record.lineage["absent_frac"] for record in read(sensors)] == [0.0, 0.0, 1.0, 1.0]


def test_what_is_not_there_is_a_row(endpoint):
    _, (entry,) = plan(remote(endpoint, "rigs/none.zarr"))
    assert entry.refusal is not None
    assert entry.refusal.reason == "source_missing"
    with pytest.raises(UsageError, match="matches nothing"):
        list(remote(endpoint, "nothing/*.zarr").files())


def test_a_server_that_does_not_answer_is_a_row_of_each_window(endpoint):
    sensors = remote(endpoint, "rigs/0.zarr", retries=1)
    chunks = [entry.chunk for entry in plan(sensors)[1]]
    dead = remote("http://127.0.0.1:9", "rigs/0.zarr", retries=1)
    _, (entry,) = plan(dead)
    assert entry.refusal is not None
    assert (entry.refusal.outcome, entry.refusal.reason) == ("unreadable", "source_unreachable")
    assert "no answer in 2 attempts" in entry.refusal.detail
    for record in dead.read(chunks[:2]):
        assert record.refusal is not None
        assert record.refusal.reason == "source_unreachable"
