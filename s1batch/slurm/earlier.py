"""What earlier submissions into the same results still do, and so what another one must leave to them.

A shard that waits or runs in an earlier submission is left to it. That needs one number of shards, because `part % N`
says which parts those are; and it needs the plan as it is. Where either changes, all earlier tasks must be over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from s1batch.errors import LockedError
from s1batch.slurm.client import Slurm, SlurmError
from s1batch.slurm.folder import SubmissionFolder, submissions
from s1batch.slurm.progress import PartsDone, parts_done
from s1batch.slurm.shards import index_text
from s1batch.slurm.spec import SubmittedJobs
from s1batch.slurm.state import SubmissionState, submission_state
from s1batch.wording import count


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """An earlier submission of which something may still run.

    Attributes:
        name: Its name.
        count: How many shards the job is cut into there.
        shards: Those whose tasks may still run, in order; a shard that is complete counts, too.
        arrays: Job numbers of its arrays.
        closing: Job number of its closing job; None when there is none, or when it is over.
    """

    name: str
    count: int
    shards: tuple[int, ...]
    arrays: tuple[str, ...]
    closing: str | None

    @property
    def jobs(self) -> tuple[str, ...]:
        """Jobs that may still be in the queue."""
        return ((*self.arrays,) if self.shards else ()) + ((self.closing,) if self.closing is not None else ())

    @property
    def job_words(self) -> str:
        """Its arrays, for a person."""
        return f"{'job' if len(self.arrays) == 1 else 'jobs'} {', '.join(self.arrays)}"


def earlier_at_work(results: Path, slurm: Slurm) -> list[Earlier]:
    """Return the submissions into a results folder of which something may still run, the oldest first.

    Raises:
        SlurmError: Slurm cannot be asked.
    """
    folders = list(submissions(results))
    if not folders:
        return []
    done = parts_done(results)
    scripts = slurm.queued_scripts()
    if scripts is None:
        raise SlurmError(f"{results}: squeue cannot be asked whether an earlier submission still runs; try again")
    found = [_earlier(folder, done, scripts, slurm) for folder in folders]
    return [each for each in found if each.jobs]


def left_to(earlier: Sequence[Earlier], shards: int, results: Path) -> frozenset[int]:
    """Return the shards that earlier submissions have at work, out of `shards`.

    Raises:
        LockedError: One that is not over cuts the job into another number of shards.
    """
    for each in earlier:
        if each.shards and each.count != shards:
            raise LockedError(
                f"{results}: submission {each.name} ({each.job_words}) cuts the job into {each.count} shards, and "
                f"{count(len(each.shards), 'task')} of it may still run: submit with --array {each.count}, wait for it "
                f"(`s1batch status {results}`) or end it (`s1batch cancel {results}`)"
            )
    return frozenset(shard for each in earlier for shard in each.shards)


def left_lines(earlier: Sequence[Earlier], missing: Sequence[int]) -> list[str]:
    """Return for a person which of the shards that are not complete are left to whom."""
    lines = []
    for each in earlier:
        left = [shard for shard in missing if shard in each.shards]
        if left:
            is_left = "is at work or waits" if len(left) == 1 else "are at work or wait"
            them = "is" if len(left) == 1 else "are"
            which = f"{count(len(left), 'shard')} ({index_text(left)})"
            lines.append(f"{which} {is_left} in {each.job_words}, and {them} left to it")
    return lines


def check_alone(results: Path, slurm: Slurm) -> None:
    """Make sure that no task of an earlier submission into the same results may still run.

    Raises:
        LockedError: One may.
        SlurmError: Slurm cannot be asked.
    """
    for each in earlier_at_work(results, slurm):
        if each.shards:
            raise LockedError(
                f"{results}: submission {each.name} ({each.job_words}) is not over yet: "
                f"{count(len(each.shards), 'shard')} of it may still run, and what is done here would change the plan "
                f"or the rows under them; wait for it (`s1batch status {results}`) or end it "
                f"(`s1batch cancel {results}`)"
            )


def recorded_jobs(folder: SubmissionFolder, scripts: dict[str, str]) -> SubmittedJobs:
    """Return the jobs of a submission, with those in the queue that were never recorded: submit was killed meanwhile.

    Args:
        folder: The submission's folder.
        scripts: The user's jobs in the queue, with their scripts.
    """
    jobs = folder.read_jobs()
    lost = {script: job for job, script in scripts.items() if job not in jobs.all}
    # Arrays are submitted in order, and each is recorded before the next.
    while (job := lost.get(str(folder.array_script(len(jobs.arrays))))) is not None:
        jobs = replace(jobs, arrays=(*jobs.arrays, job))
    if jobs.closing is None:
        jobs = replace(jobs, closing=lost.get(str(folder.closing_script)))
    return jobs


def _earlier(folder: SubmissionFolder, done: PartsDone, scripts: dict[str, str], slurm: Slurm) -> Earlier:
    state = submission_state(folder, done, slurm, jobs=recorded_jobs(folder, scripts))
    closing = state.closing is not None and not state.closing.ended
    return Earlier(
        name=state.spec.name,
        count=state.spec.shards,
        shards=_may_run(state),
        arrays=state.jobs.arrays,
        closing=state.jobs.closing if closing else None,
    )


def _may_run(state: SubmissionState) -> tuple[int, ...]:
    """Return the shards whose tasks are in the queue, or not known yet."""
    if not state.jobs.arrays:
        return ()  # never submitted
    return tuple(sorted(shard.shard for shard in state.shards if shard.may_run))
