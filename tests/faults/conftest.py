"""The archive that runs are disturbed over, what an undisturbed run makes of it, and a job that notes what it asks."""

from __future__ import annotations

import pytest

import s1batch
from tests.archives import pick_job, write_archive
from tests.faults.runs import held, rows, write_job


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("data") / "archive", stations=8, seconds=400)


@pytest.fixture(scope="session")
def undisturbed(archive, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    s1batch.run(pick_job(archive, run={"part_chunks": 16}), out)
    return rows(out)


@pytest.fixture
def job(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    engine = {"kind": "replay", "function": "tests.answers:slowly", "model": "tests.answers:loudest"}
    return write_job(tmp_path, pick_job(archive, engine=engine, run={"part_chunks": 16, "parts_in_flight": 2}))


@pytest.fixture
def hold(tmp_path, monkeypatch):
    """Hold the answers of runs and clusters that are started from now on back, from one question on, until released."""

    class Hold:
        released = tmp_path / "released"

        def __call__(self, number):
            for name, value in held(number, self.released).items():
                monkeypatch.setenv(name, value)

        def release(self):
            self.released.touch()

    return Hold()
