"""The folder of a submission: the only module that spells its names.

RESULTS/slurm/NAME/spec.json        what was submitted
RESULTS/slurm/NAME/array-0.sh ...   the scripts
RESULTS/slurm/NAME/close.sh
RESULTS/slurm/NAME/jobs.json        the numbers that Slurm gave
RESULTS/slurm/NAME/shards/*.json    what each task said of itself last
RESULTS/slurm/NAME/closing.json     what the closing job found
RESULTS/slurm/NAME/logs/*           what tasks printed
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from s1batch.errors import ResultsError
from s1batch.results.atomic import make_folder, results_errors, write_atomic
from s1batch.results.layout import Layout
from s1batch.slurm.spec import SubmissionSpec, SubmittedJobs


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardNote:
    """What a task said of itself last. The truth about rows are the parts' files; this says who, where and why.

    Attributes:
        shard: Its shard.
        task: Its name in Slurm, `123_4`; empty outside.
        restarts: How often Slurm has started it again.
        node: Where it ran.
        began: When, seconds since 1970.
        ended: When; None while it runs, or when it was killed.
        exit_code: How it ended.
        said: The last thing that it said, one line.
        requeued: Whether it put itself back into the queue.
    """

    shard: int
    task: str
    restarts: int
    node: str
    began: float
    ended: float | None = None
    exit_code: int | None = None
    said: str = ""
    requeued: bool = False


@dataclass(frozen=True, slots=True)
class SubmissionFolder:
    """Where the files of one submission are.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def spec(self) -> Path:
        """What was submitted."""
        return self.root / "spec.json"

    @property
    def jobs(self) -> Path:
        """The numbers that Slurm gave."""
        return self.root / "jobs.json"

    @property
    def closing(self) -> Path:
        """What the closing job found."""
        return self.root / "closing.json"

    @property
    def closing_script(self) -> Path:
        """The closing job's script."""
        return self.root / "close.sh"

    @property
    def logs(self) -> Path:
        """What tasks printed."""
        return self.root / "logs"

    def array_script(self, number: int) -> Path:
        """The script of an array."""
        return self.root / f"array-{number}.sh"

    @property
    def closing_log(self) -> Path:
        """What the closing job printed."""
        return self.logs / "closing.log"

    def log(self, task: str) -> Path:
        """What a task printed, by its name."""
        return self.logs / f"{task}.log"

    def note(self, shard: int) -> Path:
        """What the task of a shard said of itself."""
        return self.root / "shards" / f"shard-{shard:05d}.json"

    def create(self, spec: SubmissionSpec, scripts: Sequence[str], closing: str | None) -> None:
        """Make the folder with everything that is there before sbatch is called.

        Raises:
            ResultsError: It cannot be written.
        """
        for folder in (self.root, self.logs, self.note(0).parent):
            make_folder(folder)
        for number, text in enumerate(scripts):
            write_atomic(self.array_script(number), text.encode())
        if closing is not None:
            write_atomic(self.closing_script, closing.encode())
        _write(self.spec, spec.plain())

    def read_spec(self) -> SubmissionSpec:
        """Read what was submitted.

        Raises:
            ResultsError: It is missing or damaged.
        """
        plain = _read(self.spec)
        if plain is None:
            raise ResultsError(f"{self.root}: no submission (spec.json is missing)")
        return SubmissionSpec.from_plain(plain, str(self.spec))

    def write_jobs(self, jobs: SubmittedJobs) -> None:
        """Record the numbers that Slurm gave."""
        _write(self.jobs, asdict(jobs))

    def read_jobs(self) -> SubmittedJobs:
        """Read the numbers that Slurm gave; empty when none was recorded."""
        plain = _read(self.jobs)
        if plain is None:
            return SubmittedJobs()
        try:
            return SubmittedJobs(arrays=tuple(plain["arrays"]), closing=plain["closing"], at=plain["at"])
        except (KeyError, TypeError) as error:
            raise ResultsError(f"{self.jobs}: damaged, or written by another version: {error}") from error

    def write_note(self, note: ShardNote) -> None:
        """Record what a task says of itself."""
        _write(self.note(note.shard), asdict(note))

    def read_note(self, shard: int) -> ShardNote | None:
        """Read what the task of a shard said of itself last; None when it never did, or not readably."""
        try:
            plain = _read(self.note(shard))
            return None if plain is None else ShardNote(**plain)
        except (ResultsError, TypeError):
            return None

    def write_closing(self, plain: dict[str, Any]) -> None:
        """Record what the closing job found."""
        _write(self.closing, plain)

    def read_closing(self) -> dict[str, Any] | None:
        """Read what the closing job found; None before it has ended."""
        found = _read(self.closing)
        return found if isinstance(found, dict) else None


def submissions(results: Path) -> Iterator[SubmissionFolder]:
    """Yield the submissions into a results folder, the oldest first.

    Raises:
        ResultsError: The folder cannot be read.
    """
    folder = Layout(results).slurm
    with results_errors(folder):
        names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for name in names:
        found = SubmissionFolder(folder / name)
        if found.spec.exists():
            yield found


def new_name(now: float, digits: str) -> str:
    """Return a name for a submission; names sort by time."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f"{int(now * 1000) % 1000:03d}-{digits}"


def _write(path: Path, plain: Any) -> None:
    write_atomic(path, orjson.dumps(plain, option=orjson.OPT_INDENT_2) + b"\n")


def _read(path: Path) -> Any:
    with results_errors(path):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ResultsError(f"{path}: damaged: {error}") from error
