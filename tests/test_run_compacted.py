"""Runs on compacted results: everything goes on as on small files."""

from __future__ import annotations

import shutil
import threading
import time

import numpy as np
import polars as pl
import pytest

import s1batch
from s1batch.cli import main
from s1batch.execution import RunOptions
from s1batch.results.compaction import compact
from s1batch.results.store import ResultsStore
from s1batch.subset import Shard
from tests.archives import START, pick_job, write_archive, write_trace


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An archive and its results, some rows failed, compacted; with the rows before."""
    folder = tmp_path_factory.mktemp("compacted")
    archive = write_archive(folder / "archive")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MENDED", str(folder / "nowhere"))
        results = s1batch.run(pick_job(archive, "sometimes"), folder / "out")
    rows = results.scan().collect()
    assert results.summary.outcomes["failed"] > 0
    assert compact(folder / "out").after == 1
    return folder, rows


@pytest.fixture
def copy(finished, tmp_path, monkeypatch):
    folder, rows = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    monkeypatch.setenv("MENDED", str(tmp_path / "mended"))
    return pick_job(folder / "archive", "sometimes"), tmp_path, rows


def test_resuming_asks_nothing_and_changes_nothing(copy):
    job, folder, rows = copy
    said: list[str] = []
    again = s1batch.run(job, folder / "out", say=said.append)
    assert again.summary.added == 0
    assert any("nothing to do" in line for line in said)
    assert again.scan().collect().equals(rows)
    assert again.verify(sources=True).complete
    assert len(list((folder / "out" / "rows").iterdir())) == 1


def test_retrying_in_shards_asks_what_failed_and_nothing_else(copy):
    job, folder, rows = copy
    (folder / "mended").touch()
    for index in range(3):
        s1batch.run(job, folder / "out", options=RunOptions(shard=Shard(index, 3), retry=("failed",)))
    results = s1batch.open_results(folder / "out")
    now = results.scan().collect()
    assert set(now["outcome"]) == {"ok"}
    kept = rows.filter(pl.col("outcome") == "ok")
    assert now.filter(pl.col("chunk_key").is_in(kept["chunk_key"].to_list())).equals(kept)
    assert results.verify().complete
    assert compact(folder / "out").after == 1
    assert results.scan().collect().equals(now)


def test_an_extension_adds_parts_beside_the_large_file(copy, finished):
    job, folder, rows = copy
    new = write_trace(finished[0] / "archive" / "new.mseed", np.arange(6000), station="NEW", start=START + 86_400)
    try:
        extended = s1batch.run(job, folder / "out", options=RunOptions(extend=True))
    finally:
        new.unlink()
    assert extended.summary.added == 5
    assert extended.verify().complete
    after = extended.scan().collect()
    assert after.head(len(rows)).equals(rows)


def test_a_run_waits_for_a_compaction_to_end(copy):
    job, folder, _ = copy
    ended: list[float] = []

    def run() -> None:
        s1batch.run(job, folder / "out")
        ended.append(time.monotonic())

    with ResultsStore(folder / "out", None) as store:
        with store.gate():
            thread = threading.Thread(target=run)
            thread.start()
            thread.join(1)
            assert thread.is_alive()
            released = time.monotonic()
        thread.join(60)
    assert ended[0] > released


def test_the_commands_that_look_at_results(copy, capsys):
    _, folder, rows = copy
    out = str(folder / "out")
    main(["compact", out], standalone_mode=False)
    assert f"{len(rows)} rows of 8 parts, 1 files before, 1 now" in capsys.readouterr().out
    main(["show", out, "-n", "3"], standalone_mode=False)
    main(["export", out, str(folder / "x.parquet")], standalone_mode=False)
    assert pl.read_parquet(folder / "x.parquet").equals(rows)
    main(["merge", out], standalone_mode=False)
    assert "merged rows" in capsys.readouterr().out
    main(["status", out], standalone_mode=False)
    assert "8 of 8 parts finished" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["verify", out], standalone_mode=False)
    assert ended.value.code == 0
