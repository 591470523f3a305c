"""Submissions beside earlier ones that are not over, on a real Slurm; and tasks that end without a word of their own.

Answers are held back until a test lets them go, so a task is at work for as long as the test needs that.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from pathlib import Path

import orjson
import pytest

from s1batch.results.layout import Layout
from s1batch.results.lease import read_holder
from s1batch.slurm.folder import SubmissionFolder, submissions
from tests.slurm.cluster import Cluster
from tests.slurm.submitted import Submitted

pytestmark = pytest.mark.slow


class HeldJob(Submitted):
    """A job of which every question waits until its array is let go."""

    def __init__(self, cluster: Cluster, folder: Path, *, rows: int) -> None:
        super().__init__(cluster, folder, rows=rows, slow=lambda number: True)
        self.write_job({"kind": "replay", "function": "tests.slurm.answers:held"})
        self.held = folder / "held"
        self.held.mkdir()

    def let_go(self, name: str = "all") -> None:
        """Let an array go on, or all."""
        (self.held / name).touch()

    def begin(self, shards: int, *options: str) -> str:
        """Submit, wait until each shard has asked, and return the number of the array."""
        self.again(shards, *options)
        (array,) = self.last.read_jobs().arrays
        self.until(lambda: len(self.asked_by(array)) == shards, "a question of each task")
        return array

    def again(self, shards: int, *options: str) -> SubmissionFolder:
        """Submit, to the node on which killed processes are known to be dead: their leases are free there at once."""
        return self.submit(shards, "--sbatch", "nodelist=n1", *options, HELD=str(self.held))

    def asked_by(self, array: str) -> dict[str, list[tuple[str, int]]]:
        """Return what the tasks of an array asked."""
        return {task: asked for task, asked in self.asked().items() if task.startswith(f"{array}_") and asked}

    def kill(self, shard: int, shards: int) -> None:
        """Kill the process that runs a shard, as a lack of memory would."""
        holder = read_holder(Layout(self.results).lease(f"run-{shard}-of-{shards}"))
        assert holder is not None
        assert holder.process is not None
        os.kill(holder.process.pid, signal.SIGKILL)

    def until_ended(self, *tasks: str) -> None:
        """Wait until tasks have left the queue."""
        self.until(lambda: not self.queued().keys() & set(tasks), f"the end of {', '.join(tasks)}")

    def queued(self) -> dict[str, str]:
        """Return what is in the queue, by its name, with its state."""
        lines = self.cluster.call("squeue", "-h", "-r", "-o", "%i|%T").split()
        return dict(line.split("|") for line in lines)

    def told(self, array: str, index: int) -> dict[str, str]:
        """Return what Slurm says of a task, field by field."""
        said = self.cluster.call("scontrol", "--oneliner", "show", "job", f"{array}_{index}")
        return dict(field.split("=", 1) for field in said.split() if "=" in field)

    def shards(self) -> list[list[int]]:
        """Return the shards of each submission, the oldest first."""
        return [
            [shard for array in folder.read_spec().arrays for shard in array.shards]
            for folder in submissions(self.results)
        ]


def found_by_closing(job: HeldJob, folder: SubmissionFolder) -> dict[str, object]:
    job.until(folder.closing.exists, f"the closing job of {folder.root}")
    found = orjson.loads(folder.closing.read_bytes())
    assert isinstance(found, dict)
    return found


def test_a_lost_shard_is_sent_again_while_the_others_work(cluster: Cluster, tmp_path: Path) -> None:
    """By one of two submissions at once; a task that is requeued keeps its shard; closing jobs look one by one."""
    job = HeldJob(cluster, tmp_path / "job", rows=12)
    first = job.begin(4)
    job.kill(1, 4)
    job.until_ended(f"{first}_1")
    cluster.call("scontrol", "requeue", f"{first}_2")
    status = job.s1batch("status", "out")[1]
    assert re.search(rf"lost: process \d+ on \S+ in {first}_1 since .*: ({first}_1 failed|it has ended)", status), (
        status
    )
    assert not re.search(rf"at work: process \d+ on \S+ in {first}_1 ", status), status
    assert re.search(rf"shard 1: ended, 0 of 3 parts; {first}_1 failed; on n1; ended by SIGKILL; it was ended", status)

    code, said = job.s1batch("submit", "job.yaml", "--array", 4, "--dry-run")
    assert (code, "#SBATCH --array=1\n" in said) == (0, True), said
    code, said = job.s1batch("submit", "job.yaml", "--array", 3)
    assert code == 4, said
    assert "cuts the job into 4 shards, and 3 tasks of it may still run: submit with --array 4" in said

    words = ["submit", "job.yaml", "--array", 4, "--sbatch", "nodelist=n1"]
    both = [job.start(*words, HELD=str(job.held)) for _ in range(2)]
    ends = [process.communicate(timeout=120) for process in both]
    said = "".join(out + err for out, err in ends)
    assert sorted(process.returncode for process in both) == [0, 4], said
    assert f"3 shards (0,2-3) are at work or wait in job {first}, and are left to it" in said
    assert job.shards() == [[0, 1, 2, 3], [1]]
    earlier, later = submissions(job.results)
    (second,) = later.read_jobs().arrays
    closing = later.read_jobs().closing
    assert closing is not None
    held = cluster.call("scontrol", "-o", "show", "job", closing)
    assert all(f"afterany:{number}" in held for number in (second, *earlier.read_jobs().all)), held
    job.until(lambda: job.asked_by(second), "a question of the new task")

    job.let_go(first)
    found = found_by_closing(job, earlier)
    assert (found["ok"], found["complete"], found["incomplete_shards"]) == (True, False, [1])
    assert found["said"] == f"1 shard submitted again since, and left to job {second}"
    job.until_ended(str(earlier.read_jobs().closing))
    assert job.queued() == {f"{second}_1": "RUNNING", closing: "PENDING"}
    assert len(list((job.results / "rows").glob("part-*"))) == 9, "compacted under a task that is at work"

    job.let_go()
    assert job.closed()["complete"]
    job.check(12)
    assert len(list((job.results / "rows").iterdir())) == 1, "not compacted by the last closing job"
    assert set(job.asked()) == {*(f"{first}_{index}" for index in range(4)), f"{second}_1"}
    assert job.asked_twice() <= 2, "more than was on its way in the killed and the requeued task"
    status = job.s1batch("status", "out")[1]
    assert "lost:" not in status
    assert "at work:" not in status


def test_new_files_join_the_plan_once_no_task_is_at_work(bare: Cluster, tmp_path: Path) -> None:
    job = HeldJob(bare, tmp_path / "job", rows=6)
    job.begin(2)
    with (job.folder / "names.csv").open("a") as file:
        file.write("".join(f"slow{number}\n" for number in range(6, 10)))
    for option in ("--extend", "--retry=failed"):
        code, said = job.s1batch("submit", "job.yaml", "--array", 2, option)
        assert code == 4, said
        assert "2 shards of it may still run, and what is done here would change the plan or the rows" in said
    code, said = job.s1batch("submit", "job.yaml", "--array", 2, "--plan")
    assert code == 4, said
    assert "nothing left to submit" in said, "a plan that is there is no reason to wait"
    job.let_go()
    assert job.closed()["complete"]
    assert len(job.shards()) == 1

    code, said = job.s1batch("submit", "job.yaml", "--array", 2, "--extend", HELD=str(job.held))
    assert code == 0, said
    assert "4 chunks were added to the plan" in said
    found = job.closed()
    assert (found["ok"], found["complete"], found["rows"]) == (True, True, 10)
    job.check(10)
    assert job.asked_twice() == 0
    code, said = job.s1batch("submit", "job.yaml", "--array", 2, "--extend")
    assert (code, "nothing to submit" in said) == (0, True), said


def test_one_task_with_a_plan_that_was_made_before(bare: Cluster, tmp_path: Path) -> None:
    """No number of shards is one shard; the plan is there before the task is, and the task makes none."""
    job = HeldJob(bare, tmp_path / "job", rows=5)
    job.let_go()
    code, said = job.s1batch(
        "submit", "job.yaml", "--plan", "--sbatch", "hold", "--setup", f"ls {job.results}", HELD=str(job.held)
    )
    assert code == 0, said
    assert "planned 5 chunks in 5 parts, 5 of them to be asked" in said
    made = (job.results / "plan.parquet").stat()
    (array,) = job.last.read_jobs().arrays
    assert job.queued()[f"{array}_0"] == "PENDING"
    bare.call("scontrol", "release", array)
    found = job.closed()
    assert (found["ok"], found["complete"], found["rows"]) == (True, True, 5), found
    job.check(5)
    assert (job.results / "plan.parquet").stat().st_ino == made.st_ino
    log = job.last.log(f"{array}_0").read_text()
    assert "plan.parquet" in log
    assert "planned" not in log
    assert Counter(map(len, job.asked().values())) == {5: 1}


def test_what_is_known_of_tasks_that_never_began_is_told(cluster: Cluster, tmp_path: Path) -> None:
    job = HeldJob(cluster, tmp_path / "job", rows=4)
    job.submit(2, "--setup", "echo no such module: apptainer >&2; exit 7")
    (array,), closing = job.last.read_jobs().arrays, job.last.read_jobs().closing
    job.until_ended(f"{array}_0", f"{array}_1", str(closing))
    status = job.s1batch("status", "out")[1]
    for index in range(2):
        log = job.last.log(f"{array}_{index}")
        told = f"exit code 7; s1batch did not come to run; {log} ends with: no such module: apptainer"
        assert re.search(
            rf"shard {index}: ended, no plan yet; {array}_{index} failed; on n\d; {re.escape(told)}", status
        )

    job.submit(2, "--no-closing", "--sbatch", "hold")
    (array,) = job.last.read_jobs().arrays
    job.last.logs.rmdir()
    cluster.call("scontrol", "release", array)
    job.until_ended(f"{array}_0", f"{array}_1")
    status = job.s1batch("status", "out")[1]
    assert "shard 0: ended, no plan yet" in status, status
    assert "Slurm could not open its log; s1batch did not come to run" in status, status

    job.let_go()
    job.submit(2, HELD=str(job.held))
    assert job.closed()["complete"]
    job.check(4)


def test_the_requeue_of_the_last_task_leaves_running_and_finished_ones_alone(bare: Cluster, tmp_path: Path) -> None:
    """The last task has the array's own number: requeued by that, all of them would begin again."""
    job = HeldJob(bare, tmp_path / "job", rows=8)
    array = job.begin(4)
    numbers = {index: job.told(array, index)["JobId"] for index in range(4)}
    assert numbers.pop(3) == array, "the last task is another one here, and this test proves nothing"
    assert array not in numbers.values()
    bare.call("scancel", f"{array}_0")
    job.until_ended(f"{array}_0")
    began = {index: job.told(array, index)["StartTime"] for index in (1, 2)}

    bare.call("scancel", "--batch", "--signal=USR2", f"{array}_3")
    log = job.last.log(f"{array}_3")
    job.until(lambda: "answers on their way are waited for" in log.read_text(), "the signal")
    (job.held / f"{array}_3").touch()
    job.until(lambda: job.told(array, 3)["Restarts"] == "1", "the requeue")
    (job.held / f"{array}_3").unlink()
    assert "goes back into the queue (1 of at most 10 times)" in log.read_text()
    job.until(lambda: job.told(array, 3)["JobState"] == "RUNNING", "its next start")

    assert [job.told(array, index)["Restarts"] for index in range(4)] == ["0", "0", "0", "1"]
    assert {index: job.told(array, index)["StartTime"] for index in (1, 2)} == began
    assert {index: job.told(array, index)["JobState"] for index in (0, 1, 2)} == {
        0: "CANCELLED", 1: "RUNNING", 2: "RUNNING",
    }  # fmt: skip
    job.let_go()
    assert found_by_closing(job, job.last)["incomplete_shards"] == [0]
    assert {restarts for _, restarts in job.asked()[f"{array}_3"]} == {0, 1}
    assert {restarts for index in range(3) for _, restarts in job.asked()[f"{array}_{index}"]} == {0}
    job.again(4)
    assert job.closed()["complete"]
    job.check(8)
    assert job.asked_twice() <= 1, "more than what was on its way in the cancelled task"


def test_what_was_cancelled_before_it_began_is_free_at_once(cluster: Cluster, tmp_path: Path) -> None:
    """Slurm keeps an array of which no task has begun as one record."""
    job = HeldJob(cluster, tmp_path / "job", rows=4)
    job.let_go()
    job.submit(3, "--no-closing", "--sbatch", "hold")
    status = job.s1batch("status", "out")[1]
    (array,) = job.last.read_jobs().arrays
    assert f"{array}_0 pending (JobHeldUser); `scontrol release {array}_0` lets it go on" in status, status
    code, said = job.s1batch("cancel", "out")
    assert code == 0, said
    assert "3 shards of 3: 3 ended" in job.s1batch("status", "out")[1]
    job.again(2)
    assert job.closed()["complete"]
    job.check(4)
