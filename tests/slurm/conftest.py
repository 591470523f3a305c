"""A job of sixteen rows, and clusters for tests on a real Slurm: each module that asks for one has it for itself.

A test with a cluster takes its time: mark its module `slow`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.debian import CannotRun, give_up
from tests.slurm.cluster import Cluster


def _started(*, accounting: bool) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="s1slurm-", dir="/tmp"))
    try:
        with Cluster(folder, accounting=accounting) as cluster:
            yield cluster
    except CannotRun as reason:
        give_up(reason)
    finally:
        if "S1BATCH_KEEP_CLUSTER" not in os.environ:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def bare() -> Iterator[Cluster]:
    """A cluster without accounting: sacct answers nothing."""
    yield from _started(accounting=False)


@pytest.fixture(scope="module")
def accounted() -> Iterator[Cluster]:
    """A cluster with accounting."""
    yield from _started(accounting=True)


@pytest.fixture(params=["bare", "accounted"])
def cluster(request) -> Cluster:
    """Each of them."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Cluster)
    return found


@pytest.fixture
def job(tmp_path):
    (tmp_path / "names.csv").write_text("name\n" + "".join(f"m{number}\n" for number in range(16)))
    schema = {"type": "object", "properties": {"length": {"type": "integer"}}, "required": ["length"]}
    path = tmp_path / "job.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "two words",
                "source": {"kind": "table", "path": "names.csv"},
                "job": {"kind": "ask", "prompt": "Is {{ name }} a mineral?", "schema": schema},
                "engine": {"kind": "replay", "function": "tests.answers:echo"},
                "run": {"part_chunks": 2},
                "output": "out",
            }
        )
    )
    return path
