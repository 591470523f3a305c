"""Runs parts on a crew of workers, from wherever they come, to the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, suppress
from dataclasses import replace

from s1batch.canonical import digest
from s1batch.errors import S1BatchError
from s1batch.scheduler import Choice, PartTask, Watch
from s1batch.session import SessionSetup
from s1batch.slurm.site import read_site, site_file
from s1batch.stopping import StopSign
from s1batch.workers.crew import Crew, connected, local, quiet_client
from s1batch.workers.jobqueue import import_jobqueue
from s1batch.workers.plugin import SessionPlugin
from s1batch.workers.submission import Submission

WORKER_LOSS_PATIENCE_S = 75.0
"""How long a part waits for the lease of a worker that died; longer than a lease takes to go stale."""

_LOST = (OSError, TimeoutError, CancelledError)
"""What calls of a client raise when its scheduler has gone (`CommClosedError` is an OSError)."""


def run_on_dask(
    choice: Choice,
    setup: SessionSetup,
    tasks: Sequence[PartTask],
    *,
    workers: int | None,
    watch: Watch,
    stop: StopSign,
    say: Callable[[str], None],
) -> None:
    """Run parts on Dask workers.

    A part whose worker dies is run again on another; what was answered is in its journal.

    Raises:
        Interrupted: `stop` was set before every part had ended.
        MissingExtra: A package that the scheduler needs is not installed.
        S1BatchError: What ended the run.
    """
    quiet_client()
    with _crew(choice, setup, len(tasks), workers, say) as crew:
        try:
            say(f"Dask dashboard: {crew.client.dashboard_link}")
            _run(crew, setup, tasks, watch, stop)
        except _LOST as error:
            where = "of this run" if crew.owned else choice.name
            raise S1BatchError(
                f"the Dask scheduler {where} has gone ({type(error).__name__}); what was answered is in the journals: "
                "start a scheduler and run again to go on"
            ) from error


def _run(crew: Crew, setup: SessionSetup, tasks: Sequence[PartTask], watch: Watch, stop: StopSign) -> None:
    patience_s = max(setup.lease_patience_s, WORKER_LOSS_PATIENCE_S)
    setup = replace(setup, share=crew.at_start, lease_patience_s=patience_s)
    # Two runs on one cluster must not meet in one plugin, and a run that goes on replaces the one that was killed.
    plugin = f"s1batch-session-{digest([str(setup.results.resolve()), setup.run])}"
    crew.client.register_plugin(SessionPlugin(setup, crew.lifetime, owns_process=crew.owned), name=plugin)
    try:
        Submission(crew, setup, plugin, watch, stop).run(tasks)
    finally:
        with suppress(*_LOST):
            crew.client.unregister_worker_plugin(plugin)


def _crew(
    choice: Choice, setup: SessionSetup, parts: int, workers: int | None, say: Callable[[str], None]
) -> AbstractContextManager[Crew]:
    if choice.name == "local":
        return local(setup.loaded, workers, parts, say)
    if choice.name not in ("slurm", "allocation"):
        return connected(choice.name, say)
    site = read_site(site_file()).slurm
    if choice.name == "slurm":
        import_jobqueue()
        from s1batch.workers.jobs import in_jobs

        return in_jobs(setup, site, workers, parts, say)
    from s1batch.workers.allocation import in_allocation

    return in_allocation(setup, site, workers, parts, say)
