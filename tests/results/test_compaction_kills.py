"""Killed at any moment while files of rows are joined or taken apart: no row is lost, none is there twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

from s1batch.records import Row
from s1batch.results.compaction import compact
from s1batch.results.store import ResultsStore
from s1batch.results.verify import verify
from tests.plans import SCHEMA
from tests.results import victim
from tests.results.finished import rows_of, write_results

EXCHANGE = pytest.mark.parametrize(
    "exchanges", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["exchange", "two renames"]
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[Path, list[Row]]:
    path = tmp_path_factory.mktemp("prepared") / "out"
    return path, write_results(path, 12, per_part=4, parts=[0, 1, 2])


def plain_keys(path: Path, exchanges: bool) -> list[str]:
    """What a plain reader sees; it may find no folder at all only where folders cannot be exchanged."""
    if not exchanges and not (path / "rows").exists():
        return rows_keys(rows_of(path))
    return list(pl.read_parquet(path / "rows" / "*.parquet")["chunk_key"])


def rows_keys(rows: list[Row]) -> list[str]:
    return [each.chunk_key for each in rows]


def left_over(path: Path) -> list[str]:
    return [each.name for each in path.iterdir() if each.name in ("rows.new", "rows.old")]


@EXCHANGE
@pytest.mark.parametrize("keep", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["", "keep"])
def test_killed_before_each_step_of_a_compaction(tmp_path, prepared, exchanges, keep):
    source, rows = prepared
    for step in range(1, 200):
        path = tmp_path / f"r{step}"
        shutil.copytree(source, path)
        killed = victim.was_killed(victim.compact, path, keep, exchanges, kill_at=step)
        assert plain_keys(path, exchanges) == rows_keys(rows)
        assert rows_of(path) == rows
        verdict = verify(path)
        assert verdict.complete
        assert {finding.code for finding in verdict.findings} <= {"compaction_left"}
        done = compact(path, keep=keep)
        assert done.after == 1
        assert rows_of(path) == rows
        assert left_over(path) == []
        assert verify(path).findings == ()
        if keep:
            (kept,) = (path / "originals").iterdir()
            assert sorted(file.name for file in kept.glob("part-*")) == [
                f"part-{part:06d}.parquet" for part in range(3)
            ]
        if not killed:
            assert step > 15
            return
    pytest.fail("the child never came to its end")


@pytest.mark.slow
@EXCHANGE
def test_killed_before_each_step_of_asking_again_out_of_a_large_file(tmp_path, prepared, exchanges):
    """The rows that stay are there at every moment; those that are asked again are there or in superseded/."""
    source, rows = prepared
    compacted = tmp_path / "compacted"
    shutil.copytree(source, compacted)
    compact(compacted)
    good = {each.chunk_key: each for each in rows if each.outcome != "failed"}
    failed = {each.chunk_key: each for each in rows if each.outcome == "failed"}
    for step in range(1, 200):
        path = tmp_path / f"r{step}"
        shutil.copytree(compacted, path)
        killed = victim.was_killed(victim.ask_again, path, exchanges, kill_at=step)
        seen = plain_keys(path, exchanges)
        assert len(seen) == len(set(seen))
        victim.ask_again(path, True)
        assert left_over(path) == []
        now: dict[str, Row] = {}
        with ResultsStore(path, SCHEMA) as store:
            for part in range(3):
                with store.open_part(part) as writer:
                    assert not now.keys() & writer.rows.keys()
                    now |= writer.rows
        assert now == good
        files = pl.concat([pl.read_parquet(file) for file in (path / "superseded").iterdir()])
        assert sorted(files["chunk_key"]) == sorted(failed)
        if not killed:
            assert step > 25
            return
    pytest.fail("the child never came to its end")
