"""How far the submissions into a results folder are: part files first, then what Slurm says about the rest.

A shard whose parts are all there is complete, whatever Slurm says. About the others the queue is asked, then
accounting where there is some, then the controller's memory, then the task's own note. Where nobody knows a task, it
is "unknown" for two minutes after it was submitted, and "gone" from then on: nobody waits for it for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from s1batch.slurm.client import JobState, Slurm
from s1batch.slurm.folder import ShardNote, SubmissionFolder, submissions
from s1batch.slurm.progress import PartsDone, parts_done
from s1batch.slurm.shards import parts_of_shards
from s1batch.slurm.spec import SubmissionSpec, SubmittedJobs

UNKNOWN_S = 120.0
"""How long after its submission a task that nobody knows counts as one that may still come."""

Standing = Literal["complete", "running", "waiting", "ended", "gone", "unknown"]
"""complete: all parts are there; ended: Slurm or the task says that it is over, with parts missing; gone: nobody knows
it any more; unknown: nobody knows it yet, or Slurm cannot be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardState:
    """How far one shard is.

    Attributes:
        shard: Its number.
        standing: How it stands.
        finished: Parts of it that are there.
        parts: Parts that it has; None before there is a plan.
        slurm: What Slurm says of its task; None when nothing.
        note: What its task said of itself last.
    """

    shard: int
    standing: Standing
    finished: int
    parts: int | None
    slurm: JobState | None
    note: ShardNote | None

    @property
    def live(self) -> bool:
        """Whether rows may still come from it."""
        return self.standing in ("running", "waiting", "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionState:
    """How far one submission is.

    Attributes:
        spec: What was submitted.
        jobs: The numbers that Slurm gave.
        shards: How far its shards are, in order.
        closing: What Slurm says of the closing job; None when nothing.
        reachable: Whether Slurm's queue could be asked.
    """

    spec: SubmissionSpec
    jobs: SubmittedJobs
    shards: tuple[ShardState, ...]
    closing: JobState | None
    reachable: bool

    @property
    def live(self) -> bool:
        """Whether any task of an array may still run: in the queue, or not known yet."""
        in_queue = any(each.slurm is not None and not each.slurm.ended for each in self.shards)
        return in_queue or any(each.live for each in self.shards)


def submission_state(
    folder: SubmissionFolder, done: PartsDone, slurm: Slurm, clock: Callable[[], float] = time.time
) -> SubmissionState:
    """Return how far a submission is.

    Args:
        folder: Its folder.
        done: The parts that are there.
        slurm: Who is asked.
        clock: The present time, seconds since 1970.
    """
    spec, jobs = folder.read_spec(), folder.read_jobs()
    queued = slurm.queue(jobs.all) if jobs.all else []
    known = _by_name(queued or [])
    waiting = [job for job in jobs.all if not any(each.job == job for each in known.values())]
    if waiting and queued is not None:
        known = {**_afterwards(slurm, waiting), **known}
    of_shards = parts_of_shards(done.parts, done.finished, spec.shards) if done.parts is not None else None
    young = clock() - jobs.at < UNKNOWN_S
    states = []
    for number, array in enumerate(spec.arrays):
        job = jobs.arrays[number] if number < len(jobs.arrays) else None
        for index in array.indices:
            shard = index + array.offset
            finished, parts = (0, None) if of_shards is None else of_shards.get(shard, (0, 0))
            told = known.get(f"{job}_{index}")
            complete = parts is not None and finished >= parts
            note = None if complete else folder.read_note(shard)
            standing = _standing(finished, parts, told, note, job, young=young, reachable=queued is not None)
            states.append(
                ShardState(shard=shard, standing=standing, finished=finished, parts=parts, slurm=told, note=note)
            )
    closing = known.get(jobs.closing) if jobs.closing is not None else None
    return SubmissionState(spec=spec, jobs=jobs, shards=tuple(states), closing=closing, reachable=queued is not None)


def submission_states(results: Path, slurm: Slurm) -> list[SubmissionState]:
    """Return how far all submissions into a results folder are, the oldest first."""
    done = parts_done(results)
    return [submission_state(folder, done, slurm) for folder in submissions(results)]


def _by_name(states: list[JobState]) -> dict[str, JobState]:
    return {each.name: each for each in states}


def _afterwards(slurm: Slurm, jobs: list[str]) -> Mapping[str, JobState]:
    """Return what is known of jobs that are no longer in the queue: the controller's memory goes over accounting."""
    found = _by_name(slurm.accounted(jobs) or [])
    for job in jobs:
        found.update(_by_name(slurm.remembered(job) or []))
    return found


def _standing(
    finished: int,
    parts: int | None,
    told: JobState | None,
    note: ShardNote | None,
    job: str | None,
    *,
    young: bool,
    reachable: bool,
) -> Standing:
    if parts is not None and finished >= parts:
        return "complete"
    if told is not None and not told.ended:
        return "waiting" if told.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED") else "running"
    if told is not None:
        return "ended"
    if not reachable:
        return "unknown"
    if note is not None and note.ended is not None and note.task.partition("_")[0] == job and not note.requeued:
        return "ended"
    return "unknown" if young else "gone"
