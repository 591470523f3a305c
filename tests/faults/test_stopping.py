"""Signals: the run ends with 75 soon, leaves no process and no lease behind, and goes on later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

import s1batch
from tests.archives import pick_job
from tests.faults.runs import CHUNKS, ROOT, one_line, run, start, stored, wait_for_journal, write_job

LOCAL = ("--scheduler", "local", "--workers", "2")


@pytest.fixture
def job(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    return write_job(
        tmp_path, pick_job(archive, "slowly", run={"part_chunks": 16, "parts_in_flight": 2, "prefetch": 2})
    )


def check_going_on(job, *options):
    known = set(stored(job.parent / "out")["fingerprint"])
    asked = job.parent / "asked"
    before = len(asked.read_text().split()) if asked.exists() else 0
    ended = run(job, *options)
    assert ended.process.returncode == 0, ended.said
    assert not known.intersection(asked.read_text().split()[before:])
    results = s1batch.open_results(job.parent / "out")
    assert results.verify().complete
    assert results.scan().collect().height == CHUNKS


def end_with(running, timeout_s=300):
    """Wait for the end; return the seconds it took."""
    began = time.monotonic()
    assert running.wait(timeout_s) == 75, running.said
    running.wait_for_children()
    assert "Traceback" not in running.said, running.said
    return time.monotonic() - began


def test_ctrl_c_twice_ends_at_once(job):
    """The first waits for answers on their way, which never come; the second ends the process."""
    slow = ("--set", "engine.function=tests.answers:never")
    running = start(job, *slow)
    give_up = time.monotonic() + 30
    while not (job.parent / "asked").exists() and time.monotonic() < give_up:
        time.sleep(0.02)
    os.killpg(running.process.pid, signal.SIGINT)
    time.sleep(1.0)
    assert running.process.poll() is None
    os.killpg(running.process.pid, signal.SIGINT)
    assert end_with(running) < 20, "the answers would have taken an hour"


@pytest.mark.slow
def test_one_ctrl_c_waits_no_longer_than_the_job_says(job):
    """`run.drain_s` bounds the wait for an engine that never answers."""
    running = start(job, "--set", "engine.function=tests.answers:never", "--set", "run.drain_s=0.5")
    give_up = time.monotonic() + 30
    while not (job.parent / "asked").exists() and time.monotonic() < give_up:
        time.sleep(0.02)
    os.killpg(running.process.pid, signal.SIGINT)
    end_with(running)
    assert "run the same command to go on" in one_line(running.said)


@pytest.mark.parametrize(
    "number", [5, pytest.param(1, marks=pytest.mark.slow), pytest.param(23, marks=pytest.mark.slow)]
)
def test_a_signal_while_the_plan_is_made_ends_it_at_once(number, job):
    """SIGTERM while headers are scanned: there is no plan then, and the next run makes it."""
    running = start(job, sabotage={"interrupt_planning": number})
    end_with(running)
    assert "run the same command to go on" in one_line(running.said)
    assert not (job.parent / "out" / "plan.parquet").exists()
    assert not list((job.parent / "out").glob(".*.tmp"))
    check_going_on(job)


@pytest.mark.parametrize(
    "options",
    [(), pytest.param((*LOCAL, "--set", "run.part_chunks=156"), marks=pytest.mark.slow)],
    ids=["inline", "local"],
)
def test_a_signal_with_the_last_question_ends_in_0(options, job):
    """Every answer comes and every part is finished: there is nothing that a next run would have to do."""
    answers = ("--set", "engine.function=tests.answers:interrupting")
    running = start(job, *options, *answers, env={"LAST": str(CHUNKS)})
    assert running.wait(60) == 0, running.said
    running.wait_for_children()
    assert "stopping; answers on their way are waited for" in running.said
    assert "Traceback" not in running.said
    results = s1batch.open_results(job.parent / "out")
    assert results.verify().complete
    assert results.scan().collect().height == CHUNKS
    assert not list((job.parent / "out" / "leases").glob("*.json"))


SPOILT = """
import os, signal
from s1batch import cli, jobfile

def load_job(*arguments):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    except KeyboardInterrupt:
        raise ValueError("cannot make this class")

jobfile.load_job = load_job
cli.main(["run", "job.yaml"])
"""


def test_ctrl_c_of_which_another_error_is_made_is_one_line():
    """Pydantic makes one of what a signal raises while it makes a class, as imports do."""
    done = subprocess.run([sys.executable, "-c", SPOILT], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stderr) == (75, "s1batch: interrupted\n")


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.05, 0.3, 0.6, 0.9, 1.2, 1.6])
def test_a_signal_at_any_moment_of_the_start_leaves_no_trace(after_s, job):
    """Before the first line of the program SIGTERM simply ends it; from then on it ends with 75."""
    running = start(job)
    time.sleep(after_s)
    running.process.send_signal(signal.SIGTERM)
    assert running.wait(30) in (75, -signal.SIGTERM), running.said
    assert "Traceback" not in running.said
    running.wait_for_children()
    assert not list((job.parent / "out" / "leases").glob("*.json")) if running.process.returncode == 75 else True


@pytest.mark.slow
class TestDask:
    def test_ctrl_c_reaches_only_the_client(self, job, hold):
        """A terminal sends it to the whole group; what the workers asked is waited for and kept."""
        hold(150)
        running = start(job, *LOCAL)
        wait_for_journal(job.parent / "out", running, 20_000)
        os.killpg(running.process.pid, signal.SIGINT)
        hold.release()
        end_with(running)
        assert "run the same command to go on" in one_line(running.said)
        known = stored(job.parent / "out").height
        assert 0 < known < CHUNKS
        assert known == len((job.parent / "asked").read_text().split()), "an answer on its way was thrown away"
        assert not list((job.parent / "out" / "leases").glob("*.json"))
        check_going_on(job, *LOCAL)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_twice_ends_at_once_and_leaves_no_worker(self, job, number, hold):
        """The second signal ends the client; its workers notice and end too."""
        hold(150)
        running = start(job, *LOCAL)
        wait_for_journal(job.parent / "out", running, 20_000)
        running.process.send_signal(number)
        time.sleep(0.05)
        running.process.send_signal(number)
        end_with(running)
        hold.release()
        check_going_on(job)

    def test_sigterm_to_the_whole_group_ends_in_75(self, job, hold):
        """As a batch system ends a job: the workers may die first."""
        hold(150)
        running = start(job, *LOCAL)
        wait_for_journal(job.parent / "out", running, 20_000)
        os.killpg(running.process.pid, signal.SIGTERM)
        hold.release()
        end_with(running)
        check_going_on(job)

    @pytest.mark.parametrize("after_s", [0.0, 0.7, 1.4, 2.1, 3.0])
    def test_a_signal_while_the_workers_begin(self, job, after_s):
        """No part is begun after the signal, also by a worker whose session is only being opened.

        A quick machine may have answered everything by then: nothing is left to stop, or to go on with.
        """
        running = start(job, *LOCAL)
        give_up = time.monotonic() + 60
        while not (job.parent / "out" / "plan.parquet").exists() and time.monotonic() < give_up:
            time.sleep(0.02)
        time.sleep(after_s)
        if running.process.poll() is None:
            os.killpg(running.process.pid, signal.SIGINT)
        returncode = running.wait(300)
        running.wait_for_children()
        assert "Traceback" not in running.said, running.said
        assert returncode in (0, 75), running.said
        if returncode == 0:
            assert s1batch.open_results(job.parent / "out").verify().complete
        check_going_on(job)


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--scheduler", "inline"), LOCAL], ids=["inline", "local"])
def test_before_the_end_of_an_allocation_answers_are_waited_for_as_long_as_there_is_time(options, job):
    """Longer than `run.drain_s`, which is for people who wait; in this process as in workers."""
    asked = job.parent / "asked"
    slow = ("--set", "engine.function=tests.answers:patiently", "--set", "run.drain_s=0.5")
    allocation = {"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": str(int(time.time()) + 300)}
    running = start(job, *options, *slow, env=allocation)
    give_up = time.monotonic() + 60
    while not asked.exists() and time.monotonic() < give_up:
        time.sleep(0.02)
    time.sleep(0.5)
    running.process.send_signal(signal.SIGUSR2)
    end_with(running)
    questions = asked.read_text().split()
    assert len(stored(job.parent / "out")["fingerprint"]) == len(questions) > 0
    check_going_on(job, *slow[:2])
