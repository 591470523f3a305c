"""How far the submissions into a results folder are: part files first, then what Slurm says about the rest.

A shard whose parts are all there is complete, whatever Slurm says. About the others the queue is asked, then
accounting where there is some, then the controller's memory, then the task's own note. Where nobody knows a task, it
is "unknown" for two minutes after it was submitted, and "gone" from then on: nobody waits for it for ever. A shard
that a later submission has taken over is that one's business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
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

Standing = Literal["complete", "running", "waiting", "ended", "again", "gone", "unknown"]
"""complete: all parts are there; ended: Slurm or the task says that it is over, with parts missing; again: submitted
again since; gone: nobody knows it any more; unknown: nobody knows it yet, or Slurm cannot be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardState:
    """How far one shard is.

    Attributes:
        shard: Its number.
        task: Name of its task in Slurm; empty when it was never submitted.
        standing: How it stands.
        finished: Parts of it that are there.
        parts: Parts that it has; None before there is a plan.
        slurm: What Slurm says of its task; None when nothing.
        note: What its task said of itself last.
    """

    shard: int
    task: str
    standing: Standing
    finished: int
    parts: int | None
    slurm: JobState | None
    note: ShardNote | None

    @property
    def live(self) -> bool:
        """Whether rows may still come from it."""
        return self.standing in ("running", "waiting", "unknown")

    @property
    def lost(self) -> bool:
        """Whether it is over without being complete, and nobody has submitted it again."""
        return self.standing in ("ended", "gone")

    @property
    def may_run(self) -> bool:
        """Whether its task may still run, if only because it has not noticed that its shard is complete."""
        return self.live or (self.slurm is not None and not self.slurm.ended)


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
        return any(each.may_run for each in self.shards)


def submission_state(
    folder: SubmissionFolder,
    done: PartsDone,
    slurm: Slurm,
    clock: Callable[[], float] = time.time,
    *,
    jobs: SubmittedJobs | None = None,
    later: Collection[int] = (),
) -> SubmissionState:
    """Return how far a submission is.

    Args:
        folder: Its folder.
        done: The parts that are there.
        slurm: Who is asked.
        clock: The present time, seconds since 1970.
        jobs: Its jobs; None: as they were recorded.
        later: The shards of it that were submitted again since.
    """
    spec = folder.read_spec()
    jobs = jobs if jobs is not None else folder.read_jobs()
    of_shards = parts_of_shards(done.parts, done.finished, spec.shards) if done.parts is not None else None
    tasks: dict[int, tuple[str, tuple[int, int] | None]] = {}
    for number, array in enumerate(spec.arrays):
        job = jobs.arrays[number] if number < len(jobs.arrays) else ""
        for index in array.indices:
            shard = index + array.offset
            parts = None if of_shards is None else of_shards.get(shard, (0, 0))
            tasks[shard] = (f"{job}_{index}" if job else "", parts)
    queued = slurm.queue(jobs.all) if jobs.all else []
    known = by_name(queued or [])
    if queued is not None:
        # The queue forgets each task that has ended, also while others of its array go on.
        wanted = [task for shard, (task, parts) in tasks.items() if _is_open(parts) and task and shard not in later]
        if jobs.closing is not None and not folder.closing.exists():
            wanted.append(jobs.closing)
        asked = sorted({name.partition("_")[0] for name in wanted if name not in known})
        known = {**afterwards(slurm, asked), **known} if asked else known
    young = clock() - jobs.at < UNKNOWN_S
    states = []
    for shard, (task, parts) in tasks.items():
        told = known.get(task)
        note = folder.read_note(shard) if _is_open(parts) else None
        standing = _standing(parts, told, note, task, young=young, reachable=queued is not None)
        if standing in ("ended", "gone", "unknown") and shard in later:
            standing = "again"
        finished, whole = parts if parts is not None else (0, None)
        states.append(
            ShardState(shard=shard, task=task, standing=standing, finished=finished, parts=whole, slurm=told, note=note)
        )
    closing = known.get(jobs.closing) if jobs.closing is not None else None
    return SubmissionState(spec=spec, jobs=jobs, shards=tuple(states), closing=closing, reachable=queued is not None)


def submission_states(results: Path, slurm: Slurm) -> list[SubmissionState]:
    """Return how far all submissions into a results folder are, the oldest first."""
    done = parts_done(results)
    folders = list(submissions(results))
    return [
        submission_state(folder, done, slurm, later=submitted_later(folder, folders[number + 1 :]))
        for number, folder in enumerate(folders)
    ]


def submitted_later(folder: SubmissionFolder, later: Iterable[SubmissionFolder]) -> frozenset[int]:
    """Return the shards of a submission that later ones have submitted again."""
    spec = folder.read_spec()
    mine = {shard for array in spec.arrays for shard in array.shards}
    again: set[int] = set()
    for each in later:
        other = each.read_spec()
        if not each.read_jobs().arrays:
            continue  # refused, or still being made
        # Another number of shards is submitted only when nothing of this one may run any more: then it has them all.
        again |= mine if other.shards != spec.shards else {shard for array in other.arrays for shard in array.shards}
    return frozenset(again & mine)


def by_name(states: Iterable[JobState]) -> dict[str, JobState]:
    """Return states by the names of their tasks or jobs."""
    return {each.name: each for each in states}


def afterwards(slurm: Slurm, jobs: Sequence[str]) -> dict[str, JobState]:
    """Return by name what is known of jobs that are no longer in the queue, or tasks of them that are not.

    The controller's memory goes over accounting, which lags.
    """
    found = by_name(slurm.accounted(jobs) or [])
    for job in jobs:
        found.update(by_name(slurm.remembered(job) or []))
    return found


def _is_open(parts: tuple[int, int] | None) -> bool:
    """Whether a shard lacks parts, by how many are finished out of how many; None: there is no plan yet."""
    return parts is None or parts[0] < parts[1]


def _standing(
    parts: tuple[int, int] | None,
    told: JobState | None,
    note: ShardNote | None,
    task: str,
    *,
    young: bool,
    reachable: bool,
) -> Standing:
    if not _is_open(parts):
        return "complete"
    if told is not None and not told.ended:
        return "waiting" if told.waits else "running"
    if told is not None:
        return "ended"
    if not reachable:
        return "unknown"
    if note is not None and note.ended is not None and note.task == task and not note.requeued:
        return "ended"
    return "unknown" if young else "gone"
