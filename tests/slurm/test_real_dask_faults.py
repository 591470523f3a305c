"""Dask workers on a real Slurm that are preempted, or die of a chunk: each row is there exactly once."""

from __future__ import annotations

import re
from collections.abc import Callable

import polars as pl
import pytest

import s1batch
from tests.slurm.test_real_dask import IN_FLIGHT, Elastic

pytestmark = pytest.mark.slow

WHOLE_NODES = '[slurm.workers.sbatch]\npartition = "spot"\ncpus-per-task = "8"'
"""Each worker has a node to itself."""


@pytest.fixture
def job(bare, tmp_path) -> Callable[..., Elastic]:
    return lambda **fields: Elastic(bare, tmp_path / "job", **fields)


def state(made: Elastic, number: str) -> str:
    return made.cluster.call("scontrol", "--oneliner", "show", "job", number).partition("JobState=")[2].split()[0]


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
