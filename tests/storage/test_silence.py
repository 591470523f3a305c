"""A file system that does not answer, as NFS mounted hard whose server is gone: calls hang in the kernel."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.faults.runs import CHUNKS, run, start, stored
from tests.storage.mounts import FaultyMount
from tests.storage.steps import complete, ends_well, fingerprints, says, under_way

pytestmark = pytest.mark.slow

SILENT = "does not answer for"


def test_a_run_says_that_its_folder_does_not_answer_and_goes_on_when_it_does(mount: FaultyMount, job, undisturbed):
    """Nothing new is asked meanwhile."""
    running = under_way(job)
    mount.hangs()
    said = says(running, SILENT)
    assert "waiting up to 300 s, asking nothing new" in said
    before = fingerprints(job)
    time.sleep(2)
    assert fingerprints(job) == before, "questions were asked whose answers could not be stored"
    mount.goes_on()
    ends_well(running, job, undisturbed)
    assert "the results folder answers again after" in running.said


def test_a_folder_that_never_answers_ends_the_run_and_the_next_one_goes_on(mount: FaultyMount, job, undisturbed):
    running = under_way(job, "--set", "run.storage_patience_s=12")
    mount.hangs()
    assert running.wait() == 1, running.said
    assert "run again to go on (run.storage_patience_s: 12 s)" in running.said.splitlines()[-1]
    asked = len(fingerprints(job))
    mount.goes_on()
    running.wait_for_children()
    known = set(stored(job.parent / "out")["fingerprint"])
    assert run(job).process.returncode == 0
    complete(job, undisturbed)
    assert not known.intersection(fingerprints(job)[asked:])


@pytest.mark.parametrize("moment", ["beginning", "middle"])
def test_two_signals_end_a_run_whose_threads_hang(moment, mount: FaultyMount, job, undisturbed):
    """Python's own handlers do not run while the main thread is in the kernel."""
    if moment == "beginning":
        assert run(job, "--limit", "16").process.returncode == 0
        mount.hangs()
        running = start(job)
        says(running, SILENT)
    else:
        running = under_way(job)
        mount.hangs()
        time.sleep(1)
    running.process.send_signal(signal.SIGINT)
    says(running, "once more: at once")
    running.process.send_signal(signal.SIGINT)
    assert running.wait() == 75, running.said
    mount.goes_on()
    ends_well(start(job), job, undisturbed, twice=CHUNKS)


def test_one_signal_ends_a_run_that_hangs_after_its_grace(mount: FaultyMount, job, undisturbed):
    running = under_way(job, "--set", "run.drain_s=3")
    mount.hangs()
    os.kill(running.process.pid, signal.SIGTERM)
    assert running.wait() == 75, running.said
    mount.goes_on()
    ends_well(start(job), job, undisturbed, twice=CHUNKS)


def test_a_run_that_is_killed_while_it_hangs_loses_nothing_that_was_on_file(mount: FaultyMount, job, undisturbed):
    running = under_way(job)
    mount.hangs()
    says(running, SILENT)
    running.kill()
    mount.goes_on()
    known = set(stored(job.parent / "out")["fingerprint"])
    asked = len(fingerprints(job))
    ends_well(start(job), job, undisturbed, twice=CHUNKS)
    assert not known.intersection(fingerprints(job)[asked:])
