"""What `submit` does with the results themselves.

A conflict is noticed before tasks wait for hours to notice it, and what must happen once is not left to every task.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from s1batch.assembly import engine_facts
from s1batch.beginning import Planned, prepare_results
from s1batch.errors import ConflictError, S1BatchError
from s1batch.jobfile import LoadedJob
from s1batch.results.layout import Layout
from s1batch.results.lease import LeaseKeeper
from s1batch.results.store import SUBMIT
from s1batch.slurm.client import Slurm
from s1batch.slurm.earlier import check_alone
from s1batch.slurm.submitting import SubmitOptions
from s1batch.stopping import Stop, at_once

Say = Callable[[str], None]


def check_results(loaded: LoadedJob, results: Path, say: Say) -> None:
    """Make sure that results that are there, if any, are those of this job, as far as is known without its engine.

    Raises:
        ConflictError: They are of another one; names the fields that differ.
    """
    if not Layout(results).run.exists():
        return
    try:
        Planned.of(loaded, engine_facts(loaded, offline=True), results).check(offline=True)
    except ConflictError:
        raise
    except S1BatchError as error:
        # What the tasks find where they run may not be here: a model on their disks, a package.
        say(f"not compared with what is in {results}: {error}")


def make_ready(loaded: LoadedJob, options: SubmitOptions, slurm: Slurm, say: Say, stop: Stop) -> None:
    """Do once, before anything is submitted, what the tasks must not do each; see `prepare_results`.

    Where that changes the plan or rows, no task may be at work: it would not know, or do it again.

    Raises:
        ConflictError: The results are of another job.
        LockedError: An earlier submission into the same results may still run, or another one is being made.
        SlurmError: Slurm cannot be asked.
        Interrupted: `stop` was set.
    """
    results = options.results(loaded)
    with LeaseKeeper(Layout(results).leases) as keeper, keeper.lease(SUBMIT):
        if options.extend or options.retry or not Layout(results).plan().exists():
            check_alone(results, slurm)
        with at_once(stop):
            prepare_results(loaded, results, say=say, stop=stop, extend=options.extend, retried=options.retry)
