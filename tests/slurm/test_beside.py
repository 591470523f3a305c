"""A submission beside earlier ones that are not over: it takes what nobody has at work, and nothing else."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

import s1batch
from s1batch.errors import LockedError
from s1batch.execution import RunOptions
from s1batch.jobfile import load_job
from s1batch.results.layout import Layout
from s1batch.results.lease import LeaseKeeper
from s1batch.results.store import SUBMIT
from s1batch.slurm.cancelling import cancel
from s1batch.slurm.client import SlurmError
from s1batch.slurm.closing import close_submission
from s1batch.slurm.earlier import earlier_at_work
from s1batch.slurm.folder import ShardNote, submissions
from s1batch.slurm.readying import make_ready
from s1batch.slurm.spec import SubmittedJobs
from s1batch.slurm.state import submission_states
from s1batch.slurm.state_report import exit_words, submission_lines
from s1batch.slurm.submitting import SubmitOptions, beside, submit
from s1batch.stopping import Stop
from s1batch.subset import Shard
from tests.slurm.fake import FakeSlurm, task
from tests.slurm.prepared import prepared, submitted

EVERYTHING_WAITS = [task("100", index, "PENDING") for index in range(8)] + [task("101", None, "PENDING")]


@pytest.fixture
def slurm() -> FakeSlurm:
    return FakeSlurm()


def shards_of(folder) -> list[int]:
    return [shard for array in folder.read_spec().arrays for shard in array.shards]


def standings(job, slurm) -> list[list[str]]:
    return [[shard.standing for shard in state.shards] for state in submission_states(job.parent / "out", slurm)]


def test_a_lost_shard_is_submitted_while_the_others_go_on(job, slurm):
    submitted(job, slurm)
    slurm.in_queue = [each for each in EVERYTHING_WAITS if each.index not in (3, 4)]
    slurm.in_memory = [task("100", 3, "CANCELLED"), task("100", 4, "FAILED")]
    said: list[str] = []
    submit(prepared(job, slurm), slurm, said.append)
    *_, again = submissions(job.parent / "out")
    assert shards_of(again) == [3, 4]
    assert said == [
        "6 shards (0-2,5-7) are at work or wait in job 100, and are left to it",
        "array 102: 2 shards of 8",
        "job 103: verifies when they and jobs 100, 101 have ended",
    ]


def test_the_closing_job_waits_for_earlier_arrays_and_their_closing_jobs(job, slurm):
    """So the last one looks at everything, and no two of them compact or verify at once."""
    submitted(job, slurm)
    slurm.in_queue = EVERYTHING_WAITS[1:]
    slurm.in_memory = [task("100", 0, "FAILED")]
    submitted(job, slurm)
    assert slurm.after["103"] == ("102", "100", "101")
    slurm.in_queue = [task("101", None, "RUNNING")]
    slurm.in_memory = [task("100", 0, "FAILED"), task("102", 0, "FAILED")]
    slurm.in_memory += [task("100", index, "FAILED") for index in range(1, 8)]
    submitted(job, slurm)
    assert slurm.after["105"] == ("104", "101"), "the arrays are over, a closing job is not"


def test_where_nothing_is_left_it_is_refused_with_who_has_it(job, slurm):
    submitted(job, slurm)
    slurm.in_queue = EVERYTHING_WAITS
    with pytest.raises(LockedError, match=r"nothing left to submit: 8 shards \(0-7\) are at work or wait in job 100"):
        submitted(job, slurm)
    assert len(list(submissions(job.parent / "out"))) == 1
    assert len(slurm.scripts) == 2


def test_what_two_earlier_submissions_have_is_left_to_each_of_them(job, slurm):
    submitted(job, slurm)
    slurm.in_queue = EVERYTHING_WAITS[:6]
    slurm.in_memory = [task("100", index, "FAILED") for index in (6, 7)]
    submitted(job, slurm, closing=False)
    slurm.in_queue = [*EVERYTHING_WAITS[1:6], task("102", 6, "RUNNING")]
    slurm.in_memory = [*slurm.in_memory, task("100", 0, "FAILED"), task("102", 7, "FAILED")]
    said: list[str] = []
    submit(prepared(job, slurm), slurm, said.append)
    assert said[:2] == [
        "5 shards (1-5) are at work or wait in job 100, and are left to it",
        "1 shard (6) is at work or waits in job 102, and is left to it",
    ]
    *_, again = submissions(job.parent / "out")
    assert shards_of(again) == [0, 7]


@pytest.mark.parametrize("state", ["PENDING", "REQUEUED", "REQUEUE_HOLD", "COMPLETING", "SUSPENDED"])
def test_a_task_that_goes_back_into_the_queue_keeps_its_shard(job, slurm, state):
    submitted(job, slurm)
    slurm.in_queue = [task("100", 2, state)]
    slurm.in_memory = [task("100", index, "FAILED") for index in range(8)]
    folder = submitted(job, slurm)
    assert shards_of(folder) == [0, 1, 3, 4, 5, 6, 7]


def test_a_task_that_nobody_knows_yet_keeps_its_shard_for_a_while(job, slurm):
    first = submitted(job, slurm)
    slurm.in_memory = [task("100", index, "FAILED") for index in range(1, 8)]
    assert shards_of(submitted(job, slurm)) == list(range(1, 8))
    first.write_jobs(SubmittedJobs(arrays=("100",), closing="101", at=time.time() - 200))
    slurm.in_memory += [task("102", index, "FAILED") for index in range(1, 8)]
    assert shards_of(submitted(job, slurm)) == list(range(8))


def test_another_number_of_shards_has_to_wait_for_all_of_them(job, slurm):
    submitted(job, slurm)
    slurm.in_queue = [task("100", 0, "RUNNING")]
    slurm.in_memory = [task("100", index, "FAILED") for index in range(1, 8)]
    with pytest.raises(LockedError, match=r"\(job 100\) cuts the job into 8 shards, and 1 task of it may still run: "):
        submitted(job, slurm, shards=4)
    slurm.in_queue, slurm.in_memory = [], [*slurm.in_memory, task("100", 0, "FAILED")]
    assert shards_of(submitted(job, slurm, shards=4)) == [0, 1, 2, 3]
    assert standings(job, slurm)[0] == ["again"] * 8


def test_a_plan_that_is_there_may_be_asked_for_beside_others_but_not_be_changed(job, slurm):
    s1batch.run(job, options=RunOptions(shard=Shard(0, 8)))
    submitted(job, slurm)
    slurm.in_queue = EVERYTHING_WAITS
    said: list[str] = []
    make_ready(load_job(job), SubmitOptions(shards=8, plan=True), slurm, said.append, Stop())
    assert said == []
    for changes in ({"extend": True}, {"retry": ("failed",)}):
        with pytest.raises(LockedError, match=r"\(job 100\) is not over yet: 7 shards of it may still run"):
            make_ready(load_job(job), SubmitOptions(shards=8, **changes), slurm, said.append, Stop())


def test_where_slurm_cannot_be_asked_nothing_is_submitted_twice(job, slurm):
    submitted(job, slurm)
    slurm.reachable = False
    with pytest.raises(SlurmError, match="squeue cannot be asked"):
        submitted(job, slurm)
    assert len(list(submissions(job.parent / "out"))) == 1


def test_who_submits_at_the_same_moment_is_refused(job, slurm):
    keeper = LeaseKeeper(Layout(job.parent / "out").leases)
    with keeper, keeper.lease(SUBMIT), pytest.raises(LockedError, match="submit is held by"):
        submitted(job, slurm)
    assert slurm.scripts == {}


def test_what_was_prepared_before_another_one_submitted_leaves_out_its_shards(job, slurm):
    """Shards are chosen for good only where nobody else can submit."""
    late = prepared(job, slurm)
    assert late.shards == tuple(range(8))
    submitted(job, slurm)
    slurm.in_queue = EVERYTHING_WAITS[:5]
    slurm.in_memory = [task("100", index, "FAILED") for index in (5, 6, 7)]
    submit(late, slurm, lambda line: None)
    assert shards_of(list(submissions(job.parent / "out"))[-1]) == [5, 6, 7]
    assert "#SBATCH --array=5-7\n" in slurm.scripts["102"].read_text()


def test_the_arrays_of_what_is_left_share_the_tasks_that_may_run(job, slurm):
    slurm.array_size = 4
    made = prepared(job, slurm, parallel=4)
    assert [array.parallel for array in made.spec.arrays] == [2, 2]
    left = made.without({0, 1, 2, 3, 5})
    assert [(array.offset, array.indices, array.parallel) for array in left.spec.arrays] == [(4, (0, 2, 3), 4)]
    assert made.without(range(8)) is None


def test_a_submission_that_was_killed_before_it_noted_its_jobs_keeps_what_it_has_in_the_queue(job, slurm):
    slurm.array_size = 5
    folder = submitted(job, slurm)
    folder.jobs.unlink()
    slurm.in_queue = [task("100", 0, "RUNNING"), task("101", 2, "PENDING"), task("102", None, "PENDING")]
    (earlier,) = earlier_at_work(job.parent / "out", slurm)
    assert (earlier.shards, earlier.arrays, earlier.closing) == ((0, 7), ("100", "101"), "102")
    assert shards_of(submitted(job, slurm)) == [1, 2, 3, 4, 5, 6]
    assert cancel(job.parent / "out", slurm, lambda line: None)
    assert slurm.cancelled == ["100", "101", "102"]


def test_a_dry_run_says_what_is_left_to_others(job, slurm):
    submitted(job, slurm)
    slurm.in_queue = EVERYTHING_WAITS[:7]
    slurm.in_memory = [task("100", 7, "FAILED")]
    said: list[str] = []
    made = beside(prepared(job, slurm), earlier_at_work(job.parent / "out", slurm), said.append)
    assert made.shards == (7,)
    assert said == ["7 shards (0-6) are at work or wait in job 100, and are left to it"]
    assert len(list(submissions(job.parent / "out"))) == 1


def test_status_tells_of_a_shard_once_where_it_is_now(job, slurm):
    first = submitted(job, slurm)
    slurm.in_queue = EVERYTHING_WAITS[:6]
    slurm.in_memory = [task("100", 6, "FAILED"), task("100", 7, "FAILED")]
    submitted(job, slurm)
    slurm.in_queue += [task("102", 6, "RUNNING"), task("102", 7, "PENDING")]
    assert standings(job, slurm) == [["waiting"] * 6 + ["again"] * 2, ["running", "waiting"]]
    before, _ = submission_states(job.parent / "out", slurm)
    lines = submission_lines(before, first)
    assert lines[0].endswith("8 shards of 8: 6 waiting, 2 submitted again")
    assert not any("shard 7" in line for line in lines)


def test_the_closing_job_of_the_earlier_one_leaves_open_shards_to_the_later(job, slurm):
    first = submitted(job, slurm)
    for shard in range(7):
        s1batch.run(job, options=RunOptions(shard=Shard(shard, 8)))
    slurm.in_memory = [task("100", index, "FAILED") for index in range(8)]
    later = submitted(job, slurm)
    slurm.in_queue = [task("102", 7, "RUNNING")]
    assert close_submission(first, slurm, lambda line: None, sleep=_never) == 1
    found = first.read_closing()
    assert (found["ok"], found["complete"], found["incomplete_shards"]) == (True, False, [7])
    assert found["said"] == "1 shard submitted again since, and left to job 102"
    assert len(list(Layout(job.parent / "out").rows.iterdir())) == 7, "compacted under the other one's tasks"
    s1batch.run(job, options=RunOptions(shard=Shard(7, 8)))
    slurm.in_queue = []
    assert close_submission(later, slurm, lambda line: None, sleep=_never) == 0
    assert len(list(Layout(job.parent / "out").rows.iterdir())) == 1


def test_a_closing_job_does_not_compact_under_a_task_that_is_at_work(job, slurm):
    """The last part is there, and its task of another submission has not ended yet."""
    folder = submitted(job, slurm)
    for shard in range(8):
        s1batch.run(job, options=RunOptions(shard=Shard(shard, 8)))
    said: list[str] = []
    with LeaseKeeper(Layout(job.parent / "out").leases) as keeper, keeper.lease("run-7-of-8"):
        assert close_submission(folder, slurm, said.append, sleep=_never) == 0
    assert any(line.startswith("not compacted: run-7-of-8 is held by") for line in said)
    assert len(list(Layout(job.parent / "out").rows.iterdir())) == 8


def test_a_closing_job_names_shards_that_an_earlier_submission_lost_meanwhile(job, slurm):
    submitted(job, slurm)
    for shard in range(6):
        s1batch.run(job, options=RunOptions(shard=Shard(shard, 8)))
    slurm.in_queue = [task("100", 7, "RUNNING")]
    slurm.in_memory = [task("100", 6, "FAILED")]
    later = submitted(job, slurm)
    assert shards_of(later) == [6]
    s1batch.run(job, options=RunOptions(shard=Shard(6, 8)))
    slurm.in_queue, slurm.in_memory = [], [*slurm.in_memory, task("100", 7, "FAILED")]
    assert close_submission(later, slurm, lambda line: None, sleep=_never) == 1
    assert later.read_closing()["incomplete_shards"] == [7]
    assert later.read_closing()["said"] == "1 shard not complete: submit again to go on"


# ------------------------------------------------------------------------------------- tasks that end without a word


def lines_of(job, slurm) -> list[str]:
    (state,) = submission_states(job.parent / "out", slurm)
    return submission_lines(state, next(submissions(job.parent / "out")))


def test_what_slurm_and_the_log_know_of_a_task_that_said_nothing_is_told(job, slurm):
    folder = submitted(job, slurm)
    log = folder.log("100_1")
    log.write_text("loading\nmodule: command \x1b[31mnot found\n\n")
    slurm.in_memory = [
        task("100", 0, "FAILED", reason="JobLaunchFailure", exit_code="0:53"),
        task("100", 1, "FAILED", exit_code="127:0", node="n2"),
        task("100", 2, "OUT_OF_MEMORY", reason="OutOfMemory", exit_code="0:125"),
        task("100", 3, "FAILED", exit_code="0:9", node="n1"),
    ]
    folder.write_note(ShardNote(shard=3, task="100_3", restarts=0, node="n1", began=1.0))
    lines = lines_of(job, slurm)
    assert (
        "  shard 0: ended, no plan yet; 100_0 failed; Slurm could not open its log; s1batch did not come to run; "
        f"{folder.log('100_0')} is not there"
    ) in lines
    assert (
        "  shard 1: ended, no plan yet; 100_1 failed; on n2; exit code 127; s1batch did not come to run; "
        f"{log} ends with: module: command ?[31mnot found"
    ) in lines
    assert any("100_2 out_of_memory (OutOfMemory); ended by signal 125" in line for line in lines)
    assert any("100_3 failed; on n1; ended by SIGKILL; it was ended before it could say why; " in x for x in lines)


def test_a_task_that_is_held_says_how_it_goes_on_and_one_that_was_interrupted_does_not(job, slurm):
    folder = submitted(job, slurm)
    slurm.in_queue = [task("100", 0, "PENDING", reason="JobHeldUser")]
    slurm.in_memory = [task("100", index, "CANCELLED", reason="Dependency", node="n1") for index in (1, 2)]
    said = "interrupted; the answers so far are in out; run the same command to go on"
    note = ShardNote(shard=1, task="100_1", restarts=0, node="n1", began=1.0, ended=2.0, exit_code=75, said=said)
    folder.write_note(note)
    lines = lines_of(job, slurm)
    assert (
        "  shard 0: waiting, no plan yet; 100_0 pending (JobHeldUser); `scontrol release 100_0` lets it go on" in lines
    )
    assert "  shard 1: ended, no plan yet; 100_1 cancelled; on n1; exit code 75: interrupted" in lines
    assert "  shard 2: ended, no plan yet; 100_2 cancelled; on n1" in lines, "it had not begun"


def test_the_note_of_a_start_that_was_followed_by_another_is_not_taken_for_its_end(job, slurm):
    folder = submitted(job, slurm)
    note = ShardNote(shard=0, task="100_0", restarts=0, node="n1", began=1.0, ended=2.0, exit_code=75)
    folder.write_note(replace(note, requeued=True, said="the time limit came; back into the queue"))
    slurm.in_memory = [task("100", 0, "FAILED", exit_code="0:9")]
    (line,) = (line for line in lines_of(job, slurm) if "shard 0" in line)
    assert "ended by SIGKILL" in line
    assert "back into the queue" not in line


def test_the_closing_job_keeps_what_is_known_of_what_is_missing(job, slurm):
    folder = submitted(job, slurm)
    for shard in range(7):
        s1batch.run(job, options=RunOptions(shard=Shard(shard, 8)))
    slurm.in_memory = [task("100", 7, "NODE_FAIL", node="n3", exit_code="0:0")]
    folder.log("100_7").touch()
    close_submission(folder, slurm, lambda line: None, sleep=_never)
    (line,) = folder.read_closing()["shards"]
    assert line.startswith("shard 7: ended, 0 of 1 part; 100_7 node_fail; on n3; s1batch did not come to run; ")
    assert line.endswith("/100_7.log is empty")


@pytest.mark.parametrize(
    ("code", "words"),
    [("0:0", ""), ("", ""), ("3:0", "exit code 3"), ("0:9", "ended by SIGKILL"), ("0:200", "ended by signal 200")],
)
def test_exit_codes_are_put_into_words(code, words):
    assert exit_words(code) == words


def _never(seconds: float) -> None:
    raise AssertionError("there was nothing to wait for")
