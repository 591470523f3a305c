"""Which tasks, named in leases, are over: their processes are gone, although their leases are still fresh."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from s1batch.slurm.client import JobState, Slurm
from s1batch.slurm.state import afterwards, by_name


def ended_tasks(tasks: Iterable[str], slurm: Slurm) -> Mapping[str, str]:
    """Return those of these tasks that have no process now, as far as Slurm knows, with what it says of them.

    Args:
        tasks: Names of tasks, `123_4`, or of jobs.
        slurm: Who is asked.
    """
    wanted = {task for task in tasks if task}
    jobs = sorted({task.partition("_")[0] for task in wanted})
    queued = slurm.queue(jobs) if jobs else None
    if queued is None:
        return {}
    known = by_name(queued)
    missing = sorted({task.partition("_")[0] for task in wanted if task not in known})
    known = {**afterwards(slurm, missing), **known} if missing else known
    return {task: _words(known[task]) for task in sorted(wanted) if task in known and _has_no_process(known[task])}


def _has_no_process(state: JobState) -> bool:
    # A task that was put back into the queue waits there without one; one that is suspended has some that stand still.
    return state.ended or (state.waits and state.state != "SUSPENDED")


def _words(state: JobState) -> str:
    return f"{state.name} {'is ' if state.waits else ''}{state.state.lower().replace('_', ' ')}"
