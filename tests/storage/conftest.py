"""Mounts that misbehave, and the archive and job of the tests of faults on them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.debian import CannotRun, give_up
from tests.faults.conftest import archive, job, undisturbed  # noqa: F401
from tests.storage.mounts import FaultyMount, install


@pytest.fixture(scope="session")
def fuse() -> None:
    """What every mount needs; without it a test is skipped, but not in CI, which can install it."""
    try:
        install()
    except CannotRun as reason:
        give_up(reason)


@pytest.fixture
def mount(fuse, tmp_path) -> Iterator[FaultyMount]:
    """The results folder of `job`."""
    with FaultyMount(tmp_path / "behind", tmp_path / "out") as mount:
        yield mount


@pytest.fixture
def closing(fuse, tmp_path) -> Iterator[FaultyMount]:
    """The same, on which closing a file can fail."""
    with FaultyMount(tmp_path / "behind", tmp_path / "out", closing=True) as mount:
        yield mount
