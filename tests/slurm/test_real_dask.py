"""Dask workers on a real Slurm, as jobs and over an allocation: whatever ends them, each row is there exactly once."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.archives import write_archive
from tests.slurm.cluster import Cluster
from tests.slurm.submitted import ROOT, Submitted
from tests.slurm.test_real_engines import EngineJob

pytestmark = pytest.mark.slow

IN_FLIGHT = 4
"""Most questions that one worker has in flight."""

WORKERS = 2


class Elastic(Submitted):
    """A job whose run has workers on a cluster; its questions say which job asked them, and where."""

    def __init__(self, cluster: Cluster, folder: Path, *, rows: int, site: str = "", answer_s: str = "0.5") -> None:
        super().__init__(cluster, folder, rows=rows, slow=lambda number: True)
        self.write_job({"kind": "replay", "function": "tests.slurm.answers:by_worker"})
        text = (folder / "job.yaml").read_text()
        (folder / "job.yaml").write_text(text.replace("part_chunks: 1", "part_chunks: 4"))
        self.site = folder / "site.toml"
        self.site.write_text(f'[slurm.workers]\ninterface = "lo"\n{site}\n')
        self.variables = {"S1BATCH_SITE": str(self.site), "ANSWER_S": answer_s}

    def begin(self, *options: object) -> subprocess.Popen[str]:
        """Start the run."""
        return self.start("run", "job.yaml", *options, **self.variables)

    def finish(self, run: subprocess.Popen[str], timeout_s: float = 150) -> str:
        """Wait for the end of a run that must succeed; return what it said."""
        try:
            out, err = run.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            run.kill()
            out, err = run.communicate()
            raise AssertionError(f"no end:\n{out}{err}\n{self.cluster.call('squeue')}\n{self.worker_logs()}") from None
        assert run.returncode == 0, f"{out}{err}\n{self.worker_logs()}"
        return out + err

    def worker_logs(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in self.results.glob("slurm/workers-*/**/*.log"))

    def noted(self) -> list[tuple[str, str, str]]:
        """Return job, question and node of everything that was asked."""
        return [
            (path.name, *line.split())  # type: ignore[misc]
            for path in (self.folder / "asked").iterdir()
            for line in path.read_text().splitlines()
        ]

    def again(self) -> int:
        """How many questions were asked more than once."""
        return sum(number > 1 for number in Counter(question for _, question, _ in self.noted()).values())

    def queue(self) -> str:
        """Jobs that wait or run; not those that have ended and are being tidied up."""
        states = "PENDING,RUNNING,CONFIGURING,SUSPENDED"
        return self.cluster.call("squeue", "-h", "-t", states, "-o", "%i %T %j").strip()


@pytest.fixture
def job(bare, tmp_path) -> Callable[..., Elastic]:
    return lambda **fields: Elastic(bare, tmp_path / "job", **fields)


def test_a_run_with_workers_as_jobs_ends_with_an_empty_queue(job):
    made = job(rows=160, answer_s="0.5")
    said = made.finish(made.begin("--scheduler", "slurm", "--workers", 2))
    made.check(160)
    assert made.again() == 0
    assert len({name for name, _, _ in made.noted()}) == 2, said
    assert made.queue() == ""
    script = next(made.results.glob("slurm/workers-*/*.sh")).read_text()
    assert "#SBATCH --no-requeue" in script
    assert f"exec {sys.executable} -m distributed.cli.dask_worker tcp://127.0.0.1:" in script


def test_a_worker_job_that_is_cancelled_is_replaced(job):
    made = job(rows=160, answer_s="1.5")
    run = made.begin("--scheduler", "slurm", "--workers", 2)
    made.until(lambda: len({name for name, _, _ in made.noted()}) == 2, "both workers")
    victim = made.noted()[0][0]
    made.cluster.call("scancel", victim)
    made.finish(run, 200)
    made.check(160)
    assert len({name for name, _, _ in made.noted()}) == 3, made.worker_logs()
    assert made.again() <= IN_FLIGHT
    print(f"\n{made.again()} questions were asked again after scancel of one of two workers")
    assert made.queue() == ""


def test_workers_at_the_end_of_their_life_hand_over_without_asking_twice(job):
    lifetime_s, stagger_s = 12, 4
    rows = 2 * WORKERS * IN_FLIGHT * (lifetime_s + stagger_s)  # seconds of work: twice what the first workers live
    made = job(rows=rows, site=f"lifetime_s = {lifetime_s}\nstagger_s = {stagger_s}", answer_s="1")
    made.finish(made.begin("--scheduler", "slurm", "--workers", WORKERS), 250)
    made.check(rows)
    assert len({name for name, _, _ in made.noted()}) > 2, "no worker left"
    assert made.again() == 0
    assert made.queue() == ""


def test_workers_have_left_before_slurm_ends_their_jobs(job):
    """Without a lifetime of the site's: they know the limit of the jobs that they are in."""
    rows = 60 * WORKERS * IN_FLIGHT  # of 1.5 s each: 90 s of work, and jobs of one minute
    made = job(rows=rows, site='stagger_s = 3\n[slurm.workers.sbatch]\ntime = "1"', answer_s="1.5")
    made.finish(made.begin("--scheduler", "slurm", "--workers", WORKERS), 340)
    made.check(rows)
    jobs = {name for name, _, _ in made.noted()}
    assert len(jobs) > 2, "no worker left"
    states = [made.cluster.call("scontrol", "--oneliner", "show", "job", name) for name in jobs]
    assert not [state for state in states if "JobState=TIMEOUT" in state]
    assert made.again() == 0


def test_a_killed_client_leaves_no_jobs_and_the_next_run_finishes(job):
    made = job(rows=80, answer_s="1")
    run = made.begin("--scheduler", "slurm", "--workers", 2)
    made.until(lambda: len(made.noted()) >= 10, "questions")
    run.send_signal(signal.SIGKILL)
    run.communicate()
    began = time.monotonic()
    made.until(lambda: made.queue() == "", "an empty queue", 100)
    print(f"\nno job was left {time.monotonic() - began:.0f} s after SIGKILL of the client")
    before = len(made.noted())
    made.finish(made.begin("--scheduler", "slurm", "--workers", 2))
    made.check(80)
    assert made.again() <= 2 * IN_FLIGHT
    assert len(made.noted()) <= 80 + before
    assert made.queue() == ""


def test_workers_that_never_come_are_cancelled_by_ctrl_c(job):
    made = job(rows=8, site='[slurm.workers.sbatch]\nbegin = "now+1hour"')
    run = made.begin("--scheduler", "slurm", "--workers", 2)
    made.until(lambda: len(made.queue().splitlines()) == 2, "two jobs that wait")
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 75, out + err
    assert "Traceback" not in err, err
    assert made.queue() == ""


def test_jobs_that_end_before_their_worker_begins_end_the_run_in_one_line(job):
    made = job(rows=8, site='python = "/no/such/python"')
    run = made.begin("--scheduler", "slurm", "--workers", 2)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 1, out + err
    last = err.strip().splitlines()[-1]
    assert "worker jobs ended before their worker began" in last, err
    assert "/no/such/python" in last
    assert made.queue() == ""


def test_an_allocation_of_two_nodes_has_workers_on_both(job):
    made = job(rows=320, answer_s="0.5")
    command = f"exec {sys.executable} -m s1batch run job.yaml --scheduler allocation --workers 4"
    options = ["--nodes=2", "--time=10", f"--output={made.folder}/log", f"--chdir={made.folder}", "--parsable"]
    exported = {"PYTHONPATH": str(ROOT), "ASKED": str(made.folder / "asked"), **made.variables}
    variables = ",".join(["ALL", *(f"{name}={value}" for name, value in exported.items())])
    number = made.cluster.call("sbatch", *options, f"--export={variables}", "--wrap", command).strip()
    made.until(lambda: made.queue() == "", "the end of the allocation", 120)
    log = (made.folder / "log").read_text()
    assert "ExitCode=0:0" in made.cluster.call("scontrol", "--oneliner", "show", "job", number), log
    made.check(320)
    assert made.again() == 0
    assert len({node for _, _, node in made.noted()}) == 2, log
    assert "4 workers on 2 nodes" in log


def test_workers_over_the_allocation_ask_an_engine_over_the_same_nodes(bare, tmp_path):
    """The engine's step keeps its GPUs, the workers' step runs beside it, and both have ended when the task has."""
    made = EngineJob(bare, tmp_path / "job")
    site = made.folder / "site.toml"
    site.write_text('[slurm.workers]\ninterface = "lo"\n')
    made.variables["S1BATCH_SITE"] = str(site)
    made.hand_in("--scheduler", "allocation", "--workers", "2")
    made.check_all()
    assert "scheduler: allocation" in made.log()
    assert "2 workers on 2 nodes" in made.log()
    assert made.repeated() == 0
    assert len(list(made.results.glob("slurm/workers-*/workers.log"))) == 1
    assert not made.processes("distributed.cli.dask_worker")


def test_the_documented_run_works_as_written(bare, tmp_path):
    """Its interface is another one here, and its parts are smaller, so that there are several."""
    made = Elastic(bare, tmp_path / "job", rows=0)
    write_archive(made.folder / "archive", stations=1, seconds=100)
    text = (ROOT / "docs/dask.md").read_text()
    (block,) = [each for each in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if each.startswith("# windows.yaml")]
    (made.folder / "windows.yaml").write_text(block)
    words = shlex.split(re.findall(r"^    s1batch (run windows.yaml --scheduler slurm .*)$", text, re.MULTILINE)[0])
    made.results = made.folder / "results/windows"
    run = made.start(*words, "--set", "run.part_chunks=2", **made.variables)
    said = made.finish(run)
    assert "up to 3 workers as jobs" in said
    made.check(6)


def test_outside_of_an_allocation_the_run_says_so_in_one_line(job):
    made = job(rows=4)
    code, said = made.s1batch("run", "job.yaml", "--scheduler", "allocation", **made.variables)
    assert (code, said.strip().splitlines()[-1].startswith("s1batch: --scheduler allocation: this is no")) == (2, True)
