"""What Slurm's programs print, as Slurm 22.05 did, is understood; a question that fails is answered with None."""

from __future__ import annotations

import pytest

from s1batch.slurm.client import SlurmError, SlurmPrograms
from tests.slurm.fake import task


@pytest.fixture
def programs(tmp_path):
    """Return a function that puts programs of that text in place of Slurm's, and returns a client of them."""

    def put(**scripts):
        for name, text in scripts.items():
            (tmp_path / name).write_text("#!/bin/sh\n" + text)
            (tmp_path / name).chmod(0o755)
        own = {"SBATCH_ARRAY_INX": "0-3", "SBATCH_ACCOUNT": "a", "SLURM_ARRAY_TASK_ID": "3", "SLURM_CONF": "/etc/s"}
        return SlurmPrograms({"PATH": f"{tmp_path}:/bin:/usr/bin", **own})

    return put


def test_a_number_is_read_with_and_without_a_cluster(programs, tmp_path):
    slurm = programs(sbatch='echo "$@" >"$(dirname "$0")/arguments"; env >"$(dirname "$0")/env"; echo "12;cluster"\n')
    assert slurm.submit(tmp_path / "a.sh", after=["10", "11"]) == "12"
    assert (tmp_path / "arguments").read_text() == f"--parsable --dependency=afterany:10:11 {tmp_path}/a.sh\n"
    variables = (tmp_path / "env").read_text()
    assert "SBATCH_ARRAY_INX" not in variables, "it would overrule the script's own array"
    assert "SBATCH_ACCOUNT=a" in variables
    assert "SLURM_ARRAY_TASK_ID" not in variables, "a job that a task submits would take that task's name for its own"
    assert "SLURM_CONF=/etc/s" in variables


def test_what_sbatch_refuses_is_told_in_its_words(programs, tmp_path):
    slurm = programs(sbatch="echo 'sbatch: error: invalid partition specified: x' >&2; exit 1\n")
    with pytest.raises(SlurmError, match="sbatch refused: sbatch: error: invalid partition specified: x"):
        slurm.submit(tmp_path / "a.sh")
    with pytest.raises(SlurmError, match="holds no job number"):
        programs(sbatch="echo Submitted\n").submit(tmp_path / "a.sh")


def test_a_machine_without_slurm_is_told(tmp_path):
    slurm = SlurmPrograms({"PATH": str(tmp_path)})
    with pytest.raises(SlurmError, match="sbatch is not installed here"):
        slurm.submit(tmp_path / "a.sh")
    assert (slurm.queue(["1"]), slurm.accounted(["1"]), slurm.remembered("1"), slurm.end_time("1")) == (None,) * 4
    assert slurm.max_array_size() is None


def test_the_queue_is_read_line_by_line(programs):
    lines = "7|N/A|PENDING|Dependency|\n7|0|RUNNING|None|n1\n7|12|PENDING|Resources|\n"
    assert programs(squeue=f"printf '{lines}'\n").queue(["7"]) == [
        task("7", None, "PENDING", reason="Dependency"),
        task("7", 0, "RUNNING", node="n1"),
        task("7", 12, "PENDING", reason="Resources"),
    ]


def test_jobs_are_asked_about_together(programs, tmp_path):
    slurm = programs(squeue='echo "$@" >>"$(dirname "$0")/asked"\n')
    assert slurm.queue([str(number) for number in range(150)]) == []
    first, second = (tmp_path / "asked").read_text().splitlines()
    assert "--jobs 0,1,2," in first
    assert "--jobs 100,101," in second
    assert slurm.queue([]) == []


def test_a_job_that_the_queue_has_forgotten_hides_no_other(programs):
    """Also where squeue refuses several numbers because of one of them."""
    refuses = 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1'
    slurm = programs(squeue=f"case \"$*\" in *'6 '*|*6,*) {refuses};; esac\necho '7|0|RUNNING|None|n1'\n")
    assert slurm.queue(["6"]) == []
    assert slurm.queue(["6", "7"]) == [task("7", 0, "RUNNING", node="n1")]
    away = "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
    slurm = programs(squeue=f'case "$*" in *6,7*) {refuses};; *) {away};; esac\n')
    assert slurm.queue(["6", "7"]) is None


def test_a_controller_that_is_away_is_no_empty_queue(programs):
    slurm = programs(squeue="echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1\n")
    assert slurm.queue(["7"]) is None
    assert slurm.queued_scripts() is None


def test_accounting_is_read_where_there_is_some(programs):
    lines = "7_0|COMPLETED|n1|0:0\n7_1|CANCELLED by 1000|n2|0:15\n7_[2-4]|PENDING|None assigned|0:0\n8|TIMEOUT|n1|0:1\n"
    assert programs(sacct=f"printf '{lines}'\n").accounted(["7", "8"]) == [
        task("7", 0, "COMPLETED", node="n1", exit_code="0:0"),
        task("7", 1, "CANCELLED", node="n2", exit_code="0:15"),
        task("8", None, "TIMEOUT", node="n1", exit_code="0:1"),
    ]
    cancelled = "9_[1,3-4%2]|CANCELLED by 1000|None assigned|0:0\n"
    assert programs(sacct=f"printf '{cancelled}'\n".replace("%", "%%")).accounted(["9"]) == [
        task("9", index, "CANCELLED", exit_code="0:0") for index in (1, 3, 4)
    ], "an array that was cancelled before any of its tasks had begun is one line"
    disabled = programs(sacct="echo 'Slurm accounting storage is disabled' >&2; exit 1\n")
    assert disabled.accounted(["7"]) is None


def test_the_controllers_memory_is_read(programs):
    line = "JobId=9 ArrayJobId=7 ArrayTaskId=0 JobState=FAILED Reason=NonZeroExitCode ExitCode=7:0 NodeList=n1"
    killed = "JobId=10 ArrayJobId=7 ArrayTaskId=4 JobState=OUT_OF_MEMORY Reason=OutOfMemory ExitCode=0:125 NodeList=n1"
    waiting = "JobId=7 ArrayJobId=7 ArrayTaskId=1-3%2 JobName=a JobState=PENDING NodeList=(null)"
    slurm = programs(scontrol=f"echo '{line}'; echo '{killed}'; echo '{waiting}'\n")
    assert slurm.remembered("7") == [
        task("7", 0, "FAILED", node="n1", exit_code="7:0"),
        task("7", 4, "OUT_OF_MEMORY", reason="OutOfMemory", node="n1", exit_code="0:125"),
    ]
    waited = (
        "JobId=9 ArrayJobId=9 ArrayTaskId=1,5-6%2 JobState=CANCELLED Reason=Dependency ExitCode=0:0 NodeList=(null)"
    )
    assert programs(scontrol=f"echo '{waited}'\n").remembered("9") == [
        task("9", index, "CANCELLED", reason="Dependency", exit_code="0:0") for index in (1, 5, 6)
    ]
    assert (
        programs(scontrol="echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1\n").remembered("7") == []
    )


def test_limits_and_ends_are_read(programs):
    text = 'case "$*" in *config*) echo "MaxArraySize    = 1001";; *) echo "EndTime=2026-01-01T00:00:00";; esac\n'
    slurm = programs(scontrol=text)
    assert slurm.max_array_size() == 1001
    assert slurm.end_time("1") is not None
    assert programs(scontrol="echo 'JobId=1 EndTime=Unknown'\n").end_time("1") is None
