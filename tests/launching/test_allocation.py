"""Servers over the nodes of an allocation, with a stand-in for srun that starts every node's part here."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import s1batch
from s1batch.engine.serving.spec import ServingSpec
from s1batch.errors import EngineUnavailable, JobFileError, UsageError
from s1batch.launching.allocation import find_place, step_environment
from s1batch.launching.member import settle_ports
from tests.archives import write_archive
from tests.launching.nodes import alive, until
from tests.launching.test_own_servers import Run, served_job

FAKE_SRUN = Path(__file__).with_name("fake_srun.py")
NODES = "127.0.0.1,127.0.0.2"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("data") / "archive")


@pytest.fixture
def allocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An allocation of two nodes; returns where srun notes what it was asked."""
    programs, notes = tmp_path / "bin", tmp_path / "srun-notes"
    programs.mkdir()
    for name, command in {
        "srun": f'exec {sys.executable} {FAKE_SRUN} "$@"',
        "scontrol": 'echo "$3" | tr , "\\n"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{command}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for name, value in {
        "NOTES_OF_SRUN": str(notes),
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NODELIST": NODES,
        "SLURM_JOB_END_TIME": "9999999999",
        "SLURM_NTASKS": "96",
        "SLURM_MEM_PER_CPU": "4000",
        "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
        "SBATCH_EXPORT": "NONE",
    }.items():
        monkeypatch.setenv(name, value)
    return notes


def over_two(archive: Path, folder: Path, stand_in: str = "", **engine: Any) -> dict[str, Any]:
    return served_job(archive, folder, stand_in, **{"tp": 16, "nodes": 2, **engine})


def servers(run: Run) -> Path:
    (folder,) = (path for path in (run.out / "servers").iterdir() if path.is_dir())
    return folder


def test_one_engine_over_two_nodes_answers_and_is_taken_down(archive: Path, tmp_path: Path, allocation: Path) -> None:
    run = Run(over_two(archive, tmp_path), tmp_path)
    code, said = run.finished()
    assert code == 0, said
    results = s1batch.open_results(run.out)
    assert results.verify().ok
    assert "1: node 1 is ready after" in said
    assert "computes for the first node" in said
    (noted,) = (json.loads(line) for line in allocation.read_text().splitlines())
    asked = noted["options"]
    assert (asked["nodes"], asked["ntasks"], asked["ntasks-per-node"]) == ("2", "2", "1")
    assert (asked["kill-on-bad-exit"], asked["mem"], "overlap" in asked) == ("1", "0", True)
    assert not {"SLURM_NTASKS", "SLURM_MEM_PER_CPU", "SLURM_CPU_BIND", "SBATCH_EXPORT"} & noted["environment"].keys()
    assert noted["environment"]["SLURM_JOB_ID"] == "17"
    logs = [path.read_text() for path in servers(run).glob("logs/node*")]
    assert any("ray start --head" in text for text in logs)
    assert any("ray start --address=127.0.0.1:" in text for text in logs)
    assert not list((servers(run) / "endpoints").iterdir()), "a node did not end in good order"
    loaded = json.loads((run.out / "servers/loading.json").read_text())
    assert loaded["nodes"] == NODES.split(",")
    assert loaded["seconds"] > 0


@pytest.mark.slow
def test_every_endpoint_of_every_node_is_asked(archive: Path, tmp_path: Path, allocation: Path) -> None:
    """One server for each rank of data parallelism, on ports that each node has found for itself."""
    job = over_two(archive, tmp_path, "slow:1", tp=1, dp=4, ep=4, max_in_flight=16)
    run = Run(job, tmp_path)
    code, said = run.finished()
    assert code == 0, said
    assert len({pid for pid, _ in run.asked()}) == 2, "both nodes' servers"
    ports = [json.loads(path.read_text()) for path in sorted((servers(run) / "ports").iterdir())]
    assert ports[0]["dist_port"] == ports[1]["dist_port"]
    assert ports[0]["port"] != ports[1]["port"]


def test_a_node_that_dies_ends_its_engine_and_only_what_was_in_flight_is_asked_again(
    archive: Path, tmp_path: Path, allocation: Path
) -> None:
    run = Run(over_two(archive, tmp_path, "hold:20"), tmp_path)
    run.until_asked(20)
    node_up(1).kill()
    until(lambda: not psutil.pid_exists(run.asked()[0][0]), "the end of the first server")
    (tmp_path / "until").touch()
    code, said = run.finished()
    assert code == 0, said
    assert "starting them again (1 of 5)" in said
    asked = run.asked()
    first, second = dict.fromkeys(pid for pid, _ in asked)
    twice = {each for pid, each in asked if pid == first} & {each for pid, each in asked if pid == second}
    assert len(twice) <= 4, "what was answered was asked again"
    assert s1batch.open_results(run.out).verify().ok


@pytest.mark.slow
def test_without_restarts_the_run_ends_with_the_reason_and_a_second_one_finishes(
    archive: Path, tmp_path: Path, allocation: Path
) -> None:
    run = Run(over_two(archive, tmp_path, "hold:20,family", max_restarts=0), tmp_path)
    run.until_asked(20)
    family = psutil.Process(run.process.pid).children(recursive=True)
    node_up(1).kill()
    code, said = run.finished()
    assert code == 1, said
    assert "the servers of this run have ended: srun: error: 127.0.0.2: task 1: Killed" in said
    until(lambda: not alive(family), "the end of everything")
    again = Run(over_two(archive, tmp_path), tmp_path)
    assert again.finished()[0] == 0
    assert s1batch.open_results(run.out).verify().ok


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_nothing_survives_on_any_node(archive: Path, tmp_path: Path, allocation: Path, number: signal.Signals) -> None:
    run = Run(over_two(archive, tmp_path, "family,hold:20"), tmp_path)
    run.until_asked(20)
    family = psutil.Process(run.process.pid).children(recursive=True)
    assert len(family) >= 10, "guard, srun, and on each node: engine up, guards, servers"
    os.kill(run.process.pid, number)
    code, said = run.finished()
    assert code == (-9 if number == signal.SIGKILL else 75), said
    until(lambda: not alive(family), "the end of everything")
    assert not list((servers(run) / "endpoints").iterdir()), "a node did not end in good order"


def test_the_reason_of_the_node_that_failed_is_told(archive: Path, tmp_path: Path, allocation: Path) -> None:
    run = Run(over_two(archive, tmp_path, prefix=["no-such-program"]), tmp_path)
    code, said = run.finished()
    assert code == 2, said
    assert "engine: no-such-program is not on the PATH of this node" in said.splitlines()[-1]


@pytest.mark.slow
def test_servers_that_load_longer_than_there_is_time_are_not_started(
    archive: Path, tmp_path: Path, allocation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Run(over_two(archive, tmp_path), tmp_path, "--limit", "4")
    assert first.finished()[0] in (0, 3)
    noted = first.out / "servers/loading.json"
    noted.write_text(json.dumps({**json.loads(noted.read_text()), "seconds": 5000.0}))
    asked = len(first.asked())
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 3600))
    second = Run(over_two(archive, tmp_path), tmp_path)
    code, said = second.finished()
    assert code == 75, said
    assert "the servers took 5000 s to load the last time" in said
    assert len(second.asked()) == asked
    assert len(allocation.read_text().splitlines()) == 1, "they were started"


@pytest.mark.slow
def test_servers_that_died_too_late_to_load_again_are_not_started_again(
    archive: Path, tmp_path: Path, allocation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 3600))
    run = Run(over_two(archive, tmp_path, "hold:20"), tmp_path)
    run.until_asked(20)
    noted = run.out / "servers/loading.json"
    noted.write_text(json.dumps({**json.loads(noted.read_text()), "seconds": 5000.0}))
    node_up(1).kill()
    code, said = run.finished()  # answers of servers that are gone are not waited for
    assert code == 75, said
    assert "the servers took 5000 s to load the last time" in said
    assert len(allocation.read_text().splitlines()) == 1, "they were started again"


@pytest.mark.slow
def test_servers_that_are_not_ready_before_the_limit_are_given_up_there(
    archive: Path, tmp_path: Path, allocation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 55))
    run = Run(over_two(archive, tmp_path, "slow:600"), tmp_path)
    code, said = run.finished()
    assert code == 75, said
    assert "the allocation ends before another answer could come" in said


def test_an_allocation_that_is_missing_or_too_small_is_refused_in_one_line(allocation: Path) -> None:
    with pytest.raises(UsageError, match=r"engine\.nodes: 2: this is no Slurm allocation"):
        find_place(2, "here", {})
    with pytest.raises(UsageError, match=r"engine\.nodes: auto: this is no Slurm allocation"):
        find_place("auto", "here", {})
    with pytest.raises(UsageError, match=r"engine\.nodes: 3: this allocation has 2 \(127.*--sbatch nodes=3"):
        find_place(3, "here")
    assert find_place("auto", "here").hosts == ("127.0.0.1", "127.0.0.2")
    assert find_place(1, "here").launcher == ()
    single = {**os.environ, "SLURM_JOB_NODELIST": "n7"}
    assert find_place("auto", "here", single).hosts == ("here",)


def test_srun_sees_its_job_and_none_of_the_options_of_the_batch_script() -> None:
    given = {
        "PATH": "/bin",
        "SLURM_JOB_ID": "1",
        "SLURM_CONF": "/etc/slurm.conf",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_EXPORT_ENV": "NONE",
        "SLURM_GPUS_PER_TASK": "1",
        "SLURM_STEP_ID": "0",
        "SRUN_CPUS_PER_TASK": "4",
        "SBATCH_NODES": "4",
    }
    assert set(step_environment(given)) == {"PATH", "SLURM_JOB_ID", "SLURM_CONF", "SLURM_ARRAY_TASK_ID"}


def test_what_cannot_run_over_nodes_is_refused_when_the_job_is_read(archive: Path, tmp_path: Path) -> None:
    for engine, words in (
        ({"kind": "llama_cpp", "model": "m.gguf", "nodes": 2}, "llama_cpp serves from one node"),
        ({"kind": "vllm", "model": "m", "nodes": 0}, "nodes"),
        ({"kind": "lmdeploy", "mode": "server", "model": "m", "nodes": 2, "media": "shared_memory"}, "own host only"),
    ):
        job = served_job(archive, tmp_path)
        with pytest.raises(JobFileError, match=words):
            s1batch.plan({**job, "engine": engine}, offline=True)


def test_the_number_of_nodes_may_change_between_runs(archive: Path, tmp_path: Path) -> None:
    job = served_job(archive, tmp_path)
    s1batch.run(job, tmp_path / "out")
    job["engine"] |= {"nodes": 2, "tp": 16, "stage": "/nowhere", "ray_port": 7000}
    assert s1batch.run(job, tmp_path / "out").summary.added == 0


def test_a_node_keeps_its_ports_and_takes_those_of_the_meeting_from_the_first(tmp_path: Path) -> None:
    spec = ServingSpec(model="m", nodes=("a", "b"))
    free = ("port", "ray_port", "dist_port")
    first = settle_ports(spec, 0, 2, free, tmp_path)
    assert len({first.port, first.port + 1, first.ray_port, first.dist_port}) == 4
    second = settle_ports(spec, 1, 2, free, tmp_path)
    assert (second.ray_port, second.dist_port) == (first.ray_port, first.dist_port)
    assert second.port != first.port
    assert settle_ports(spec, 0, 2, free, tmp_path) == first
    assert settle_ports(spec, 1, 2, free, tmp_path) == second
    assert settle_ports(spec, 2, 0, free, tmp_path).port == first.port
    assert settle_ports(spec, 3, 1, (), tmp_path) == spec
    with pytest.raises(EngineUnavailable, match="the first node has not said within 0 s"):
        settle_ports(spec, 1, 1, free, tmp_path / "elsewhere", patience_s=0)


def node_up(rank: int) -> psutil.Process:
    """The `engine up` of one of the nodes."""
    for process in psutil.process_iter():
        try:
            variables, words = process.environ(), process.cmdline()
        except psutil.Error:
            continue
        mine = variables.get("NOTES_OF_SRUN") == os.environ["NOTES_OF_SRUN"]
        if mine and variables.get("SLURM_NODEID") == str(rank) and words[1:5] == ["-m", "s1batch", "engine", "up"]:
            return process
    raise AssertionError(f"no engine of node {rank}")
