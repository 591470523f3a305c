"""Arrays on a real Slurm: whatever happens to tasks, nodes and submissions, each row is there exactly once.

The slow ones (a time limit, a power cut, a preemption) begin first and go on while the others run.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
import yaml

import s1batch
from s1batch.launching.registry import RegisteredEndpoint, Registration, register
from s1batch.results.process import ProcessIdentity
from s1batch.slurm.client import SlurmPrograms
from s1batch.slurm.folder import SubmissionFolder, submissions
from tests.archives import write_archive
from tests.loopback import Loopback
from tests.slurm.cluster import CannotRun, Cluster

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = {"type": "object", "properties": {"length": {"type": "integer"}}, "required": ["length"]}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


class Submitted:
    """A job in a folder of its own, submitted to a cluster; one question at a time in each task."""

    def __init__(self, cluster: Cluster, folder: Path, *, rows: int, slow: Callable[[int], bool] | None = None) -> None:
        self.cluster, self.folder, self.results = cluster, folder, folder / "out"
        self.lost = ""  # the node whose power was cut
        (folder / "asked").mkdir(parents=True)
        names = [("slow" if slow is not None and slow(number) else "quick") + str(number) for number in range(rows)]
        (folder / "names.csv").write_text("\n".join(["name", *names]) + "\n")
        self.write_job({"kind": "replay", "function": "tests.slurm.answers:steady"})

    def write_job(self, engine: dict[str, Any]) -> None:
        job = {
            "name": "minerals",
            "source": {"kind": "table", "path": "names.csv"},
            "job": {"kind": "ask", "prompt": "Is {{ name }} a mineral?", "schema": SCHEMA},
            "engine": engine,
            "run": {"part_chunks": 1, "parts_in_flight": 1},
            "output": "out",
        }
        (self.folder / "job.yaml").write_text(yaml.safe_dump(job))

    def start(self, *arguments: object, **variables: str) -> subprocess.Popen[str]:
        """Start the program where the cluster is."""
        environment = {**self.cluster.environment, "PYTHONPATH": str(ROOT), "ASKED": str(self.folder / "asked")}
        return subprocess.Popen(
            [sys.executable, "-m", "s1batch", *map(str, arguments)],
            env={**environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )

    def s1batch(self, *arguments: object, **variables: str) -> tuple[int, str]:
        """Run the program; return its exit code and what it said."""
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=120)
        return process.returncode, out + err

    def submit(self, shards: int, *options: str, **variables: str) -> SubmissionFolder:
        code, said = self.s1batch("submit", "job.yaml", "--array", shards, *options, **variables)
        assert code == 0, said
        return self.last

    @property
    def last(self) -> SubmissionFolder:
        """The last submission."""
        *_, last = submissions(self.results)
        return last

    def until(self, holds: Callable[[], Any], what: str, timeout_s: float = 150) -> None:
        try:
            self.cluster.wait_until(holds, timeout_s, what)
        except TimeoutError as error:
            logs = "\n".join(f"-- {path.name}\n{path.read_text()}" for path in sorted(self.last.logs.iterdir()))
            raise AssertionError(f"{error}\n{self.cluster.call('squeue', '-r')}\n{logs}") from None

    def closed(self, timeout_s: float = 150) -> dict[str, Any]:
        """Wait for the closing job, and return what it found."""
        folder = self.last
        self.until(folder.closing.exists, f"the closing job of {folder.root}", timeout_s)
        found = orjson.loads(folder.closing.read_bytes())
        assert isinstance(found, dict)
        return found

    def asked(self) -> dict[str, list[tuple[str, int]]]:
        """Return what each task asked: fingerprints, and how often the task had been started again by then."""
        found = {}
        for path in sorted((self.folder / "asked").iterdir()):
            words = [line.split() for line in path.read_text().splitlines()]
            found[path.name] = [(fingerprint, int(restarts)) for fingerprint, restarts in words]
        return found

    def asked_twice(self) -> int:
        """How many questions were asked more than once."""
        counts = Counter(fingerprint for asked in self.asked().values() for fingerprint, _ in asked)
        return sum(number > 1 for number in counts.values())

    def check(self, rows: int) -> None:
        """Make sure that the run is complete: proved, and each row there exactly once."""
        verdict = s1batch.open_results(self.results).verify()
        assert (verdict.ok, verdict.complete, verdict.findings) == (True, True, ())
        table = pl.read_parquet(self.results / "rows/*.parquet")
        assert (table.height, table["chunk_key"].n_unique(), set(table["outcome"])) == (rows, rows, {"ok"})

    def restarts(self, index: int) -> int:
        """How often Slurm has started a task again."""
        said = self.cluster.call("scontrol", "--oneliner", "show", "job", f"{self.last.read_jobs().arrays[0]}_{index}")
        return int(said.partition("Restarts=")[2].split()[0])

    def node(self, index: int) -> str:
        """Where a task runs."""
        task = f"{self.last.read_jobs().arrays[0]}_{index}"
        return self.cluster.call("squeue", "-h", "-j", task, "-t", "RUNNING", "-o", "%N").strip()


def _cluster(*, accounting: bool) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="s1slurm-", dir="/tmp"))
    try:
        with Cluster(folder, accounting=accounting) as cluster:
            yield cluster
    except CannotRun as reason:
        pytest.skip(f"no Slurm cluster here: {reason}")
    finally:
        if "S1BATCH_KEEP_CLUSTER" not in os.environ:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def bare() -> Iterator[Cluster]:
    """A cluster without accounting: sacct answers nothing."""
    yield from _cluster(accounting=False)


@pytest.fixture(scope="module")
def accounted() -> Iterator[Cluster]:
    """A cluster with accounting."""
    yield from _cluster(accounting=True)


@pytest.fixture(params=["bare", "accounted"])
def cluster(request) -> Cluster:
    """Each of them."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Cluster)
    return found


@pytest.fixture(scope="module")
def limited(bare, tmp_path_factory) -> Submitted:
    """An array whose last task needs more than its time limit, the others a moment."""
    run = Submitted(bare, tmp_path_factory.mktemp("limited"), rows=96, slow=lambda number: number % 3 == 2)
    run.submit(3, "--sbatch", "time=1", "--sbatch", "nodelist=n1", "--signal-before", "40")
    return run


@pytest.fixture(scope="module")
def paced(bare, tmp_path_factory, limited) -> Submitted:
    """An array whose questions take 8 s each, and that Slurm would tell of its limit too late."""
    run = Submitted(bare, tmp_path_factory.mktemp("paced"), rows=5, slow=lambda number: True)
    run.submit(1, "--sbatch", "time=1", "--sbatch", "nodelist=n1", "--signal-before", "10", ANSWER_S="8")
    return run


@pytest.fixture(scope="module")
def unpowered(bare, tmp_path_factory, paced) -> Submitted:
    """An array whose node loses its power once each task has a row."""
    run = Submitted(bare, tmp_path_factory.mktemp("unpowered"), rows=40, slow=lambda number: True)
    run.submit(2, "--sbatch", "exclude=n1,n2", ANSWER_S="0.7")
    run.until(lambda: len(list((run.results / "rows").glob("*"))) >= 6, "rows")
    run.lost = run.node(0)
    bare.cut_power(run.lost)
    return run


@pytest.fixture(scope="module")
def preempted(bare, tmp_path_factory, unpowered) -> Submitted:
    """An array in the partition `spot`, whose node another job takes away once there are rows."""
    run = Submitted(bare, tmp_path_factory.mktemp("preempted"), rows=40, slow=lambda number: True)
    options = ["--sbatch", "partition=spot", "--sbatch", "nodelist=n2"]
    run.submit(2, *options, "--no-closing", ANSWER_S="0.5")
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
    folder = job.submit(3, ANSWER_S="1")
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
    job = Submitted(bare, tmp_path / "job", rows=24)
    both = [job.start("submit", "job.yaml", "--array", 12, "--no-closing") for _ in range(2)]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 4], said
    refused = next(text for process, text in zip(both, said, strict=True) if process.returncode == 4)
    assert "submit is held by" in refused or "is not over yet" in refused
    (folder,) = submissions(job.results)
    assert [array.offset for array in folder.read_spec().arrays] == [0, 9]
    job.until(lambda: len(list((job.results / "rows").glob("part-*"))) == 24, "rows")
    job.check(24)
    assert job.asked_twice() == 0


def test_what_was_cancelled_as_a_whole_goes_on_with_another_number_of_shards(bare, tmp_path, limited):
    job = Submitted(bare, tmp_path / "job", rows=12, slow=lambda number: True)
    job.submit(2, ANSWER_S="1.5")
    job.until(lambda: len(list((job.results / "rows").glob("part-*"))) >= 2, "rows")
    code, said = job.s1batch("cancel", "out")
    assert code == 0, said
    assert "cancelled" in said
    assert "nothing in the queue" in job.s1batch("cancel", "out")[1]
    job.submit(3, ANSWER_S="0.01")
    assert job.closed()["complete"]
    job.check(12)


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
    assert limited.closed(200)["complete"]
    limited.check(96)
    array = limited.last.read_jobs().arrays[0]
    assert limited.restarts(2) >= 1
    assert limited.asked_twice() == 0, "an answer on its way was not waited for"
    log = (limited.last.logs / f"{array}_2.log").read_text()
    assert "s1batch: stopping; answers on their way are waited for" in log, "Slurm's signal did not arrive"
    assert f"interrupted: {array}_2 goes back into the queue (1 of at most 10 times)" in log


def test_the_requeue_of_the_last_task_leaves_the_others_alone(limited):
    limited.closed(200)
    array = limited.last.read_jobs().arrays[0]
    assert [limited.restarts(index) for index in range(2)] == [0, 0]
    for index in range(2):
        assert {restarts for _, restarts in limited.asked()[f"{array}_{index}"]} == {0}


def test_no_question_is_begun_that_could_not_be_answered_before_the_limit(paced):
    assert paced.closed(200)["complete"]
    paced.check(5)
    array = paced.last.read_jobs().arrays[0]
    asked = paced.asked()[f"{array}_0"]
    assert len(asked) == 5, "a question was cut off"
    assert {restarts for _, restarts in asked} >= {0, 1}
    log = (paced.last.logs / f"{array}_0.log").read_text()
    assert f"the allocation ends before another answer could come: {array}_0 goes back into the queue" in log
    assert "s1batch: stopping" not in log, "it was the signal that ended the run"


def test_a_preempted_task_goes_on_by_itself(preempted):
    preempted.until(lambda: len(list((preempted.results / "rows").glob("part-*"))) == 40, "rows")
    preempted.check(40)
    assert all(preempted.restarts(index) >= 1 for index in range(2))
    assert preempted.asked_twice() <= 2, "no more than was on its way"


def test_a_node_that_loses_its_power_costs_what_was_on_its_way(unpowered):
    assert unpowered.closed(250)["complete"]
    unpowered.check(40)
    assert unpowered.asked_twice() <= 2
    notes = [unpowered.last.read_note(shard) for shard in range(2)]
    assert all(note is not None and note.node != unpowered.lost and note.restarts >= 1 for note in notes)
    unpowered.cluster.give_power(unpowered.lost)
