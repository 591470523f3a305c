"""Which scheduler is chosen, and runs through real Dask workers."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from distributed import Client, LocalCluster

import s1batch
from s1batch.errors import LockedError, UsageError
from s1batch.execution import RunOptions
from s1batch.part_runner import PartSummary
from s1batch.scheduler import PartTask, choose, submit_all
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


class FewAtOnce:
    """Stands for a session that has room for so many parts, and notes which came to its gate, and which it let in."""

    def __init__(self, room: int) -> None:
        self.let_in: list[int] = []
        self.at_gate = self.most_at_gate = 0
        self._room = threading.Semaphore(room)
        self._lock = threading.Lock()

    def run_part(self, part, only, turn, let_in):
        with self._lock:
            self.at_gate += 1
            self.most_at_gate = max(self.most_at_gate, self.at_gate)
        with self._room:
            with self._lock:
                self.at_gate -= 1
                self.let_in.append(part)
            let_in()
            time.sleep(0.001 * (part * 7 % 5))
            if part == 13:
                raise LockedError("part 13 is another run's")
        return PartSummary(part=part, finished=True)

    def stop(self, *, at_limit=False, in_vain=False):
        pass

    def stats(self):
        return None


class Finished:
    def __init__(self) -> None:
        self.parts: list[int] = []

    def finished(self, summary):
        self.parts.append(summary.part)

    def tick(self, stats):
        pass


class TestOrder:
    """Parts are read in the order of the plan, however long each takes, and one thread at a time waits for room."""

    def carry(self, parts, room=3, width=8):
        session, watch = FewAtOnce(room), Finished()
        with ThreadPoolExecutor(width) as pool:
            try:
                submit_all(session, pool, width, [PartTask(part) for part in parts], watch, threading.Event())
            finally:
                self.session, self.watch = session, watch

    def test_parts_come_in_one_by_one_in_the_order_of_the_plan(self):
        parts = [part for part in range(200) if part != 13]
        self.carry(parts)
        assert self.session.let_in == parts
        assert self.session.most_at_gate == 1
        assert sorted(self.watch.parts) == parts

    def test_a_part_that_ends_the_run_lets_no_other_begin(self):
        with pytest.raises(LockedError):
            self.carry(range(1000))
        assert 13 in self.session.let_in
        assert len(self.session.let_in) < 100


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
        monkeypatch.setattr("s1batch.workers.crew.CONNECT_TIMEOUT_S", 1)
        with pytest.raises(UsageError, match="no Dask scheduler answers there"):
            s1batch.run(pick_job(archive), tmp_path / "out", options=RunOptions(scheduler="tcp://127.0.0.1:1"))
