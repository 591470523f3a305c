"""Parts on a real cluster in this process: what is submitted is bounded, and follows workers that come and go."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from distributed import Client, LocalCluster

from s1batch.errors import Interrupted
from s1batch.part_runner import PartSummary
from s1batch.scheduler import PartTask
from s1batch.workers import keys
from s1batch.workers.crew import Crew
from s1batch.workers.plugin import Leaves
from s1batch.workers.submission import Submission
from tests.benchmarks import idle_session

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
THREADS = 4


class Slow(idle_session.IdlePlugin):
    """Takes a moment for each part, and gives every seventh part back when it sees it first."""

    given_back: ClassVar[set[int]] = set()
    lock: ClassVar[threading.Lock] = threading.Lock()

    def run(self, task: PartTask) -> Any:
        time.sleep(0.02)
        with self.lock:
            if task.part % 7 == 0 and task.part not in self.given_back:
                self.given_back.add(task.part)
                return Leaves(part=task.part)
        return PartSummary(part=task.part, finished=True)


class Watched:
    def __init__(self, at: int = -1, then: Any = None) -> None:
        self.parts: list[int] = []
        self.at, self.then = at, then

    def finished(self, summary: PartSummary) -> None:
        self.parts.append(summary.part)
        if len(self.parts) == self.at:
            self.then()

    def tick(self, stats: Any) -> None:
        pass


@contextmanager
def submission(tmp_path, watch, workers, stop=None):
    Slow.given_back.clear()
    setup = idle_session.setup(tmp_path)
    with (
        LocalCluster(n_workers=workers, threads_per_worker=THREADS, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
        client.as_current(),
    ):
        crew = Crew(client=client, at_start=workers, threads=THREADS, owned=False)
        client.register_plugin(Slow(setup, crew.lifetime, owns_process=False), name="test")
        yield cluster, Submission(crew, setup, "test", watch, stop or threading.Event())


def test_every_part_ends_once_and_no_more_are_submitted_than_there_are_two_places_for(tmp_path):
    """Those that a worker gave back go to another one."""
    watch = Watched()
    with submission(tmp_path, watch, 2) as (_, made):
        made.run([PartTask(part) for part in range(300)])
    assert sorted(watch.parts) == list(range(300))
    assert made.most_submitted == 2 * 2 * THREADS


def test_parts_end_once_too_where_keys_are_used_again(tmp_path, monkeypatch):
    """Workers come and go meanwhile, and what they did is done again under the same key."""
    monkeypatch.setattr(keys, "REST", 40)
    watch = Watched(at=100)
    with submission(tmp_path, watch, 2) as (cluster, made):
        watch.then = lambda: cluster.scale(1)
        made.run([PartTask(part) for part in range(600)])
    assert sorted(watch.parts) == list(range(600))


def test_workers_that_join_later_get_parts_too(tmp_path):
    watch = Watched(at=20)
    with submission(tmp_path, watch, 1) as (cluster, made):

        def grow() -> None:
            cluster.scale(3)
            cluster.wait_for_workers(3)

        watch.then = grow
        made.run([PartTask(part) for part in range(1500)])
    assert len(watch.parts) == 1500
    assert made.most_submitted == 2 * 3 * THREADS


def test_a_run_without_workers_ends_when_it_is_stopped(tmp_path):
    """Parts that wait for workers would wait for ever."""
    stop = threading.Event()
    with submission(tmp_path, Watched(), 0, stop) as (_, made):
        threading.Timer(1.0, stop.set).start()
        with pytest.raises(Interrupted):
            made.run([PartTask(part) for part in range(10)])
