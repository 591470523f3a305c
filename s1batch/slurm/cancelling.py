"""Ending what was submitted."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from s1batch.errors import ResultsError
from s1batch.slurm.client import Slurm, SlurmError
from s1batch.slurm.earlier import recorded_jobs
from s1batch.slurm.folder import submissions

Say = Callable[[str], None]

_LOOK_EVERY_S = 0.5


def cancel(
    results: Path, slurm: Slurm, say: Say, *, wait_s: float = 90.0, sleep: Callable[[float], None] = time.sleep
) -> bool:
    """Cancel every job of every submission into a results folder that is in the queue, and wait until it is out of it.

    Args:
        results: The results folder.
        slurm: Who is asked.
        say: Receives lines for a person.
        wait_s: How long to wait for tasks to end.
        sleep: Waits.

    Returns:
        Whether nothing is left in the queue.

    Raises:
        ResultsError: Nothing was ever submitted into this folder.
        SlurmError: Slurm refused, or cannot be asked.
    """
    folders = list(submissions(results))
    if not folders:
        raise ResultsError(f"{results}: nothing was submitted into this folder")
    scripts = slurm.queued_scripts()
    if scripts is None:
        raise SlurmError("squeue cannot be asked what is in the queue; try again")
    jobs = [job for folder in folders for job in recorded_jobs(folder, scripts).all]
    queued = slurm.queue(jobs)
    if queued is None:
        raise SlurmError("squeue cannot be asked what is in the queue; try again")
    live = sorted({each.job for each in queued if not each.ended})
    if not live:
        say(f"{results}: nothing in the queue")
        return True
    slurm.cancel(live)
    say(f"cancelled {', '.join(live)}; answers so far are kept, and submitting again goes on from them")
    give_up = time.monotonic() + wait_s
    while left := [each.name for each in slurm.queue(live) or [] if not each.ended]:
        if time.monotonic() >= give_up:
            say(f"still in the queue after {wait_s:g} s: {', '.join(left[:10])}")
            return False
        sleep(_LOOK_EVERY_S)
    return True
