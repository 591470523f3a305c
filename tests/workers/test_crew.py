"""How many parts workers run, when they leave, and what is said and done when they do not come."""

from __future__ import annotations

import signal
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import Scheduler, SpecCluster

from s1batch.errors import MissingExtra, S1BatchError, UsageError
from s1batch.slurm.client import JobState, SlurmError
from s1batch.workers import crew as crew_module
from s1batch.workers import jobs as jobs_module
from s1batch.workers.crew import starting_scheduler, threads_of
from s1batch.workers.jobqueue import import_jobqueue
from s1batch.workers.jobs import JobBook, JobCrew, memory_limit, outside_of_jobs
from s1batch.workers.lifetime import Lifetime
from tests.slurm.fake import FakeSlurm
from tests.slurm.specs import plain_script


@pytest.mark.parametrize(("parts", "workers", "threads"), [(100_000, 4, 32), (100, 10, 2), (400, 10, 10), (3, 8, 2)])
def test_few_parts_are_spread_over_all_workers(parts, workers, threads):
    assert threads_of(parts, workers, 32) == threads


def test_a_job_that_wants_one_part_at_a_time_gets_one():
    assert threads_of(1000, 1, 1) == 1


@pytest.mark.parametrize(
    ("mem", "limit"), [("8G", "8GiB"), ("4000", "4000MiB"), ("512m", "512MiB"), ("0", None), (None, None), ("", None)]
)
def test_memory_is_read_as_slurm_reads_it(mem, limit):
    assert memory_limit(mem) == limit


def test_workers_do_not_inherit_the_job_that_the_run_is_in():
    given = {"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": "1", "SLURMD_NODENAME": "n1", "SLURM_CONF": "/c", "HOME": "/"}
    assert outside_of_jobs(given) == {"SLURM_CONF": "/c", "HOME": "/"}


class TestLifetime:
    def test_a_worker_leaves_before_its_allocation_ends_each_at_a_time_of_its_own(self):
        lifetime = Lifetime(stagger_s=60)
        drawn = iter((0.0, 0.5, 1.0))
        ends = [lifetime.ends_at(1000.0, lambda: 5000.0, lambda: next(drawn)) for _ in range(3)]
        assert ends == [5000.0, 4970.0, 4940.0]

    def test_the_sites_lifetime_counts_where_it_is_shorter(self):
        assert Lifetime(lifetime_s=600).ends_at(1000.0, lambda: 5000.0) == 1600.0
        assert Lifetime(lifetime_s=600).ends_at(1000.0, lambda: 1300.0) == 1300.0

    def test_without_a_limit_it_stays(self):
        assert Lifetime(stagger_s=60).ends_at(1000.0, lambda: None) is None

    def test_a_stagger_leaves_time_to_work(self):
        assert Lifetime(stagger_s=600).ends_at(1000.0, lambda: 1100.0, lambda: 1.0) == 1075.0


def test_dask_jobqueue_does_not_take_ctrl_c(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    for name in [name for name in sys.modules if name.partition(".")[0] == "dask_jobqueue"]:
        monkeypatch.delitem(sys.modules, name)
    import_jobqueue()
    assert signal.getsignal(signal.SIGINT) is before


def test_without_dask_jobqueue_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(MissingExtra, match=r"pip install 's1batch\[slurm\]'"):
        import_jobqueue()


def test_a_network_interface_that_is_not_there_is_named_with_where_it_is_set():
    wanted = r"\[slurm.workers\] interface = 'ib9' .*'ib9' is not a valid"
    with pytest.raises(UsageError, match=wanted), starting_scheduler("ib9"):
        SpecCluster(workers={}, scheduler={"cls": Scheduler, "options": {"interface": "ib9"}})


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A crew of two jobs on a Slurm without a cluster: what it told, and the jobs that Dask knows."""
    clock = Clock()
    monkeypatch.setattr(crew_module, "time", clock)
    monkeypatch.setattr(jobs_module, "time", clock)
    (tmp_path / "logs").mkdir()
    slurm, workers = FakeSlurm(), {"w-0": None, "w-1": None}
    said: list[str] = []
    client: Any = None
    script = plain_script(folder=str(tmp_path))
    cluster = SimpleNamespace(
        scheduler_info={"workers": {}},
        loop=SimpleNamespace(add_callback=lambda call, *arguments: call(*arguments)),
        workers=workers,
    )
    book = JobBook(slurm=slurm, script=script)
    for name in workers:
        job = book.submit(name, "tcp://node0:1")
        slurm.in_queue.append(JobState(job=job, index=None, state="PENDING", reason="Priority"))
    crew = JobCrew(client=client, at_start=2, cluster=cluster, book=book, most=2, say=said.append)
    return SimpleNamespace(
        crew=crew, clock=clock, slurm=slurm, said=said, workers=workers, cluster=cluster, folder=tmp_path
    )


def look(made, seconds, alive=0):
    for _ in range(seconds):
        made.clock.now += 1
        made.crew.look(alive, 7)


def test_workers_that_stay_in_the_queue_are_told_of_every_minute(made):
    look(made, 150)
    assert made.said == ["no worker for 60 s, 7 parts to do; 2 jobs in the queue (2 Priority)"] * 2
    assert set(made.workers) == {"w-0", "w-1"}


def test_a_job_that_has_left_the_queue_is_replaced(made):
    made.cluster.scheduler_info["workers"]["tcp://a"] = {"name": "w-0"}
    look(made, 15, alive=1)
    made.cluster.scheduler_info["workers"].clear()
    made.slurm.in_queue.pop(0)
    look(made, 15)
    assert set(made.workers) == {"w-1"}
    assert made.said == []


def test_jobs_that_end_before_their_worker_begins_end_the_run_with_their_log(made):
    made.slurm.in_queue.clear()
    (made.folder / "logs/w-2-102.log").write_text("bash: python: command not found\n")
    look(made, 15)
    assert not made.workers
    made.crew.book.submit("w-2", "tcp://node0:1")
    with pytest.raises(S1BatchError, match=r"3 worker jobs ended before their worker began: .*command not found"):
        look(made, 15)


def test_jobs_that_slurm_refuses_end_the_run_with_what_it_says(made):
    made.slurm.refuses_from = 0
    with pytest.raises(SlurmError):
        made.crew.book.submit("w-2", "tcp://node0:1")
    with pytest.raises(SlurmError, match="no more for you"):
        look(made, 15)


def test_a_controller_that_is_down_loses_no_job(made):
    made.slurm.reachable = False
    look(made, 50)
    assert set(made.workers) == {"w-0", "w-1"}
