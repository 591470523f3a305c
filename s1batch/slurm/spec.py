"""What was submitted: plain data, kept as JSON beside the scripts that were made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from s1batch.errors import ResultsError

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySlice:
    """One array of a submission.

    Attributes:
        offset: What is added to an index to get the number of its shard.
        indices: Its indices, in order.
        parallel: Most tasks of it at a time; None: no limit.
    """

    offset: int
    indices: tuple[int, ...]
    parallel: int | None = None

    @property
    def shards(self) -> tuple[int, ...]:
        """The shards that its tasks run."""
        return tuple(index + self.offset for index in self.indices)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionSpec:
    """Everything that a submission's scripts say.

    Attributes:
        name: Name of the submission, and of its folder.
        created: When it was made (UTC, ISO 8601).
        s1batch: Version of the program that made it.
        job: Path of the job file.
        job_name: Name of the Slurm jobs.
        overrides: `a.b=c` settings of the job.
        results: The results folder.
        folder: The submission's folder.
        workdir: Where the tasks run.
        shards: How many shards the job is cut into; explicit, because an array may hold some of them only.
        arrays: Which of them are submitted.
        accept: Outcomes besides ok that leave a task's exit code at 0, as `--accept` takes them; None: the job's.
        command: The program as the tasks call it, shell text.
        setup: Lines of the scripts before that: modules, environments.
        sbatch: Options of sbatch for the arrays; None: without a value.
        closing: Whether a closing job looks at the results when all tasks have ended.
        closing_sbatch: Options of sbatch for it.
        signal_before_s: How long before its time limit a task is told to stop.
        requeues: How often a task may be put back into the queue at its time limit.
        scheduler: Who runs the parts of a task, as `--scheduler` takes it; None: the job's.
        workers: Worker processes of a task; None: the job's.
        extended: Whether files that were not in the plan were added to it before.
        retried: Outcomes whose rows were set free before, to be asked again.
    """

    name: str
    created: str
    s1batch: str
    job: str
    job_name: str
    overrides: tuple[str, ...]
    results: str
    folder: str
    workdir: str
    shards: int
    arrays: tuple[ArraySlice, ...]
    accept: str | None
    command: str
    setup: tuple[str, ...]
    sbatch: Mapping[str, str | None]
    closing: bool
    closing_sbatch: Mapping[str, str | None]
    signal_before_s: int
    requeues: int
    # Specifications that were written before these fields were there are read as well.
    scheduler: str | None = None
    workers: int | None = None
    extended: bool = False
    retried: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_plain(cls, plain: Any, where: str) -> Self:
        """Return what `plain()` gave.

        Args:
            plain: The data.
            where: What it was read from, for the message.

        Raises:
            ResultsError: It is something else.
        """
        try:
            fields = dict(plain)
            version = fields.pop("format")
            if version != FORMAT:
                raise ValueError(f"format {version} is not known")
            arrays = tuple(
                ArraySlice(offset=each["offset"], indices=tuple(each["indices"]), parallel=each["parallel"])
                for each in fields.pop("arrays")
            )
            overrides, setup = tuple(fields.pop("overrides")), tuple(fields.pop("setup"))
            retried = tuple(fields.pop("retried", ()))
            return cls(arrays=arrays, overrides=overrides, setup=setup, retried=retried, **fields)
        except (KeyError, TypeError, ValueError) as error:
            raise ResultsError(f"{where}: damaged, or written by another version: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedJobs:
    """The numbers that Slurm gave, in the order of `SubmissionSpec.arrays`; recorded as soon as each is known.

    Attributes:
        arrays: Job numbers of the arrays.
        closing: Job number of the closing job; None when there is none (yet).
        at: When the last one was submitted, seconds since 1970.
    """

    arrays: tuple[str, ...] = ()
    closing: str | None = None
    at: float = 0.0

    @property
    def all(self) -> tuple[str, ...]:
        """All job numbers."""
        return self.arrays if self.closing is None else (*self.arrays, self.closing)
