"""A Slurm without a cluster: jobs are what tests say they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from s1batch.slurm.client import JobState, SlurmError


class FakeSlurm:
    """Gives numbers to scripts, and says about jobs what its attributes hold."""

    def __init__(self) -> None:
        self.scripts: dict[str, Path] = {}
        self.after: dict[str, tuple[str, ...]] = {}
        self.in_queue: list[JobState] = []
        self.in_accounting: list[JobState] | None = None
        self.in_memory: list[JobState] = []
        self.cancelled: list[str] = []
        self.requeued: list[str] = []
        self.reachable = True
        self.refuses_from = 1 << 30
        self.refuses_requeue = False
        self.array_size: int | None = 1001
        self.ends_at: float | None = None
        self.asked_about: list[str] = []

    def max_array_size(self) -> int | None:
        return self.array_size

    def submit(self, script: Path, after: Sequence[str] = ()) -> str:
        if len(self.scripts) >= self.refuses_from:
            raise SlurmError("sbatch refused: no more for you")
        number = str(100 + len(self.scripts))
        self.scripts[number], self.after[number] = script, tuple(after)
        return number

    def queue(self, jobs: Sequence[str]) -> list[JobState] | None:
        return [each for each in self.in_queue if each.job in jobs] if self.reachable else None

    def queued_scripts(self) -> dict[str, str] | None:
        live = {each.job for each in self.in_queue}
        return {job: str(path) for job, path in self.scripts.items() if job in live} if self.reachable else None

    def named(self, name: str) -> list[JobState] | None:
        return list(self.in_queue) if self.reachable else None

    def accounted(self, jobs: Sequence[str]) -> list[JobState] | None:
        return None if self.in_accounting is None else [each for each in self.in_accounting if each.job in jobs]

    def remembered(self, job: str) -> list[JobState] | None:
        return [each for each in self.in_memory if each.job == job] if self.reachable else None

    def cancel(self, jobs: Sequence[str]) -> None:
        self.cancelled += jobs
        self.in_queue = [each for each in self.in_queue if each.job not in jobs]

    def requeue(self, task: str) -> None:
        if self.refuses_requeue:
            raise SlurmError("scontrol refused: Requested operation is presently disabled")
        self.requeued.append(task)

    def end_time(self, job: str) -> float | None:
        self.asked_about.append(job)
        return self.ends_at


def task(job: str, index: int | None, state: str, **fields: str) -> JobState:
    return JobState(job=job, index=index, state=state, **fields)
