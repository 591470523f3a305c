"""From a job to arrays in the queue: only shards that are not complete and that no earlier submission has at work.

All arrays of a submission come into the queue, or none. Who submits holds a lease while it looks and submits, so that
no two take the same shard.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from s1batch import __version__
from s1batch.errors import LockedError, UsageError
from s1batch.jobfile import LoadedJob
from s1batch.outcome_names import parse_outcomes
from s1batch.records import Outcome
from s1batch.results.layout import Layout
from s1batch.results.lease import LeaseKeeper
from s1batch.results.store import SUBMIT
from s1batch.slurm.client import DEFAULT_MAX_ARRAY_SIZE, Slurm, SlurmError
from s1batch.slurm.earlier import Earlier, earlier_at_work, left_lines, left_to
from s1batch.slurm.flags import Flags, closing_flags, joined, seconds_of
from s1batch.slurm.folder import SubmissionFolder, new_name
from s1batch.slurm.progress import parts_done
from s1batch.slurm.script import array_script, closing_script
from s1batch.slurm.shards import array_slices, incomplete_shards
from s1batch.slurm.site import SlurmSite
from s1batch.slurm.spec import SubmissionSpec, SubmittedJobs
from s1batch.wording import count

Say = Callable[[str], None]

START_S = 15
"""What a task needs at least between its start and the signal, or it would do nothing but be requeued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOptions:
    """What a person asks for; None takes the site's value.

    Attributes:
        shards: How many shards.
        overrides: `a.b=c` settings of the job.
        output: The results folder; None takes the job's.
        parallel: Most tasks at a time.
        sbatch: Options of sbatch, over the site's.
        setup: Lines behind the site's.
        command: s1batch as tasks call it.
        signal_before_s: How long before its time limit a task is told to stop.
        requeues: How often a task may be requeued at its time limit.
        accept: Outcomes besides ok that leave a task's exit code at 0.
        closing: Whether there is a closing job.
        scheduler: Who runs the parts of a task; None: the job's.
        workers: Worker processes of a task; None: the job's.
        plan: Whether the plan is made before anything is submitted.
        extend: Whether files that are not in the plan are added to it before.
        retry: Outcomes whose rows are set free before, to be asked again.
    """

    shards: int
    overrides: tuple[str, ...] = ()
    output: Path | None = None
    parallel: int | None = None
    sbatch: Flags = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    command: str | None = None
    signal_before_s: int | None = None
    requeues: int | None = None
    accept: str | None = None
    closing: bool = True
    scheduler: str | None = None
    workers: int | None = None
    plan: bool = False
    extend: bool = False
    retry: tuple[Outcome, ...] = ()

    @property
    def prepares_results(self) -> bool:
        """Whether something is done to the results before anything is submitted."""
        return self.plan or self.extend or bool(self.retry)

    def results(self, loaded: LoadedJob) -> Path:
        """Return the results folder."""
        return Path(os.path.abspath(self.output if self.output is not None else loaded.output))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A submission before it is submitted.

    Attributes:
        spec: What its scripts say.
        arrays: The scripts of its arrays.
        closing: The script of its closing job; None when there is none.
        max_array_size: The site's.
        parallel: Most tasks at a time.
    """

    spec: SubmissionSpec
    arrays: tuple[str, ...]
    closing: str | None
    max_array_size: int
    parallel: int | None

    @property
    def shards(self) -> tuple[int, ...]:
        """The shards that are submitted, in order."""
        return tuple(sorted(shard for array in self.spec.arrays for shard in array.shards))

    def without(self, left: Collection[int]) -> Prepared | None:
        """Return the submission without shards that others have at work; None when nothing is left of it.

        Raises:
            UsageError: There are more arrays than tasks that may run at a time.
        """
        mine = [shard for shard in self.shards if shard not in left]
        if not mine:
            return None
        return self._of(replace(self.spec, arrays=array_slices(mine, self.max_array_size, self.parallel)))

    def named_now(self) -> Prepared:
        """Return the submission with a name of now: names sort in the order in which submissions were made."""
        name = new_name(time.time(), secrets.token_hex(2))
        return self._of(replace(self.spec, name=name, folder=str(Layout(Path(self.spec.results)).slurm / name)))

    def _of(self, spec: SubmissionSpec) -> Prepared:
        return replace(self, spec=spec, arrays=_scripts(spec), closing=closing_script(spec) if spec.closing else None)


def prepare(loaded: LoadedJob, options: SubmitOptions, site: SlurmSite, slurm: Slurm, say: Say) -> Prepared | None:
    """Make the scripts of a submission of all shards that are not complete; nothing is written.

    Returns:
        The submission; None when every shard is complete.

    Raises:
        UsageError: The options do not go together.
        ResultsError: The results folder cannot be read.
    """
    if loaded.path is None:
        raise UsageError("a submission needs a job file: tasks read it again")
    if options.accept is not None:
        parse_outcomes("--accept", options.accept)
    results = options.results(loaded)
    for path in (str(loaded.path), str(results), os.getcwd()):
        if any(character in path for character in "\r\n"):
            raise UsageError(f"{path!r}: a line break in a path would break the scripts; rename it")
    done = parts_done(results)
    shards = list(range(options.shards))
    if done.parts is not None:
        shards = incomplete_shards(done.parts, done.finished, options.shards)
        if not shards:
            return None
        if len(shards) < options.shards:
            say(f"{count(len(shards), 'shard')} of {options.shards} to do: the others are complete, or hold no part")
    size = slurm.max_array_size()
    if size is None:
        size = DEFAULT_MAX_ARRAY_SIZE
        say(f"Slurm does not say its MaxArraySize here; {size} is taken for it")
    parallel = options.parallel if options.parallel is not None else site.parallel
    flags = joined(site.array_flags(), options.sbatch)
    lead = options.signal_before_s if options.signal_before_s is not None else site.signal_before_s
    _check_time(flags, lead)
    flags = _with_nodes(flags, loaded)
    name = new_name(time.time(), secrets.token_hex(2))
    spec = SubmissionSpec(
        name=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        s1batch=__version__,
        job=os.path.abspath(loaded.path),
        job_name=flags.pop("job-name", None) or re.sub(r"[^\w.+-]", "-", loaded.spec.name) or "s1batch",
        overrides=options.overrides,
        results=str(results),
        folder=str(Layout(results).slurm / name),
        workdir=flags.pop("chdir", None) or os.getcwd(),
        shards=options.shards,
        arrays=array_slices(shards, size, parallel),
        accept=options.accept,
        command=options.command or site.command or f"{shlex.quote(sys.executable)} -m s1batch",
        setup=(*site.setup, *options.setup),
        sbatch=flags,
        closing=options.closing,
        closing_sbatch=closing_flags(flags, site.closing_flags()),
        signal_before_s=lead,
        requeues=options.requeues if options.requeues is not None else site.requeue,
        scheduler=options.scheduler,
        workers=options.workers,
        extended=options.extend,
        retried=options.retry,
    )
    return Prepared(
        spec=spec,
        arrays=_scripts(spec),
        closing=closing_script(spec) if spec.closing else None,
        max_array_size=size,
        parallel=parallel,
    )


def _scripts(spec: SubmissionSpec) -> tuple[str, ...]:
    return tuple(array_script(spec, number) for number in range(len(spec.arrays)))


def beside(prepared: Prepared, earlier: Sequence[Earlier], say: Say) -> Prepared:
    """Return what is left to submit beside earlier submissions that may still run.

    Raises:
        LockedError: Nothing is, or the job is cut into another number of shards there.
    """
    results = Path(prepared.spec.results)
    left = left_to(earlier, prepared.spec.shards, results)
    lines = left_lines(earlier, prepared.shards)
    rest = prepared.without(left)
    if rest is None:
        raise LockedError(
            f"{results}: nothing left to submit: {'; '.join(lines)}; wait for it (`s1batch status {results}`) or end "
            f"it (`s1batch cancel {results}`)"
        )
    for line in lines:
        say(line)
    return rest


def submit(prepared: Prepared, slurm: Slurm, say: Say) -> SubmissionSpec:
    """Submit what was prepared, but for what earlier submissions have at work.

    When a script is refused, what was submitted before it is cancelled. The closing job waits for the earlier
    submissions, too, and for their closing jobs: so the last one finds everything, and no two are at work at once.

    Returns:
        What was submitted.

    Raises:
        LockedError: Earlier submissions have everything at work, or another one is being made.
        SlurmError: Slurm refused, or cannot be asked.
    """
    results = Path(prepared.spec.results)
    with LeaseKeeper(Layout(results).leases) as keeper, keeper.lease(SUBMIT):
        earlier = earlier_at_work(results, slurm)
        prepared = beside(prepared, earlier, say).named_now()
        spec, folder = prepared.spec, SubmissionFolder(Path(prepared.spec.folder))
        others = tuple(job for each in earlier for job in each.jobs)
        folder.create(spec, prepared.arrays, prepared.closing)
        jobs = SubmittedJobs()
        try:
            for number in range(len(prepared.arrays)):
                job = slurm.submit(folder.array_script(number))
                jobs = replace(jobs, arrays=(*jobs.arrays, job), at=time.time())
                folder.write_jobs(jobs)
            if prepared.closing is not None:
                closing = slurm.submit(folder.closing_script, after=(*jobs.arrays, *others))
                jobs = replace(jobs, closing=closing, at=time.time())
                folder.write_jobs(jobs)
        except BaseException:
            with suppress(SlurmError):
                slurm.cancel(jobs.all)
            raise
    for number, job in enumerate(jobs.arrays):
        say(f"array {job}: {count(len(spec.arrays[number].indices), 'shard')} of {spec.shards}")
    if jobs.closing is not None:
        behind = f" and {'job' if len(others) == 1 else 'jobs'} {', '.join(others)}" if others else ""
        say(f"job {jobs.closing}: verifies when they{behind} have ended")
    return spec


def dry_run_lines(prepared: Prepared) -> list[str]:
    """Return the scripts, each behind a line with the command that would submit it."""
    folder = SubmissionFolder(Path(prepared.spec.folder))
    lines = []
    for number, text in enumerate(prepared.arrays):
        lines += [f"# sbatch --parsable {folder.array_script(number)}", text]
    if prepared.closing is not None:
        lines += [f"# sbatch --parsable --dependency=afterany:ARRAY {folder.closing_script}", prepared.closing]
    return lines


def _with_nodes(flags: dict[str, str | None], loaded: LoadedJob) -> dict[str, str | None]:
    """Return options with the nodes that the job's engine spans, where it names a number.

    Raises:
        UsageError: They ask for another number.
    """
    nodes = getattr(loaded.spec.engine, "nodes", None)
    if not isinstance(nodes, int):
        return flags
    asked = flags.get("nodes")
    if asked is None:
        return {**flags, "nodes": str(nodes)} if nodes > 1 else flags
    if asked != str(nodes):
        raise UsageError(
            f"--sbatch nodes={asked}: the job's engine spans {nodes} (engine.nodes); leave it out, or set both alike"
        )
    return flags


def _check_time(flags: Flags, lead_s: int) -> None:
    limit = seconds_of(flags.get("time") or "")
    if limit is not None and 0 < limit < lead_s + START_S:
        raise UsageError(
            f"--sbatch time={flags['time']}: tasks are told to stop {lead_s} s before their limit and need {START_S} s "
            "to begin; give more time, or a smaller --signal-before"
        )
