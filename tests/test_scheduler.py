"""Which scheduler is chosen, and runs through real Dask workers."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from distributed import Client, LocalCluster

import s1batch
from s1batch.errors import UsageError
from s1batch.execution import RunOptions
from s1batch.scheduler import choose
from tests.archives import pick_job, write_archive


class TestChoice:
    def test_auto_says_why_it_stays_in_this_process(self):
        choice = choose("auto", None, 100, "http")
        assert (choice.name, bool(choice.why)) == ("inline", True)

    def test_workers_that_are_asked_for_mean_local(self):
        assert choose("auto", 4, 100, "http").name == "local"

    @pytest.mark.parametrize(
        ("asked", "workers"), [("inline", 4), ("tcp://localhost:8786", 2), ("nonsense", None), ("", None)]
    )
    def test_what_makes_no_sense_is_refused(self, asked, workers):
        with pytest.raises(UsageError):
            choose(asked, workers, 10, "reference")


def test_a_mistake_in_the_program_ends_the_run_soon(tmp_path, monkeypatch):
    """It is raised as it is, and parts that are open do not go on to their end first."""
    asked = tmp_path / "asked"
    monkeypatch.setenv("ASKED", str(asked))
    archive = write_archive(tmp_path / "archive", stations=16, seconds=400)
    job = pick_job(archive, "broken", run={"part_chunks": 312, "parts_in_flight": 2})
    with pytest.raises(ZeroDivisionError):
        s1batch.run(job, tmp_path / "out")
    assert len(asked.read_text().split()) < 312


def table(results):
    return results.scan().collect().drop("seconds").sort("chunk_key")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
class TestDask:
    @pytest.fixture
    def archive(self, tmp_path):
        return write_archive(tmp_path / "archive", stations=4, seconds=400)

    def test_local_workers_make_the_same_table(self, archive, tmp_path):
        job = pick_job(archive)
        inline = s1batch.run(job, tmp_path / "inline")
        options = RunOptions(scheduler="local", workers=2)
        local = s1batch.run(job, tmp_path / "local", options=options)
        assert table(local).equals(table(inline))
        assert local.verify().ok

    def test_a_worker_that_is_killed_costs_nothing(self, archive, tmp_path, monkeypatch):
        asked = tmp_path / "asked"
        monkeypatch.setenv("ASKED", str(asked))
        with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0") as cluster:
            with Client(cluster) as client:
                victim = next(iter(client.run(os.getpid).values()))

            def kill_in_the_middle():
                while not asked.exists() or len(asked.read_text().split()) < 30:
                    time.sleep(0.01)
                os.kill(victim, signal.SIGKILL)

            killer = threading.Thread(target=kill_in_the_middle)
            killer.start()
            options = RunOptions(scheduler=cluster.scheduler_address)
            results = s1batch.run(pick_job(archive, "slowly"), tmp_path / "out", options=options)
            killer.join()
        assert results.summary.outcomes == {"ok": 156}
        assert results.verify().complete

    def test_an_address_where_nobody_answers_is_a_usage_error(self, archive, tmp_path, monkeypatch):
        monkeypatch.setattr("s1batch.dask_cluster.CONNECT_TIMEOUT_S", 1)
        with pytest.raises(UsageError, match="no Dask scheduler answers there"):
            s1batch.run(pick_job(archive), tmp_path / "out", options=RunOptions(scheduler="tcp://127.0.0.1:1"))
