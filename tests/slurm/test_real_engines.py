"""Engines over two nodes of a real Slurm, inside the allocation of the run that asks them.

A stand-in takes the place of LMDeploy and Ray; all else is as it would be. What takes long (a node that is lost) begins
early and goes on while the others run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import psutil
import pytest
import yaml

import s1batch
from tests.archives import write_archive
from tests.launching.nodes import STAND_IN
from tests.ports import free_ports
from tests.slurm.cluster import Cluster
from tests.slurm.submitted import ROOT, Submitted
from tests.slurm.test_real_cluster import as_written

pytestmark = pytest.mark.slow

WHOLE_NODES = ["nodes=2", "gpus-per-node=8", "exclusive"]
WEIGHTS = 3


@pytest.fixture(scope="module")
def cluster(bare: Cluster) -> Cluster:
    return bare


class EngineJob(Submitted):
    """The third submission of docs/slurm.md, over a small archive."""

    def __init__(self, cluster: Cluster, folder: Path, *, hold: int | None = None, seconds: float = 1200.0) -> None:
        super().__init__(cluster, folder, rows=0)
        self.words = as_written(folder, "whole.yaml")
        self.results = folder / "results/whole"
        self.disks = folder / "disks"
        self.disks.mkdir()
        write_archive(folder / "archive", stations=1, seconds=seconds)
        self.rows = round(seconds / 30) - 1
        model = folder / "models/Intern-S1-Pro"
        model.mkdir(parents=True)
        (model / "config.json").write_text(json.dumps({"architectures": ["InternS1ProForConditionalGeneration"]}))
        for number in range(WEIGHTS):
            (model / f"model-{number}.safetensors").write_bytes(os.urandom(1 << 20))
        programs = folder / "bin"
        programs.mkdir()
        for name in ("lmdeploy", "ray"):
            (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} {name} "$@"\n')
            (programs / name).chmod(0o755)
        # What differs here from what the page shows: virtual nodes share one disk, and there is no LMDeploy.
        wishes = f"log:{folder}/questions" + (f",hold:{hold}" if hold else "")
        self.changes = {
            "engine.stage": f"{self.disks}/$SLURMD_NODENAME",
            "engine.env": json.dumps({"STAND_IN": wishes, "UNTIL": f"{folder}/until"}),
            "engine.max_in_flight": 2,
            "engine.check_every_s": 1,
            "run.part_chunks": 4,
        }
        self.variables = {"PATH": f"{programs}:{cluster.environment['PATH']}"}

    def settings(self, **changes: object) -> list[str]:
        together = {**self.changes, **{f"engine.{name}": value for name, value in changes.items()}}
        return [word for name, value in together.items() for word in ("--set", f"{name}={value}")]

    def hand_in(self, *options: str, **changes: object) -> None:
        """Submit one task."""
        flags = [word for each in WHOLE_NODES for word in ("--sbatch", each)]
        words = ["submit", "whole.yaml", "--array", "1", *flags, *options, *self.settings(**changes)]
        code, said = self.s1batch(*words, **self.variables)
        assert code == 0, said

    def questions(self) -> list[str]:
        log = self.folder / "questions"
        return [line.split()[1] for line in log.read_text().splitlines()] if log.exists() else []

    def until_asked(self, count: int) -> None:
        self.until(lambda: len(self.questions()) >= count, f"{count} questions")

    def release(self) -> None:
        """Let servers answer the questions that they held back."""
        (self.folder / "until").touch()

    def release_when_gone(self) -> None:
        """The same, once the server that got the first question has ended."""
        server = int((self.folder / "questions").read_text().split()[0])
        self.until(lambda: not psutil.pid_exists(server), "the end of the server")
        self.release()

    def repeated(self) -> int:
        """How many questions were asked more than once."""
        return sum(number > 1 for number in Counter(self.questions()).values())

    def hosts(self) -> list[str]:
        """Nodes of the task."""
        (array,) = self.last.read_jobs().arrays
        listed = self.cluster.call("squeue", "-h", "-j", f"{array}_0", "-t", "RUNNING", "-o", "%N").strip()
        return self.cluster.call("scontrol", "show", "hostnames", listed).split() if listed else []

    def processes(self, word: str, node: str | None = None) -> list[int]:
        """Processes of this job with a word in their command line."""
        return [
            pid
            for pid, words in self.cluster.running(node).items()
            if word in words and any(str(self.folder) in each for each in words + _variables(pid))
        ]

    def starts(self) -> list[Path]:
        """Folders of the servers of each task that has started some."""
        return [path.parent for path in (self.results / "servers").glob("*/logs")]

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.last.logs.glob("*_0.log")))

    def check_all(self) -> None:
        if not self.closed()["complete"]:
            (array,) = self.last.read_jobs().arrays
            logs = "\n".join(f"-- {path}\n{path.read_text()}" for path in sorted(self.folder.rglob("*.log")))
            raise AssertionError(f"{self.cluster.call('scontrol', '-o', 'show', 'job', array)}\n{logs}")
        self.check(self.rows)


def _variables(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
    except OSError:
        return []


@pytest.fixture(scope="module")
def documented(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> EngineJob:
    """The submission as it is written: two tasks, each with two nodes."""
    job = EngineJob(cluster, tmp_path_factory.mktemp("documented") / "job")
    code, said = job.s1batch(*job.words, *job.settings(), **job.variables)
    assert code == 0, said
    return job


@pytest.fixture(scope="module")
def unpowered(cluster: Cluster, documented: EngineJob, tmp_path_factory: pytest.TempPathFactory) -> EngineJob:
    """A task whose second node loses its power in the middle; it is running again, elsewhere, when this returns."""
    documented.closed()
    job = EngineJob(cluster, tmp_path_factory.mktemp("unpowered") / "job", hold=12)
    job.hand_in()
    job.until_asked(10)
    first = job.hosts()
    job.lost = first[1]
    cluster.cut_power(job.lost)
    job.until(lambda: job.restarts(0) == 1 and len(job.hosts()) == 2, "the task on other nodes")
    assert job.lost not in job.hosts()
    cluster.give_power(job.lost)
    job.release()
    return job


def test_the_documented_engine_over_two_nodes_runs_as_written_in_every_task(documented: EngineJob) -> None:
    documented.check_all()
    starts = documented.starts()
    assert len(starts) == 2, "one engine for each task"
    ranks = [path.read_text() for start in starts for path in (start / "logs").iterdir()]
    assert len(ranks) == 2 * 3, "Ray on both nodes and the server on the first"
    assert all("sees the GPUs 0,1,2,3,4,5,6,7" in text for text in ranks)
    served = {host for start in starts for host in json.loads((start / "serve.yaml").read_text())["nodes"]}
    assert served == {"n1", "n2", "n3", "n4"}
    assert not documented.repeated()
    table = pl.read_parquet(documented.results / "rows/*.parquet")
    assert set(table["model"].cast(str)) == {"intern-s1-pro"}
    assert "#SBATCH --nodes=2" in documented.last.array_script(0).read_text()


def test_the_weights_are_on_the_disk_of_every_node(documented: EngineJob) -> None:
    documented.closed()
    source = documented.folder / "models/Intern-S1-Pro"
    for node in ("n1", "n2", "n3", "n4"):
        (copy,) = (path for path in (documented.disks / node).iterdir() if path.is_dir())
        for path in source.iterdir():
            assert (copy / path.name).read_bytes() == path.read_bytes()
    (start, _) = documented.starts()
    assert f"api_server {documented.disks}" in next((start / "logs").glob("node0-server*")).read_text()
    loaded = json.loads((documented.results / "servers/loading.json").read_text())
    assert loaded["seconds"] > loaded["staging_s"] > 0.0
    assert loaded["copied_bytes"] >= WEIGHTS << 20


@pytest.mark.parametrize("victim", ["ray", "srun"])
def test_an_engine_that_dies_on_one_node_is_started_again(
    cluster: Cluster, unpowered: EngineJob, tmp_path: Path, victim: str
) -> None:
    """Killed is Ray on the second node, or srun itself; what was received is not asked again."""
    job = EngineJob(cluster, tmp_path / "job", hold=12)
    job.hand_in()
    job.until_asked(10)
    node = job.hosts()[1 if victim == "ray" else 0]
    (found, *_) = [pid for pid in job.processes(victim, node) if "--grace-s" not in cluster.running(node)[pid]]
    os.kill(found, signal.SIGKILL)
    job.release_when_gone()
    job.check_all()
    assert "starting them again (1 of 5)" in job.log()
    assert job.repeated() <= 2, "more than what was on its way"
    assert job.restarts(0) == 0
    assert not job.processes("api_server")


def test_without_restarts_the_task_ends_and_another_submission_finishes(
    cluster: Cluster, unpowered: EngineJob, tmp_path: Path
) -> None:
    job = EngineJob(cluster, tmp_path / "job", hold=12)
    job.hand_in(max_restarts=0)
    job.until_asked(10)
    lost = job.hosts()[1]
    os.kill(job.processes("up", lost)[0], signal.SIGKILL)
    found = job.closed()
    assert not found["complete"]
    note = job.last.read_note(0)
    assert note is not None
    assert note.exit_code == 1
    assert f"the servers of this run have ended: srun: error: {lost}: task 1: Killed" in note.said
    job.until(lambda: not job.processes("api_server") and not job.processes("ray"), "the end of all processes")
    received = s1batch.open_results(job.results).scan(unfinished=True).collect().height
    assert received >= 5
    job.release()
    job.hand_in()
    job.check_all()
    assert job.repeated() <= 2


def test_nothing_is_left_on_any_node_when_the_run_is_killed(
    cluster: Cluster, unpowered: EngineJob, tmp_path: Path
) -> None:
    job = EngineJob(cluster, tmp_path / "job", hold=12)
    job.hand_in("--no-closing")
    job.until_asked(6)
    first = job.hosts()[0]
    (run,) = (pid for pid in job.processes("run", first) if "--submission" in cluster.running(first)[pid])
    assert job.processes("up")
    os.kill(run, signal.SIGKILL)
    words = ("run", "up", "api_server", "ray", "srun")
    job.until(lambda: not any(job.processes(word) for word in words), "the end of all processes")
    assert "shard 0: ended" in job.s1batch("status", "results/whole")[1]


def test_no_engine_is_started_that_would_not_be_ready_before_the_limit(
    cluster: Cluster, unpowered: EngineJob, tmp_path: Path
) -> None:
    job = EngineJob(cluster, tmp_path / "job", seconds=100)
    (job.results / "servers").mkdir(parents=True)
    last = {"seconds": 400.0, "staging_s": 300.0, "copied_bytes": 1, "nodes": ["n1", "n2"], "finished": ""}
    (job.results / "servers/loading.json").write_text(json.dumps(last))
    job.hand_in("--sbatch", "time=5", "--requeue", "1", "--signal-before", "30")
    found = job.closed()
    assert not found["complete"]
    note = job.last.read_note(0)
    assert note is not None
    assert (note.exit_code, note.restarts) == (75, 1), "it is to go back into the queue once"
    assert "the servers took 400 s to load the last time" in job.log()
    assert not job.questions()
    job.hand_in("--sbatch", "time=30")
    job.closed()
    job.check(3)


def test_tasks_that_share_their_nodes_share_neither_gpus_nor_ports_but_the_copy(
    cluster: Cluster, unpowered: EngineJob, tmp_path: Path
) -> None:
    job = EngineJob(cluster, tmp_path / "job", hold=1)
    flags = ["nodes=2", "gpus-per-node=4", "nodelist=n1,n2"]
    words = ["submit", "whole.yaml", "--array", "2", *(word for each in flags for word in ("--sbatch", each))]
    code, said = job.s1batch(*words, *job.settings(tp=8), **job.variables)
    assert code == 0, said
    job.until(lambda: len(list(job.results.glob("servers/*/logs/node0-server*"))) == 2, "both engines")
    job.release()
    job.check_all()
    starts = job.starts()
    seen = [
        {
            line
            for path in (start / "logs").iterdir()
            for line in path.read_text().splitlines()
            if "sees the GPUs" in line
        }
        for start in starts
    ]
    assert sorted(map(sorted, seen)) == [["sees the GPUs 0,1,2,3"], ["sees the GPUs 4,5,6,7"]]
    ports = [json.loads((start / "ports/node0.json").read_text()) for start in starts]
    assert not set(ports[0].values()) & set(ports[1].values())
    copies = [path.name for node in ("n1", "n2") for path in (job.disks / node).iterdir() if path.is_dir()]
    assert len(copies) == 2
    assert len(set(copies)) == 1
    told = [line for start in starts for line in (start / "up.log").read_text().splitlines()]
    assert sum("copying 4 files" in line for line in told) == 2, "once on each node"
    assert not job.repeated()


def test_servers_that_stay_run_by_the_documented_script(cluster: Cluster, unpowered: EngineJob, tmp_path: Path) -> None:
    job = EngineJob(cluster, tmp_path / "job")
    page = (ROOT / "docs/two-nodes.md").read_text()
    (description,) = (
        block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if block.startswith("server:")
    )
    (script,) = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    spec = yaml.safe_load(description.replace("/scratch/s1", str(job.folder)).replace("/local/nvme", str(job.disks)))
    spec.pop("prefix")
    # Virtual nodes share one network: the ports of other servers are not theirs.
    spec |= {"port": free_ports(), "ray_port": free_ports(), "check_every_s": 1}
    (job.folder / "serve.yaml").write_text(yaml.safe_dump(spec))
    (job.folder / "run.sbatch").write_text(script.replace("/scratch/s1", str(job.folder)))
    program = job.folder / "bin/s1batch"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m s1batch "$@"\n')
    program.chmod(0o755)
    path = f"--export=ALL,PATH={job.variables['PATH']}"
    number = cluster.call("sbatch", "--parsable", path, f"--output={job.folder}/up.log", str(job.folder / "run.sbatch"))
    job.until((job.folder / "endpoints").is_dir, "the folder of endpoints")
    code, said = job.s1batch("engine", "check", "endpoints", "--wait", 300, "--expect", 1)
    assert code == 0, said + (job.folder / "up.log").read_text()
    assert "1 of 1 endpoints work" in said
    cluster.call("scancel", number.strip())
    job.until(lambda: not job.processes("up") and not job.processes("api_server"), "the end of all processes")


def test_a_node_that_loses_its_power_costs_what_was_on_its_way(unpowered: EngineJob) -> None:
    assert unpowered.closed()["complete"]
    unpowered.check_all()
    assert unpowered.repeated() <= 2
    shutil.rmtree(unpowered.disks)
