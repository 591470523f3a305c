"""Arrays on a real Slurm whose results folder turns full or read-only for a minute: they wait, and lose nothing.

A minute is longer than a lease lives without a sign of life. Both kinds of trouble begin first and go on at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.slurm.small_disk import SmallDisk
from tests.slurm.submitted import Submitted

pytestmark = pytest.mark.slow

MINUTE_S = 65.0
ROWS = 160


class Troubled:
    """An array of two shards, each with four questions of a second on their way, on a disk of its own."""

    def __init__(self, cluster, folder, disk: SmallDisk) -> None:
        self.disk = disk
        self.job = Submitted(cluster, folder, rows=ROWS, slow=lambda number: True)
        self.job.submit(2, "--set", "run.parts_in_flight=4", ANSWER_S="1")
        rows = self.job.results / "rows"
        self.job.until(lambda: len(list(rows.glob("*"))) >= 8, "rows")
        self.since = time.monotonic()

    def lasts(self) -> None:
        """Let the trouble last, and make sure that nothing is asked that cannot be stored."""
        time.sleep(max(0.0, self.since + MINUTE_S / 2 - time.monotonic()))
        before = self.job.asked()
        time.sleep(max(0.0, self.since + MINUTE_S - time.monotonic()))
        assert self.job.asked() == before, "asked for what could not be stored"
        assert sum(map(len, before.values())) < ROWS, "the trouble came too late"

    def ends_well(self) -> None:
        """Make sure that the tasks went on by themselves, and every row is there once."""
        found = self.job.closed()
        assert (found["ok"], found["complete"], found["rows"]) == (True, True, ROWS), found
        self.job.check(ROWS)
        assert self.job.asked_twice() == 0, "an answer was lost"
        assert [self.job.restarts(index) for index in range(2)] == [0, 0]
        notes = [self.job.last.read_note(index) for index in range(2)]
        assert [note and note.exit_code for note in notes] == [0, 0]


@pytest.fixture(scope="module")
def full(bare, tmp_path_factory) -> Iterator[Troubled]:
    """A disk that has no space left."""
    folder = tmp_path_factory.mktemp("full") / "job"
    with SmallDisk(folder / "out") as disk:
        troubled = Troubled(bare, folder, disk)
        disk.fill()
        yield troubled
        bare.call("scancel", "--user", "root")


@pytest.fixture(scope="module")
def read_only(bare, tmp_path_factory, full) -> Iterator[Troubled]:
    """A disk on which no name can be made, changed or touched."""
    folder = tmp_path_factory.mktemp("read-only") / "job"
    with SmallDisk(folder / "out") as disk:
        troubled = Troubled(bare, folder, disk)
        disk.forbid_writing()
        yield troubled
        bare.call("scancel", "--user", "root")


def test_an_array_goes_on_when_its_full_disk_has_space_again(full, read_only):
    full.lasts()
    full.disk.free()
    full.ends_well()


def test_an_array_goes_on_when_its_read_only_disk_can_be_written_again(read_only):
    read_only.lasts()
    read_only.disk.allow_writing()
    read_only.ends_well()
    log = (read_only.job.last.logs / f"{read_only.job.last.read_jobs().arrays[0]}_0.log").read_text()
    assert "waiting up to 300 s, asking nothing new" in log
    assert "the file system is read-only" in log
    assert "the results folder can be written again after" in log


def test_a_disk_that_stays_full_ends_the_task_and_the_next_submission_goes_on(bare, tmp_path):
    with SmallDisk(tmp_path / "job/out") as disk:
        job = Submitted(bare, tmp_path / "job", rows=12, slow=lambda number: True)
        job.submit(2, "--no-closing", "--set", "run.storage_patience_s=3", ANSWER_S="4")
        job.until(lambda: len(list((job.results / "rows").glob("*"))) >= 2, "rows")
        disk.fill()
        array = job.last.read_jobs().arrays[0]
        job.until(lambda: not bare.call("squeue", "-h", "-j", array).strip(), "the end of the array")
        said = bare.call("scontrol", "--oneliner", "show", "job", f"{array}_0")
        assert "ExitCode=1:0" in said, said
        disk.free()
        job.submit(2, ANSWER_S="0.01")
        assert job.closed()["complete"]
        job.check(12)
        assert job.asked_twice() <= 2, "no more than was on its way"
