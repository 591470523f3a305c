"""Submissions against a Slurm that tests script: what is submitted, what is refused, what is known afterwards."""

from __future__ import annotations

import time

import orjson
import pytest

import s1batch
from s1batch.errors import LockedError, ResultsError, UsageError
from s1batch.execution import RunOptions
from s1batch.slurm.cancelling import cancel
from s1batch.slurm.client import SlurmError
from s1batch.slurm.closing import close_submission
from s1batch.slurm.folder import ShardNote, SubmissionFolder
from s1batch.slurm.progress import parts_done
from s1batch.slurm.spec import SubmissionSpec, SubmittedJobs
from s1batch.slurm.state import UNKNOWN_S, submission_state, submission_states
from s1batch.slurm.state_report import submission_dict, submission_lines
from s1batch.slurm.submitting import dry_run_lines
from s1batch.subset import Shard
from tests.slurm.fake import FakeSlurm, task
from tests.slurm.prepared import prepared, submitted
from tests.slurm.specs import spec


def run_shards(job, *shards, count=8):
    for shard in shards:
        s1batch.run(job, options=RunOptions(shard=Shard(shard, count)))


def test_a_specification_comes_back_as_it_was():
    made = spec(sbatch={"mem": "8G", "exclusive": None}, overrides=("a.b=c",), accept="refused")
    assert SubmissionSpec.from_plain(orjson.loads(orjson.dumps(made.plain())), "here") == made
    with pytest.raises(ResultsError, match="format 2 is not known"):
        SubmissionSpec.from_plain({**made.plain(), "format": 2}, "here")


def test_arrays_are_submitted_and_a_closing_job_behind_them(job):
    slurm = FakeSlurm()
    slurm.array_size = 5
    folder = submitted(job, slurm)
    assert folder.read_jobs().arrays == ("100", "101")
    assert folder.read_jobs().closing == "102"
    assert slurm.after == {"100": (), "101": (), "102": ("100", "101")}
    assert [path.name for path in slurm.scripts.values()] == ["array-0.sh", "array-1.sh", "close.sh"]
    assert "shard=$((SLURM_ARRAY_TASK_ID + 5))" in folder.array_script(1).read_text()
    assert folder.read_spec().job_name == "two-words"


def test_only_incomplete_shards_are_submitted(job):
    run_shards(job, 0, 3, 4)
    said: list[str] = []
    slurm = FakeSlurm()
    made = prepared(job, slurm, said=said)
    assert [array.shards for array in made.spec.arrays] == [(1, 2, 5, 6, 7)]
    assert "#SBATCH --array=1-2,5-7" in made.arrays[0]
    assert said == ["5 shards of 8 to do: the others are complete, or hold no part"]


def test_another_number_of_shards_submits_what_is_left(job):
    run_shards(job, 0, 1, 2, 3, 4, 5)
    assert [array.shards for array in prepared(job, FakeSlurm(), shards=3).spec.arrays] == [(0, 1)], "parts 6 and 7"


def test_a_complete_run_submits_nothing(job):
    run_shards(job, *range(8))
    assert prepared(job, FakeSlurm()) is None


def test_a_dry_run_writes_nothing(job):
    slurm = FakeSlurm()
    lines = dry_run_lines(prepared(job, slurm))
    assert lines[0].startswith("# sbatch --parsable ")
    assert lines[1].startswith("#!/bin/bash\n")
    assert not (job.parent / "out").exists()
    assert slurm.scripts == {}


def test_a_submission_that_slurm_forgot_does_not_lock_for_ever(job):
    slurm = FakeSlurm()
    folder = submitted(job, slurm)
    with pytest.raises(LockedError):
        submitted(job, slurm)
    folder.write_jobs(SubmittedJobs(arrays=("100",), closing="101", at=time.time() - UNKNOWN_S - 1))
    assert submitted(job, slurm).root != folder.root


def test_a_refused_script_takes_the_others_back(job):
    slurm = FakeSlurm()
    slurm.refuses_from = 1
    slurm.array_size = 5
    with pytest.raises(SlurmError, match="no more for you"):
        submitted(job, slurm)
    assert slurm.cancelled == ["100"]


def test_a_wrong_outcome_and_a_line_break_in_a_path_are_refused(job):
    with pytest.raises(UsageError, match="'fine' is no outcome"):
        prepared(job, FakeSlurm(), accept="refused,fine")
    with pytest.raises(UsageError, match="line break in a path"):
        prepared(job, FakeSlurm(), output=job.parent / "a\nrm -rf b")


def test_too_short_a_time_limit_is_refused(job):
    with pytest.raises(UsageError, match="told to stop 180 s before their limit"):
        prepared(job, FakeSlurm(), sbatch={"time": "3:00"})


def test_part_files_go_over_what_slurm_says(job):
    slurm = FakeSlurm()
    folder = submitted(job, slurm)
    run_shards(job, 0, 1)
    slurm.in_queue = [task("100", 1, "RUNNING", node="n1"), task("100", 2, "PENDING", reason="Resources")]
    slurm.in_queue += [task("100", index, "PENDING") for index in (3, 4)]
    slurm.in_accounting = [task("100", 0, "NODE_FAIL"), task("100", 5, "TIMEOUT", node="n2")]
    slurm.in_memory = [task("100", 6, "FAILED")]
    late = time.time() + UNKNOWN_S + 1
    state = submission_state(folder, parts_done(job.parent / "out"), slurm, lambda: late)
    standings = [shard.standing for shard in state.shards]
    assert standings == ["complete", "complete", "waiting", "waiting", "waiting", "ended", "ended", "gone"]
    slurm.in_queue = []
    state = submission_state(folder, parts_done(job.parent / "out"), slurm, lambda: late)
    standings = [shard.standing for shard in state.shards]
    assert standings == ["complete", "complete", "gone", "gone", "gone", "ended", "ended", "gone"]
    lines = submission_lines(state, folder)
    assert "8 shards of 8: 2 complete, 2 ended, 4 gone" in lines[0]
    log = f"{folder.logs}/100_5.log is not there"
    assert f"  shard 5: ended, 0 of 1 part; 100_5 timeout; on n2; s1batch did not come to run; {log}" in lines
    assert orjson.loads(orjson.dumps(submission_dict(state, folder)))["live"] is False


def test_without_accounting_a_task_speaks_for_itself(job):
    slurm = FakeSlurm()
    folder = submitted(job, slurm)
    note = ShardNote(shard=3, task="100_3", restarts=1, node="n1", began=1.0, ended=2.0, exit_code=1, said="no disk")
    folder.write_note(note)
    folder.write_jobs(SubmittedJobs(arrays=("100",), at=0.0))
    (state,) = submission_states(job.parent / "out", slurm)
    assert [shard.standing for shard in state.shards] == ["gone"] * 3 + ["ended"] + ["gone"] * 4
    assert "  shard 3: ended, no plan yet; started again 1 time; exit code 1: no disk" in submission_lines(
        state, folder
    )


def test_a_slurm_that_is_away_leaves_shards_unknown(job):
    slurm = FakeSlurm()
    folder = submitted(job, slurm)
    slurm.reachable = False
    (state,) = submission_states(job.parent / "out", slurm)
    assert {shard.standing for shard in state.shards} == {"unknown"}
    assert "  Slurm's queue cannot be asked now; only the files are known" in submission_lines(state, folder)


def test_the_closing_job_proves_a_complete_run(job):
    slurm = FakeSlurm()
    folder = submitted(job, slurm)
    run_shards(job, *range(8))
    said: list[str] = []
    assert close_submission(folder, slurm, said.append, sleep=_never) == 0
    assert folder.read_closing()["rows"] == 16
    assert "compacted: 8 files of rows before, 1 now" in said
    assert said[-1].startswith("clean: every planned chunk has exactly one row")


def test_the_closing_job_names_what_is_missing_and_waits_for_stragglers_within_bounds(job):
    slurm = FakeSlurm()
    folder = submitted(job, slurm)
    run_shards(job, *range(7))
    slurm.in_queue = [task("100", 7, "RUNNING")]
    waited: list[float] = []
    assert close_submission(folder, slurm, lambda line: None, patience_s=60, sleep=waited.append) == 1
    assert sum(waited) == 60
    found = folder.read_closing()
    assert (found["incomplete_shards"], found["complete"]) == ([7], False)
    assert found["said"] == "1 shard not complete: submit again to go on"
    assert found["shards"] == ["shard 7: running, 0 of 1 part; 100_7 running"]


def test_the_closing_job_of_tasks_that_never_planned_says_so(job):
    slurm = FakeSlurm()
    folder = submitted(job, slurm)
    folder.write_jobs(SubmittedJobs(arrays=("100",), closing="101", at=0.0))
    assert close_submission(folder, slurm, lambda line: None, sleep=_never) == 1
    assert folder.read_closing()["said"] == "no task came as far as a plan; the logs say why"


def test_cancel_ends_what_is_in_the_queue_and_nothing_else(job):
    slurm = FakeSlurm()
    submitted(job, slurm)
    slurm.in_queue = [task("100", 0, "RUNNING"), task("101", None, "PENDING"), task("7", None, "RUNNING")]
    said: list[str] = []
    assert cancel(job.parent / "out", slurm, said.append)
    assert slurm.cancelled == ["100", "101"]
    assert said == ["cancelled 100, 101; answers so far are kept, and submitting again goes on from them"]
    assert cancel(job.parent / "out", slurm, said.append)
    assert said[-1].endswith("nothing in the queue")
    with pytest.raises(ResultsError, match="nothing was submitted"):
        cancel(job.parent, slurm, said.append)


def test_a_damaged_note_is_no_note(tmp_path):
    folder = SubmissionFolder(tmp_path)
    folder.note(0).parent.mkdir()
    folder.note(0).write_text("{")
    assert folder.read_note(0) is None


def _never(seconds):
    raise AssertionError("there was nothing to wait for")
