"""Arrays on a real Slurm: whatever happens to tasks, nodes and submissions, each row is there exactly once.

The slow ones (a time limit, a power cut, a preemption) begin first and go on while the others run.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from s1batch.launching.registry import RegisteredEndpoint, Registration, register
from s1batch.results.process import ProcessIdentity
from s1batch.slurm.client import SlurmPrograms
from s1batch.slurm.folder import submissions
from tests.archives import write_archive
from tests.loopback import Loopback
from tests.slurm.cluster import Cluster
from tests.slurm.submitted import ROOT, Submitted

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def limited(bare, tmp_path_factory) -> Submitted:
    """An array whose last task needs longer than until Slurm's signal, the others a moment.

    Slurm looks at limits every 30 s, so the signal comes 35 to 65 s after the task has begun, 25 s at least before the
    run would end by itself.
    """
    run = Submitted(bare, tmp_path_factory.mktemp("limited"), rows=300, slow=lambda number: number % 3 == 2)
    run.submit(3, "--sbatch", "time=2", "--sbatch", "nodelist=n1", "--signal-before", "85")
    return run


def wrapped(run: Submitted, *options: str, **variables: str) -> str:
    """Submit a plain run as a job of its own; return its number."""
    command = f"exec {sys.executable} -m s1batch run job.yaml"
    own = [f"--output={run.folder}/log", f"--chdir={run.folder}", "--parsable"]
    variables = {"PYTHONPATH": str(ROOT), "ASKED": str(run.folder / "asked"), **variables}
    exported = ",".join(["ALL", *(f"{name}={value}" for name, value in variables.items())])
    return run.cluster.call("sbatch", *options, *own, f"--export={exported}", "--wrap", command).strip()


@pytest.fixture(scope="module")
def paced(bare, tmp_path_factory, limited) -> Submitted:
    """A run in an allocation that Slurm does not tell of its limit; it has 90 s, and its questions take 20 s each."""
    run = Submitted(bare, tmp_path_factory.mktemp("paced"), rows=8, slow=lambda number: True)
    run.job = wrapped(run, "--time=2", "--nodelist=n1", ANSWER_S="20")
    return run


@pytest.fixture(scope="module")
def prolonged(bare, tmp_path_factory, paced) -> Submitted:
    """The same, with a limit that is moved once it has begun."""
    run = Submitted(bare, tmp_path_factory.mktemp("prolonged"), rows=5, slow=lambda number: True)
    run.job = wrapped(run, "--time=2", "--nodelist=n1", ANSWER_S="20")
    run.until(run.asked, "the first question")
    bare.call("scontrol", "update", f"jobid={run.job}", "timelimit=30")
    return run


@pytest.fixture(scope="module")
def unpowered(bare, tmp_path_factory, prolonged) -> Submitted:
    """An array whose node loses its power once each task has a row."""
    run = Submitted(bare, tmp_path_factory.mktemp("unpowered"), rows=40, slow=lambda number: True)
    run.submit(2, "--sbatch", "exclude=n1,n2", ANSWER_S="1.5")
    run.until(lambda: len(list((run.results / "rows").glob("*"))) >= 6, "rows")
    run.lost = run.node(0)
    bare.cut_power(run.lost)
    return run


@pytest.fixture(scope="module")
def preempted(bare, tmp_path_factory, unpowered) -> Submitted:
    """An array in the partition `spot`, whose node another job takes away once there are rows."""
    run = Submitted(bare, tmp_path_factory.mktemp("preempted"), rows=40, slow=lambda number: True)
    options = ["--sbatch", "partition=spot", "--sbatch", "nodelist=n2"]
    run.submit(2, *options, "--no-closing", ANSWER_S="1.5")
    run.until(lambda: len(list((run.results / "rows").glob("*"))) >= 6, "rows")
    bare.call("sbatch", "-p", "main", "-w", "n2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 2")
    return run


@pytest.fixture
def run(cluster, tmp_path, limited, unpowered, preempted) -> Callable[..., Submitted]:
    """Return a function that makes a job; the slow runs have begun before."""
    return lambda **fields: Submitted(cluster, tmp_path, **fields)


def test_an_array_of_eight_runs_to_its_end(run, cluster):
    job = run(rows=32)
    folder = job.submit(8, "--setup", "export OMP_NUM_THREADS=1", "--parallel", "4")
    found = job.closed()
    assert (found["ok"], found["complete"], found["rows"]) == (True, True, 32)
    job.check(32)
    (array,) = folder.read_jobs().arrays
    assert sorted(job.asked()) == [f"{array}_{index}" for index in range(8)]
    assert job.asked_twice() == 0
    code, said = job.s1batch("status", "out")
    assert code == 0
    assert f"slurm {folder.root.name}: array {array}; 8 shards of 8: 8 complete" in said
    told = SlurmPrograms(cluster.environment).accounted([array])
    if cluster.accounting:
        assert {each.state for each in told or []} == {"COMPLETED"}
    else:
        assert told is None, "this cluster has accounting after all"


def test_a_cancelled_task_is_missing_until_it_is_submitted_again(run, cluster):
    job = run(rows=18, slow=lambda number: number % 3 == 1)
    folder = job.submit(3, ANSWER_S="4")
    array = folder.read_jobs().arrays[0]
    job.until(lambda: (job.results / "rows/part-000004.parquet").exists(), "rows of the slow shard")
    cluster.call("scancel", f"{array}_1")
    found = job.closed()
    assert (found["incomplete_shards"], found["ok"], found["complete"]) == ([1], True, False)
    _, said = job.s1batch("status", "out")
    assert f"shard 1: ended, {found['rows'] - 12} of 6 parts; {array}_1 cancelled" in said, said
    again = job.submit(2, ANSWER_S="0.01")
    assert job.closed()["complete"]
    job.check(18)
    assert job.asked_twice() <= 1, "no more than the question that was cut off"
    assert again.root != folder.root


def test_two_submissions_at_once_are_one(bare, tmp_path, limited):
    """And twelve shards are two arrays where indices end at 8."""
    job = Submitted(bare, tmp_path / "job", rows=24, slow=lambda number: True)
    both = [job.start("submit", "job.yaml", "--array", 12, "--no-closing", ANSWER_S="3") for _ in range(2)]
    said = [process.communicate(timeout=400)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 4], said
    refused = next(text for process, text in zip(both, said, strict=True) if process.returncode == 4)
    assert "submit is held by" in refused or "nothing left to submit" in refused
    (folder,) = submissions(job.results)
    assert [array.offset for array in folder.read_spec().arrays] == [0, 9]
    job.until(lambda: len(list((job.results / "rows").glob("part-*"))) == 24, "rows")
    job.check(24)
    assert job.asked_twice() == 0


def test_what_was_cancelled_as_a_whole_goes_on_with_another_number_of_shards(bare, tmp_path, limited):
    job = Submitted(bare, tmp_path / "job", rows=12, slow=lambda number: True)
    job.submit(2, ANSWER_S="6")
    job.until(lambda: len(list((job.results / "rows").glob("part-*"))) >= 2, "rows")
    code, said = job.s1batch("cancel", "out")
    assert code == 0, said
    assert "cancelled" in said
    assert "nothing in the queue" in job.s1batch("cancel", "out")[1]
    job.submit(3, ANSWER_S="0.01")
    assert job.closed()["complete"]
    job.check(12)


def test_failed_rows_are_asked_again_by_one_more_submission(bare, tmp_path, limited):
    job = Submitted(bare, tmp_path / "job", rows=8)
    job.write_job({"kind": "replay", "function": "tests.slurm.answers:mended"})
    mended = tmp_path / "mended"
    job.submit(2, "--plan", "--accept", "failed", MENDED=str(mended))
    assert job.closed()["complete"]
    assert set(pl.read_parquet(job.results / "rows/*.parquet")["outcome"]) == {"failed"}
    mended.touch()
    code, said = job.s1batch("submit", "job.yaml", "--array", 2, "--retry", "failed", MENDED=str(mended))
    assert code == 0, said
    assert "8 rows will be asked again" in said
    assert job.closed()["complete"]
    job.check(8)
    code, said = job.s1batch("submit", "job.yaml", "--array", 2, "--set", "job.prompt=What is {{ name }}?")
    assert code == 4, said
    assert "job.prompt: 'Is {{ name }} a mineral?' there" in said


def as_written(folder: Path, name: str) -> list[str]:
    """Write a job file as docs/slurm.md shows it, and return the words of the command that submits it."""
    text = (ROOT / "docs/slurm.md").read_text()
    (block,) = [each for each in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if each.startswith(f"# {name}")]
    (folder / name).write_text(block)
    return shlex.split(re.findall(rf"^    s1batch (submit {name} .*)$", text, re.MULTILINE)[0])


def submit_as_written(cluster: Cluster, folder: Path, name: str, *more: str) -> Submitted:
    """Submit a job of docs/slurm.md over a small archive."""
    job = Submitted(cluster, folder / "job", rows=0)
    write_archive(job.folder / "archive", stations=1, seconds=100)
    job.results = job.folder / "results" / name.removesuffix(".yaml")
    code, said = job.s1batch(*as_written(job.folder, name), *more)
    assert code == 0, said
    return job


def test_the_documented_array_on_cpus_runs_as_written(bare, tmp_path, limited):
    job = submit_as_written(bare, tmp_path, "picks.yaml", "--set", "run.part_chunks=2")
    found = job.closed()
    assert (found["ok"], found["complete"], found["rows"]) == (True, True, 6), found
    assert pl.read_parquet(job.results / "rows/*.parquet")["engine"].str.starts_with("reference").all()


async def test_the_documented_array_asks_shared_endpoints_as_written(bare, tmp_path, limited):
    picks = json.dumps({"contain": False, "p_index": None, "s_index": None})
    async with Loopback(answer=lambda body: picks) as server:
        process = ProcessIdentity.current()
        endpoint = RegisteredEndpoint(url=server.url, model="mock", single_prefill=True)
        register(
            tmp_path / "job/endpoints",
            Registration(
                host="node0", node_rank=0, server="lmdeploy", started="2026-01-01T00:00:00+00:00", ready=True,
                process=process, endpoints=(endpoint,), logs=(),
            ),
        )  # fmt: skip
        job = await asyncio.to_thread(submit_as_written, bare, tmp_path, "shared.yaml", "--set", "run.part_chunks=1")
        found = await asyncio.to_thread(job.closed)
    assert (found["ok"], found["complete"], found["rows"]) == (True, True, 3), found
    assert server.served > 0
    assert "#SBATCH --array=0-3%2" in job.last.array_script(0).read_text()


def test_a_task_at_its_time_limit_drains_requeues_and_finishes(limited):
    assert limited.closed()["complete"]
    limited.check(300)
    array = limited.last.read_jobs().arrays[0]
    assert limited.restarts(2) >= 1
    assert limited.asked_twice() == 0, "an answer on its way was not waited for"
    log = (limited.last.logs / f"{array}_2.log").read_text()
    assert "s1batch: stopping; answers on their way are waited for" in log, "Slurm's signal did not arrive"
    assert "was moved" not in log, "the times of other tasks were taken for its own"
    assert f"interrupted: {array}_2 goes back into the queue (1 of at most 10 times)" in log


def test_the_requeue_of_the_last_task_leaves_the_others_alone(limited):
    limited.closed()
    array = limited.last.read_jobs().arrays[0]
    assert [limited.restarts(index) for index in range(2)] == [0, 0]
    for index in range(2):
        assert {restarts for _, restarts in limited.asked()[f"{array}_{index}"]} == {0}


def test_no_question_is_begun_that_could_not_be_answered_before_the_limit(paced):
    paced.until(lambda: not paced.cluster.call("squeue", "-h", "-j", paced.job), "the end of the allocation")
    log = (paced.folder / "log").read_text()
    assert "s1batch: the allocation ends before another answer could come; run again to go on" in log, log
    assert "ExitCode=75:0" in paced.cluster.call("scontrol", "--oneliner", "show", "job", paced.job)
    (asked,) = paced.asked().values()
    assert 1 <= len(asked) <= 4, "five of them take longer than there was time"
    code, said = paced.s1batch("run", "job.yaml", ANSWER_S="0.01")
    assert code == 0, said
    paced.check(8)
    assert paced.asked_twice() == 0, "a question was cut off"


def test_a_limit_that_is_moved_while_a_run_is_under_way_counts(prolonged):
    prolonged.until(lambda: not prolonged.cluster.call("squeue", "-h", "-j", prolonged.job), "the end of the job")
    log = (prolonged.folder / "log").read_text()
    assert "the limit of the allocation was moved: this run is over in" in log, log
    prolonged.check(5)
    assert prolonged.asked_twice() == 0


def test_a_preempted_task_goes_on_by_itself(preempted):
    preempted.until(lambda: len(list((preempted.results / "rows").glob("part-*"))) == 40, "rows")
    preempted.check(40)
    assert all(preempted.restarts(index) >= 1 for index in range(2))
    assert preempted.asked_twice() <= 2, "no more than was on its way"


def test_a_node_that_loses_its_power_costs_what_was_on_its_way(unpowered):
    assert unpowered.closed()["complete"]
    unpowered.check(40)
    assert unpowered.asked_twice() <= 2
    notes = [unpowered.last.read_note(shard) for shard in range(2)]
    assert all(note is not None and note.node != unpowered.lost and note.restarts >= 1 for note in notes)
    unpowered.cluster.give_power(unpowered.lost)
