"""`s1batch submit`, `cancel` and `close`: runs as arrays of Slurm."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from s1batch.errors import LockedError

if TYPE_CHECKING:
    from s1batch.results.status import Status

RESULTS = click.argument("results", type=click.Path(file_okay=False, exists=True, path_type=Path))


@click.command()
@click.argument("job", type=click.Path(dir_okay=False))
@click.option(
    "--array", "shards", default=1, show_default=True, type=click.IntRange(1), metavar="N", help="How many shards."
)
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Set a field of the job, in YAML.")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="Results folder.")
@click.option("--parallel", type=click.IntRange(1), metavar="P", help="Most tasks at a time.")
@click.option("--sbatch", "flags", multiple=True, metavar="KEY=VALUE", help="An option of sbatch: mem=8G, exclusive.")
@click.option("--setup", multiple=True, metavar="LINE", help="A line of the script before s1batch: module load ...")
@click.option("--command", help="s1batch as tasks call it: a program, or a container with one.")
@click.option("--requeue", type=click.IntRange(0), metavar="K", help="Most requeues at the time limit.")
@click.option(
    "--signal-before", type=click.IntRange(10, 65535), metavar="S", help="Stop so many seconds before the limit."
)
@click.option("--accept", help="Outcomes besides ok that leave the exit code of a task at 0: refused,...")
@click.option("--scheduler", help="Of each task, as for `s1batch run`: inline, local, allocation, ...")
@click.option("--workers", type=click.IntRange(1), help="Worker processes of each task.")
@click.option("--plan", is_flag=True, help="Make the plan here, before anything is submitted.")
@click.option("--extend", is_flag=True, help="Add files that are not in the plan to it, likewise.")
@click.option("--retry", metavar="OUTCOMES", help="Set rows with these outcomes free to be asked again, likewise.")
@click.option("--closing/--no-closing", default=True, show_default=True, help="Verify when all tasks have ended.")
@click.option("--dry-run", is_flag=True, help="Print the scripts; write and submit nothing.")
def submit(
    job: str,
    shards: int,
    overrides: tuple[str, ...],
    output: Path | None,
    parallel: int | None,
    flags: tuple[str, ...],
    setup: tuple[str, ...],
    command: str | None,
    requeue: int | None,
    signal_before: int | None,
    accept: str | None,
    scheduler: str | None,
    workers: int | None,
    plan: bool,
    extend: bool,
    retry: str | None,
    closing: bool,
    dry_run: bool,
) -> None:
    """Run a job as an array of Slurm, or go on with it.

    Shards that are complete are not submitted, and those that an earlier submission has in the queue are left to it.

    What holds for every submission at a site stands in $S1BATCH_SITE, ~/.config/s1batch/site.toml or
    /etc/s1batch/site.toml.
    """
    from s1batch.jobfile import load_job
    from s1batch.outcome_names import parse_outcomes
    from s1batch.slurm.client import SlurmError, SlurmPrograms
    from s1batch.slurm.earlier import earlier_at_work
    from s1batch.slurm.flags import parse_flags
    from s1batch.slurm.readying import check_results, make_ready
    from s1batch.slurm.site import read_site, site_file
    from s1batch.slurm.submitting import SubmitOptions, beside, dry_run_lines, prepare
    from s1batch.slurm.submitting import submit as submit_prepared
    from s1batch.stopping import signals

    loaded = load_job(job, overrides)
    options = SubmitOptions(
        shards=shards,
        overrides=overrides,
        output=output,
        parallel=parallel,
        sbatch=parse_flags(flags),
        setup=setup,
        command=command,
        signal_before_s=signal_before,
        requeues=requeue,
        accept=accept,
        closing=closing,
        scheduler=scheduler,
        workers=workers,
        plan=plan,
        extend=extend,
        retry=parse_outcomes("--retry", retry) if retry else (),
    )
    slurm, site = SlurmPrograms(), read_site(site_file()).slurm
    check_results(loaded, options.results(loaded), _say)
    if options.prepares_results and dry_run:
        _say("a dry run: the plan stays as it is, and no row is set free")
    elif options.prepares_results:
        prepare(loaded, options, site, slurm, lambda line: None)  # options that do not go together change nothing
        with signals() as stop:
            make_ready(loaded, options, slurm, _say, stop)
    prepared = prepare(loaded, options, site, slurm, _say)
    if prepared is None:
        click.echo(f"{output or loaded.output}: every part is there; nothing to submit")
    elif dry_run:
        try:
            earlier = earlier_at_work(options.results(loaded), slurm)
        except SlurmError:
            _say("squeue cannot be asked: these are all shards that are not complete, in the queue or not")
            earlier = []
        click.echo("\n".join(dry_run_lines(beside(prepared, earlier, _say))), nl=False)
    else:
        submitted = submit_prepared(prepared, slurm, click.echo)
        click.echo(f"scripts and logs: {submitted.folder}")
        click.echo(f"how far it is: s1batch status {submitted.results}")


@click.command()
@RESULTS
@click.option("--wait", "wait_s", type=click.FloatRange(0), default=90.0, show_default=True, help="In seconds.")
def cancel(results: Path, wait_s: float) -> None:
    """Cancel everything in the queue that was submitted into RESULTS; answers so far are kept."""
    from s1batch.slurm.cancelling import cancel as cancel_all
    from s1batch.slurm.client import SlurmPrograms

    sys.exit(0 if cancel_all(results, SlurmPrograms(), click.echo, wait_s=wait_s) else LockedError.exit_code)


@click.command(hidden=True)
@click.argument("folder", type=click.Path(file_okay=False, exists=True, path_type=Path))
def close(folder: Path) -> None:
    """Verify what came of a submission; its closing job runs this."""
    from s1batch.process_settings import settle_process
    from s1batch.slurm.client import SlurmPrograms
    from s1batch.slurm.closing import close_submission
    from s1batch.slurm.folder import SubmissionFolder

    settle_process()

    def say(line: str) -> None:
        # The log is on the disk of the results: one that is full costs the line, and not the proof.
        with suppress(OSError):
            click.echo(line)

    sys.exit(close_submission(SubmissionFolder(folder), SlurmPrograms(), say))


def slurm_state(results: Path) -> tuple[dict[str, Any], list[str]]:
    """Return how far the submissions into a results folder are, as plain data and as lines; empty without any."""
    from s1batch.slurm.folder import SubmissionFolder, submissions

    if not any(submissions(results)):
        return {}, []
    from s1batch.slurm.client import SlurmPrograms
    from s1batch.slurm.state import submission_states
    from s1batch.slurm.state_report import submission_dict, submission_lines

    plain, lines = [], []
    states = submission_states(results, SlurmPrograms())
    for state in states:
        folder = SubmissionFolder(Path(state.spec.folder))
        plain.append(submission_dict(state, folder))
        # Of earlier submissions matters what may still run, and what is lost and was not submitted again.
        if state is states[-1] or state.live or any(shard.lost for shard in state.shards):
            lines += submission_lines(state, folder)
    return {"slurm": plain}, lines


def without_ended(state: Status) -> Status:
    """Return how far a run is, where Slurm knows of processes that their tasks have ended."""
    tasks = {holder.task for holder in state.holders if holder.task}
    if not tasks:
        return state
    from s1batch.slurm.client import SlurmPrograms
    from s1batch.slurm.ended_tasks import ended_tasks

    return state.without_ended(ended_tasks(tasks, SlurmPrograms()))


def _say(line: str) -> None:
    click.echo(line, err=True)
