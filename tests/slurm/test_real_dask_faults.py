"""Dask workers on a real Slurm that are killed, preempted, or die of a chunk: each row is there exactly once."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

import polars as pl
import pytest

import s1batch
from tests.slurm.submitted import ROOT
from tests.slurm.test_real_dask import IN_FLIGHT, Elastic

pytestmark = pytest.mark.slow

WHOLE_NODES = '[slurm.workers.sbatch]\npartition = "spot"\ncpus-per-task = "8"'
"""Each worker has a node to itself."""


@pytest.fixture
def job(bare, tmp_path) -> Callable[..., Elastic]:
    return lambda **fields: Elastic(bare, tmp_path / "job", **fields)


def state(made: Elastic, number: str) -> str:
    return made.cluster.call("scontrol", "--oneliner", "show", "job", number).partition("JobState=")[2].split()[0]


def in_allocation(made: Elastic) -> str:
    """Submit a job of two nodes whose run has two workers on each; return its number.

    Always the same nodes: elsewhere the lease of a run that was killed counts for a minute.
    """
    command = f"exec {sys.executable} -m s1batch run job.yaml --scheduler allocation --workers 4"
    options = ["--nodelist=n1,n2", "--time=10", f"--output={made.folder}/log", "--open-mode=append", "--no-requeue"]
    exported = {"PYTHONPATH": str(ROOT), "ASKED": str(made.folder / "asked"), **made.variables}
    variables = ",".join(["ALL", *(f"{name}={value}" for name, value in exported.items())])
    options += [f"--chdir={made.folder}", "--parsable", f"--export={variables}"]
    return made.cluster.call("sbatch", *options, "--wrap", command).strip()


def processes(made: Elastic, words: str, node: str | None = None) -> list[int]:
    """Return the Python processes of jobs whose command line holds these words."""
    return [
        pid
        for pid, command in made.cluster.running(node).items()
        if command[0] == sys.executable and words in " ".join(command)
    ]


def kill(pids: list[int]) -> None:
    assert pids
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_workers_of_an_allocation_that_are_killed_cost_what_they_had_in_flight(job):
    """First the workers of a node, which are begun again there, then one for good, with what would begin it again."""
    made = job(rows=480, answer_s="0.7")
    number = in_allocation(made)
    made.until(lambda: len({node for _, _, node in made.noted()}) == 2, "workers on both nodes")
    node = made.noted()[0][2]
    kill(processes(made, "multiprocessing.forkserver", node))
    before = len(made.noted())
    made.until(lambda: len([each for each in made.noted()[before:] if each[2] == node]) > 0, "a worker begun again")
    kill(processes(made, "distributed.cli.dask_worker", node)[:1])
    made.until(lambda: made.queue() == "", "the end of the allocation", 250)
    log = (made.folder / "log").read_text()
    assert "ExitCode=0:0" in made.cluster.call("scontrol", "--oneliner", "show", "job", number), log
    made.check(480)
    print(f"\n{made.again()} of 480 questions were asked again after 3 workers of an allocation were killed")
    assert made.again() <= 3 * IN_FLIGHT


def test_the_client_of_an_allocation_that_is_killed_leaves_nothing_and_the_next_one_finishes(job):
    """Its scheduler dies with it: both are one process."""
    made = job(rows=160, answer_s="0.7")
    in_allocation(made)
    made.until(lambda: len({node for _, _, node in made.noted()}) == 2, "workers on both nodes")
    kill(processes(made, "s1batch run"))
    made.until(lambda: made.queue() == "" and not made.cluster.running(), "the end of all its processes", 100)
    before = len(made.noted())
    in_allocation(made)
    made.until(lambda: made.queue() == "", "the end of the second allocation", 250)
    made.check(160)
    print(f"\n{made.again()} of 160 questions were asked again, {before} had been asked")
    assert made.again() <= 4 * IN_FLIGHT


def test_preempted_workers_are_replaced_and_cost_what_they_had_in_flight(job):
    """One after the other loses its node to a job of another partition."""
    made = job(rows=240, site=WHOLE_NODES, answer_s="1")
    run = made.begin("--scheduler", "slurm", "--workers", 2)
    victims: list[str] = []
    while len(victims) < 2:
        made.until(lambda: any(name not in victims for name, _, _ in made.noted()), "a worker that was not preempted")
        victim, _, node = next(each for each in made.noted() if each[0] not in victims)
        made.cluster.call("sbatch", "-p", "main", "-w", node, "--exclusive", "-o", "/dev/null", "--wrap", "sleep 5")
        victims.append(victim)
        made.until(lambda: state(made, victims[-1]) not in ("RUNNING", "COMPLETING"), "the end of the preempted job")
    made.finish(run, 280)
    assert [state(made, victim) for victim in victims] == ["PREEMPTED", "PREEMPTED"], made.worker_logs()
    made.check(240)
    assert len({name for name, _, _ in made.noted()}) > 2, "nobody came in their place"
    assert made.again() <= len(victims) * IN_FLIGHT
    print(f"\n{made.again()} of 240 questions were asked again after preemption of {len(victims)} workers")
    made.until(lambda: made.queue() == "", "an empty queue")


def test_a_chunk_that_ends_its_workers_is_found_on_several_nodes(job):
    """Its part goes from node to node, and nobody waits until leases of dead workers are stale."""
    made = job(rows=60, site=WHOLE_NODES, answer_s="0.3")
    text = (made.folder / "job.yaml").read_text()
    (made.folder / "job.yaml").write_text(text.replace("answers:by_worker", "answers:poisoned"))
    made.variables["POISON"] = "slow30 "
    run = made.begin("--scheduler", "slurm", "--workers", 2)
    out, err = run.communicate(timeout=280)
    assert run.returncode == 3, f"{out}{err}\n{made.worker_logs()}"
    verdict = s1batch.open_results(made.results).verify()
    assert (verdict.ok, verdict.complete, verdict.findings) == (True, True, ())
    table = pl.read_parquet(made.results / "rows/*.parquet")
    assert (table.height, table["chunk_key"].n_unique()) == (60, 60)
    (marked,) = table.filter(pl.col("outcome") != "ok").select("reason", "detail").rows()
    assert marked[0] == "worker_died"
    places = re.findall(r"tcp://[\d.]+:\d+", marked[1])
    assert len(set(places)) == 3, marked
    print(f"\n{made.again()} of 59 questions were asked again; {out.strip().splitlines()[-1]}")
    made.until(lambda: made.queue() == "", "an empty queue")
