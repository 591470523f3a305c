"""The seam to Slurm: its own programs, read by fixed formats, each with a time limit.

What Slurm says is a hint. The queue forgets what has ended, accounting lags by seconds or is not there at all, and the
controller may be down for a minute: then a question is answered with None, which says "cannot tell".
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from s1batch.errors import S1BatchError
from s1batch.slurm.flags import OWN
from s1batch.slurm.shards import parse_indices

PATIENCE_S = 30.0
"""How long one of Slurm's programs may take."""

_JOBS_AT_ONCE = 100

DEFAULT_MAX_ARRAY_SIZE = 1001
"""Slurm's own default."""

ENDED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)
"""States from which a job does not come back on its own."""

WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED"})
"""States in which a job does not run, but will, or may when somebody lets it."""


class SlurmError(S1BatchError):
    """Slurm refused, or cannot be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """A job, or a task of an array, as Slurm sees it.

    Attributes:
        job: Number of the job, or of the array.
        index: Index in the array; None for a job of its own.
        state: As Slurm spells it: PENDING, RUNNING, ...
        reason: Why it waits, or why it ended; empty when Slurm says nothing.
        node: Where it runs, or ran.
        exit_code: How it ended, as Slurm writes it, `CODE:SIGNAL`; empty when that is not known.
    """

    job: str
    index: int | None
    state: str
    reason: str = ""
    node: str = ""
    exit_code: str = ""

    @property
    def waits(self) -> bool:
        """Whether it has not begun, or has to begin again."""
        return self.state in WAITING

    @property
    def ended(self) -> bool:
        """Whether it has ended for good."""
        return self.state in ENDED

    @property
    def name(self) -> str:
        """`123_4`, or `123`."""
        return self.job if self.index is None else f"{self.job}_{self.index}"


class Slurm(Protocol):
    """What s1batch asks of Slurm."""

    def max_array_size(self) -> int | None:
        """Return one more than the highest index of an array; None when Slurm cannot be asked."""

    def submit(self, script: Path, after: Sequence[str] = ()) -> str:
        """Submit a script, to run when the jobs `after` have ended however they did; return its number."""

    def queue(self, jobs: Sequence[str]) -> list[JobState] | None:
        """Return what is in the queue of these jobs; None when Slurm cannot be asked."""

    def queued_scripts(self) -> dict[str, str] | None:
        """Return the user's jobs in the queue with their scripts; None when Slurm cannot be asked."""

    def named(self, name: str) -> list[JobState] | None:
        """Return the user's jobs of that name in the queue; None when Slurm cannot be asked."""

    def accounted(self, jobs: Sequence[str]) -> list[JobState] | None:
        """Return what accounting knows of these jobs; None where there is no accounting."""

    def remembered(self, job: str) -> list[JobState] | None:
        """Return what the controller still knows of a job that has ended; None when it cannot be asked."""

    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel jobs; those that have ended are left alone."""

    def requeue(self, task: str) -> None:
        """Put one task back into the queue."""

    def end_time(self, job: str) -> float | None:
        """Return when a running job is ended, seconds since 1970; None when that is not known."""


class SlurmPrograms:
    """Slurm through sbatch, squeue, sacct, scontrol and scancel.

    Args:
        environment: What they are called with.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        # Variables overrule the lines of a script; times come in one format.
        own = {"SBATCH_" + name.upper().replace("-", "_") for name in (*OWN, "array-inx")}
        # A job that is submitted from a task of an array would inherit that task's name.
        array = "SLURM_ARRAY_"
        self._environment = {
            name: value for name, value in environment.items() if name not in own and not name.startswith(array)
        }
        self._environment["SLURM_TIME_FORMAT"] = "standard"

    def max_array_size(self) -> int | None:
        """Return one more than the highest index of an array; None when Slurm cannot be asked."""
        said = self._answer("scontrol", "show", "config")
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", said or "", re.MULTILINE)
        return int(found[1]) if found else None

    def submit(self, script: Path, after: Sequence[str] = ()) -> str:
        """Submit a script, to run when the jobs `after` have ended however they did; return its number.

        Raises:
            SlurmError: It is refused; the text is sbatch's.
        """
        dependency = [f"--dependency=afterany:{':'.join(after)}"] if after else []
        said = self._call("sbatch", "--parsable", *dependency, str(script)).strip()
        number = said.splitlines()[-1].partition(";")[0] if said else ""
        if not number.isdigit():
            raise SlurmError(f"sbatch {script}: its answer holds no job number: {said!r}; look at squeue")
        return number

    def queue(self, jobs: Sequence[str]) -> list[JobState] | None:
        """Return what is in the queue of these jobs; None when Slurm cannot be asked."""
        found: list[JobState] = []
        for number in range(0, len(jobs), _JOBS_AT_ONCE):
            some = jobs[number : number + _JOBS_AT_ONCE]
            try:
                said = self._call(
                    "squeue", "--noheader", "--array", "--jobs", ",".join(some), "--format=%F|%K|%T|%r|%N"
                )
            except SlurmError as error:
                if "Invalid job id" not in str(error):
                    return None
                # A single number that is no longer known is an error; of several, those are left out.
                each = [] if len(some) == 1 else [self.queue([job]) for job in some]
                if any(states is None for states in each):
                    return None
                found += [state for states in each for state in states or []]
                continue
            found += [_queued(line) for line in said.splitlines() if line.count("|") == 4]
        return found

    def queued_scripts(self) -> dict[str, str] | None:
        """Return the user's jobs in the queue with their scripts; None when Slurm cannot be asked."""
        said = self._answer("squeue", "--noheader", "--me", "--format=%F|%o")
        if said is None:
            return None
        return dict(line.split("|", 1) for line in said.splitlines() if "|" in line)

    def named(self, name: str) -> list[JobState] | None:
        """Return the user's jobs of that name in the queue; None when Slurm cannot be asked."""
        said = self._answer("squeue", "--noheader", "--me", "--name", name, "--format=%A|%K|%T|%r|%N")
        return None if said is None else [_queued(line) for line in said.splitlines() if line.count("|") == 4]

    def accounted(self, jobs: Sequence[str]) -> list[JobState] | None:
        """Return what accounting knows of these jobs; None where there is no accounting."""
        fields = "--format=JobID,State,NodeList,ExitCode"
        said = self._answer("sacct", "--noheader", "--parsable2", "--allocations", fields, "--jobs", ",".join(jobs))
        if said is None:
            return None
        return [task for line in said.splitlines() if line.count("|") == 3 for task in _accounted(line)]

    def remembered(self, job: str) -> list[JobState] | None:
        """Return what the controller still knows of a job that has ended; None when it cannot be asked."""
        try:
            said = self._call("scontrol", "--oneliner", "show", "job", job)
        except SlurmError as error:
            return [] if "Invalid job id" in str(error) else None
        found = []
        for line in said.splitlines():
            fields = _fields(line)
            if "JobState" not in fields:
                continue
            state = JobState(
                job=fields.get("ArrayJobId") or fields["JobId"],
                index=None,
                state=fields["JobState"],
                reason=_reason(fields.get("Reason", "")),
                node=fields.get("NodeList", "").replace("(null)", ""),
                exit_code=fields.get("ExitCode", ""),
            )
            found += _tasks(state, fields.get("ArrayTaskId", ""))
        return found

    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel jobs; those that have ended are left alone.

        Raises:
            SlurmError: Slurm refused.
        """
        if jobs:
            self._call("scancel", "--quiet", *jobs)

    def requeue(self, task: str) -> None:
        """Put one task back into the queue.

        Raises:
            SlurmError: Slurm refused.
        """
        self._call("scontrol", "requeue", task)

    def end_time(self, job: str) -> float | None:
        """Return when a running job is ended, seconds since 1970; None when that is not known."""
        said = self._answer("scontrol", "--oneliner", "show", "job", job)
        try:
            return datetime.fromisoformat(_fields(said or "").get("EndTime", "")).timestamp()
        except ValueError:
            return None  # "Unknown", or no answer

    def _answer(self, *command: str) -> str | None:
        try:
            return self._call(*command)
        except SlurmError:
            return None

    def _call(self, *command: str) -> str:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=PATIENCE_S, env=self._environment, check=False
            )
        except FileNotFoundError:
            raise SlurmError(f"{command[0]} is not installed here; run this where Slurm's commands are") from None
        except subprocess.TimeoutExpired:
            raise SlurmError(f"{command[0]} has not answered within {PATIENCE_S:g} s; try again") from None
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
            raise SlurmError(f"{command[0]} refused: {said}")
        return done.stdout


def _queued(line: str) -> JobState:
    job, index, state, reason, node = line.split("|")
    return JobState(
        job=job,
        index=int(index) if index.isdigit() else None,
        state=state,
        reason=_reason(reason),
        node=node,
    )


def _accounted(line: str) -> list[JobState]:
    name, state, node, code = line.split("|")
    job, _, index = name.partition("_")
    found = state.split()[0] if state else "UNKNOWN"  # "CANCELLED by 1000"
    place = "" if node == "None assigned" else node
    return _tasks(JobState(job=job, index=None, state=found, node=place, exit_code=code), index)


def _tasks(state: JobState, indices: str) -> list[JobState]:
    """Return the tasks of a record: one, or several that were cancelled before any of them had begun.

    Args:
        state: The record, as that of a job of its own.
        indices: `3`, `1,3-5%2` or `[1,3-5]`; empty for a job of its own.
    """
    if not indices:
        return [state]
    if not indices.isdigit() and not state.ended:
        return []  # tasks that wait are one record; the queue knows them one by one
    return [replace(state, index=index) for index in parse_indices(indices)]


def _reason(said: str) -> str:
    # That a job has ended with another exit code than 0 says less than the code itself.
    return "" if said in ("None", "(null)", "NonZeroExitCode") else said


def _fields(line: str) -> dict[str, str]:
    return dict(each.split("=", 1) for each in line.split() if "=" in each)
