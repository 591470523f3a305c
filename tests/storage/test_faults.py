"""Runs on a file system that really fails: each ends with every row once, or in one line, and the next one goes on."""

from __future__ import annotations

import errno
import os
import time

import pytest

from tests.faults.runs import CHUNKS, one_line, run, start, stored, wait_for_journal
from tests.storage.mounts import FaultyMount
from tests.storage.steps import ROWS_BYTES, complete, ends_well, fingerprints, says, under_way

pytestmark = pytest.mark.slow

WAITS = [errno.EIO, errno.ESTALE, errno.EDQUOT, errno.EROFS, errno.ETIMEDOUT]
WAITING = "waiting up to 300 s, asking nothing new"
WRITING = ["create", "write", "fsync", "rename", "unlink", "mkdir", "truncate", "utimens"]


@pytest.mark.parametrize("code", WAITS, ids=errno.errorcode.get)
def test_a_file_system_that_fails_for_a_while_is_waited_for(code, mount: FaultyMount, job, undisturbed):
    """Every call that changes something fails, those on open files too."""
    running = under_way(job)
    mount.rules({"ops": WRITING, "error": code})
    says(running, WAITING)
    before = fingerprints(job)
    time.sleep(1.0)
    assert fingerprints(job) == before, "questions were asked whose answers could not be stored"
    mount.heals()
    ends_well(running, job, undisturbed)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE], ids=errno.errorcode.get)
def test_a_file_system_that_cannot_even_be_read_is_waited_for(code, mount: FaultyMount, job, undisturbed):
    running = under_way(job)
    mount.fails(code)
    says(running, WAITING)
    time.sleep(1.0)
    mount.heals()
    ends_well(running, job, undisturbed)


@pytest.mark.parametrize("code", [errno.EIO, errno.EDQUOT, errno.EROFS], ids=errno.errorcode.get)
def test_a_file_system_that_stays_away_ends_the_run_and_the_next_one_goes_on(code, mount, job, undisturbed):
    running = under_way(job, "--set", "run.storage_patience_s=1")
    mount.rules({"ops": WRITING, "error": code})
    assert running.wait() == 1, running.said
    running.wait_for_children()
    assert os.strerror(code) in one_line(running.said)
    mount.heals()
    known = set(stored(job.parent / "out")["fingerprint"])
    before = len(fingerprints(job))
    assert run(job).process.returncode == 0
    complete(job, undisturbed)
    assert not known.intersection(fingerprints(job)[before:]), "answers on file were asked again"


@pytest.mark.parametrize("within", ["/journal/", "/rows/", ""], ids=["journal", "rows", "all"])
def test_what_a_failed_flush_loses_is_written_again(within, mount: FaultyMount, job, undisturbed):
    """Each of a few flushes fails once, and what was written since the last one is zeros; the run is killed later."""
    running = under_way(job)
    for _ in range(3):
        mount.rules({"ops": ["fsync"], "within": within, "error": errno.EIO, "times": 2, "loses": True})
        size = len(fingerprints(job))
        while len(fingerprints(job)) < min(size + 20, CHUNKS) and running.process.poll() is None:
            time.sleep(0.01)
    mount.heals()
    ends_well(running, job, undisturbed)


def test_a_rename_that_took_place_and_reports_failure_is_no_failure(mount: FaultyMount, job, undisturbed):
    """Over NFS an answer may be lost; the request that is sent again finds no such file."""
    running = under_way(job)
    mount.rules({"ops": ["rename"], "error": errno.ENOENT, "after": True})
    ends_well(running, job, undisturbed)


def test_a_first_run_on_such_a_file_system_ends_well(mount: FaultyMount, job, undisturbed):
    """The plan and everything else that is renamed."""
    mount.rules(
        {"ops": ["rename"], "error": errno.ENOENT, "after": True},
        {"ops": ["unlink"], "error": errno.ENOENT, "after": True},
    )
    ends_well(start(job), job, undisturbed)


def test_files_that_are_put_aside_because_they_are_open_disturb_nothing(mount: FaultyMount, job, undisturbed):
    running = start(job)
    mount.rules({"ops": ["unlink"], "asides": True})
    wait_for_journal(job.parent / "out", running, ROWS_BYTES)
    running.kill()
    ends_well(start(job), job, undisturbed, twice=64)


@pytest.mark.parametrize("code", [errno.EIO, errno.EDQUOT], ids=errno.errorcode.get)
def test_close_that_reports_the_error_of_a_delayed_write_is_heard(code, closing: FaultyMount, job, undisturbed):
    running = under_way(job)
    closing.rules({"ops": ["flush"], "error": code, "times": 40})
    ends_well(running, job, undisturbed)


def test_close_that_always_fails_ends_the_run_and_the_next_one_goes_on(closing: FaultyMount, job, undisturbed):
    running = under_way(job, "--set", "run.storage_patience_s=1")
    closing.rules({"ops": ["flush"], "error": errno.EDQUOT})
    assert running.wait() == 1, running.said
    assert "the disk quota is used up" in one_line(running.said)
    closing.heals()
    ends_well(start(job), job, undisturbed, twice=CHUNKS)
