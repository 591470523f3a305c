"""Killed at any moment, any number of times: every answer that was appended is there, once."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from s1batch.records import Row
from s1batch.results.rows_file import read_rows
from s1batch.results.store import ResultsStore
from tests.plans import SCHEMA
from tests.results import victim


def stored(path: Path) -> dict[str, Row]:
    with ResultsStore(path, SCHEMA) as store, store.open_part(0) as part:
        return part.rows


def finish(path: Path, rows: list[Row]) -> None:
    with ResultsStore(path, SCHEMA) as store, store.open_part(0) as part:
        for each in rows:
            part.append(each)
        part.finish([each.chunk_key for each in rows])


def assert_finished_once(path: Path, rows: list[Row]) -> None:
    with ResultsStore(path, SCHEMA) as store:
        assert store.finished() == {0}
        assert read_rows(store.layout.part_rows(0), SCHEMA) == [SCHEMA.fit(each) for each in rows]
        store.tidy()
        assert store.begun() == set()
        assert store.scan_all().collect().height == len(rows)


def test_random_kills_lose_no_acknowledged_row(tmp_path: Path) -> None:
    """A child is killed fifteen times, each time when it has just acknowledged some random number of rows more."""
    chance = random.Random(20)
    rows = victim.make_rows(3000)
    acknowledged = tmp_path / "acknowledged"
    acknowledged.touch()
    line = len(rows[0].chunk_key) + 1
    killed = 0
    for _ in range(15):
        more = chance.randrange(150)
        enough = acknowledged.stat().st_size + more * line
        child = victim.start(victim.append_all, tmp_path / "r", len(rows), acknowledged, more + 200)
        while acknowledged.stat().st_size < enough and child.is_alive():
            time.sleep(0.0005)
        child.kill()
        child.join()
        killed += child.exitcode != 0
        assert set(acknowledged.read_text().split()) <= stored(tmp_path / "r").keys()
    assert killed > 0
    finish(tmp_path / "r", rows)
    assert_finished_once(tmp_path / "r", rows)


def test_killed_before_each_step_of_a_part(tmp_path: Path) -> None:
    """From the first file to the removed journal: whatever step is not reached, running again ends the same."""
    rows = victim.make_rows(5)
    for step in range(1, 200):
        path = tmp_path / f"r{step}"
        acknowledged = tmp_path / f"a{step}"
        killed = victim.was_killed(victim.append_all, path, len(rows), acknowledged, kill_at=step)
        said = set(acknowledged.read_text().split()) if acknowledged.exists() else set()
        assert said <= stored(path).keys()
        finish(path, rows)
        assert_finished_once(path, rows)
        if not killed:
            assert step > 10
            return
    pytest.fail("the child never came to its end")


@pytest.mark.parametrize("finished", [True, False])
def test_killed_before_each_step_of_superseding(tmp_path: Path, finished: bool) -> None:
    """No row is lost between rows, journal and superseded, and doing it again ends the same."""
    rows = [SCHEMA.fit(each) for each in victim.make_rows(7)]
    failed = {each.chunk_key: each for each in rows if each.outcome == "failed"}
    good = {each.chunk_key: each for each in rows if each.outcome != "failed"}
    for step in range(1, 200):
        path = tmp_path / f"r{step}"
        with ResultsStore(path, SCHEMA) as store, store.open_part(0) as part:
            for each in rows:
                part.append(each)
            if finished:
                part.finish([each.chunk_key for each in rows])
        killed = victim.was_killed(victim.supersede, path, kill_at=step)

        now = stored(path)
        assert {key: each for key, each in now.items() if key in good} == good
        if not failed.keys() <= now.keys():
            assert superseded(path) == failed

        with ResultsStore(path, SCHEMA) as store:
            store.supersede(0, ["failed"])
            assert store.finished() == set()
        assert stored(path) == good
        assert superseded(path) == failed
        finish(path, rows)
        assert_finished_once(path, rows)
        if not killed:
            assert step > 10
            return
    pytest.fail("the child never came to its end")


def superseded(path: Path) -> dict[str, Row]:
    files = list((path / "superseded").glob("*.parquet"))
    found = [each for file in files for each in read_rows(file, SCHEMA)]
    assert len(found) == len({each.chunk_key for each in found}), "a row was kept aside twice"
    return {each.chunk_key: each for each in found}


def test_tidy_removes_what_a_kill_left(tmp_path: Path) -> None:
    """Temporary files of dead processes go, and journals of finished parts."""
    rows = victim.make_rows(3)
    for step in range(1, 60):
        path = tmp_path / f"r{step}"
        killed = victim.was_killed(victim.append_all, path, len(rows), tmp_path / "a", kill_at=step)
        victim.was_killed(victim.tidy, path, kill_at=10_000)
        left = [file.name for file in path.rglob("*") if file.name.endswith(".tmp")]
        assert left == []
        if not killed:
            return
    pytest.fail("the child never came to its end")


def test_a_killed_child_is_reported_as_killed(tmp_path: Path) -> None:
    """The harness of these tests does kill."""
    child = victim.start(victim.die_with_lease, tmp_path, ["x"])
    child.join()
    assert child.exitcode == -signal.SIGKILL
