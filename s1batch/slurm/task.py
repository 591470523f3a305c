"""One task of an array: what it says of itself, and how it goes back into the queue when its time is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from s1batch.errors import BudgetSpent, Interrupted, OutOfTime, ResultsError, S1BatchError, StorageAway
from s1batch.results.task_identity import TaskIdentity
from s1batch.slurm.client import Slurm, SlurmError, SlurmPrograms
from s1batch.slurm.folder import ShardNote, SubmissionFolder
from s1batch.stopping import Stop
from s1batch.subset import Shard

Say = Callable[[str], None]

LEASE_PATIENCE_S = 180.0
"""How long a task waits for leases of a node that was lost: they are stale after 60 s without a heartbeat."""


class TaskReport:
    """Receives how the run of a task ended."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.said = ""

    def ended(self, exit_code: int, said: str) -> None:
        """Say how the run ended."""
        self.exit_code, self.said = exit_code, said


@contextmanager
def task_of(
    folder: Path | None,
    shard: Shard | None,
    stop: Stop,
    say: Say,
    *,
    slurm: Slurm | None = None,
    identity: TaskIdentity | None = None,
) -> Iterator[TaskReport]:
    """Let a run be a task of a submission for the length of a block: note how it goes, requeue it at its time limit.

    Args:
        folder: The submission's folder; None: it is none.
        shard: Its shard.
        stop: Says whether the time limit was near.
        say: Receives lines for a person.
        slurm: Who requeues.
        identity: Which task this is.

    Raises:
        ResultsError: There is no such submission.
    """
    report = TaskReport()
    if folder is None or shard is None:
        yield report
        return
    submission = SubmissionFolder(folder)
    limit = submission.read_spec().requeues
    task = identity or TaskIdentity.here()
    note = ShardNote(shard=shard.index, task=task.name, restarts=task.restarts, node=task.node, began=time.time())
    _keep(submission, note, say)
    try:
        yield report
    except BaseException as error:
        code = error.exit_code if isinstance(error, S1BatchError) else 1
        ended = replace(note, ended=time.time(), exit_code=code, said=str(error) or type(error).__name__)
        if at_limit(error, stop):
            _requeue(submission, ended, task, limit, slurm or SlurmPrograms(), say)
        else:
            _keep(submission, ended, say)
        raise
    _keep(submission, replace(note, ended=time.time(), exit_code=report.exit_code, said=report.said), say)


def at_limit(error: BaseException, stop: Stop) -> bool:
    """Whether a run ended because the time of its task was over, and would go on in another one.

    That may come while a task waits for its disk, and then ends for that reason.
    """
    if isinstance(error, BudgetSpent) or not isinstance(error, Interrupted | StorageAway):
        return False
    return isinstance(error, OutOfTime) or stop.at_limit


def _requeue(
    submission: SubmissionFolder, note: ShardNote, task: TaskIdentity, limit: int, slurm: Slurm, say: Say
) -> None:
    if not task.name:
        _keep(submission, note, say)
        return
    if task.restarts >= limit:
        said = f"the time limit came, and this task was started again {task.restarts} times already (at most {limit})"
        say(f"{said}; submit again to go on")
        _keep(submission, replace(note, said=said), say)
        return
    # The note first: Slurm ends this process when it requeues the task.
    _keep(submission, replace(note, requeued=True, said="the time limit came; back into the queue"), say)
    why = note.said.partition(";")[0]
    say(f"{why}: {task.name} goes back into the queue ({task.restarts + 1} of at most {limit} times)")
    try:
        slurm.requeue(task.name)
    except SlurmError as error:
        say(f"{error}; submit again to go on")
        _keep(submission, replace(note, said=f"not requeued: {error}"), say)


def _keep(submission: SubmissionFolder, note: ShardNote, say: Say) -> None:
    """Write a note; a disk that refuses it costs the note only, for the rows say how far the shard is."""
    try:
        submission.write_note(note)
    except ResultsError as error:
        say(f"{error} (only what this task says of itself is lost)")
