"""The step of an allocation that its workers are."""

from __future__ import annotations

import pytest

from s1batch.errors import UsageError
from s1batch.slurm.site import WorkersSite
from s1batch.workers.allocation import Allocation, step_command

INSIDE = {"SLURM_JOB_ID": "12", "SLURM_JOB_NUM_NODES": "3", "SLURM_JOB_CPUS_PER_NODE": "8(x2),4"}


def test_outside_of_an_allocation_it_says_what_to_do():
    with pytest.raises(UsageError, match="run it inside of one, or use --scheduler slurm"):
        Allocation.here({})


def test_the_node_with_the_fewest_cpus_counts():
    assert Allocation.here(INSIDE) == Allocation(job="12", nodes=3, cpus=4)


@pytest.mark.parametrize(("asked", "each"), [(None, 2), (1, 1), (3, 1), (4, 2), (12, 4)])
def test_workers_are_spread_over_all_nodes(asked, each):
    assert Allocation.here(INSIDE).workers_per_node(asked) == each


def test_the_step_leaves_the_engine_its_gpus_and_its_place():
    site = WorkersSite(interface="ib0", python="apptainer exec s1batch.sif python", local_directory="/tmp")
    command = step_command(Allocation.here(INSIDE), 2, 5, "tcp://node0:4000", site)
    assert " ".join(command) == (
        "srun --jobid=12 --overlap --gres=none --mem=0 --cpu-bind=none --mpi=none --export=ALL "
        "--job-name=s1batch-workers --kill-on-bad-exit=0 --nodes=3 --ntasks=6 --ntasks-per-node=2 "
        "--cpus-per-task=2 apptainer exec s1batch.sif python -m distributed.cli.dask_worker tcp://node0:4000 "
        "--nthreads=5 --memory-limit=0 --death-timeout=60 --no-dashboard --preload-nanny=s1batch.workers.forking "
        "--interface=ib0 --local-directory=/tmp"
    )


def test_more_workers_than_cpus_share_them():
    command = step_command(Allocation(job="1", nodes=1, cpus=1), 2, 2, "tcp://node0:4000", WorkersSite())
    assert {"--cpus-per-task=1", "--overcommit"} <= set(command)
