"""The command line: options in, calls of the Python API, lines out. Imports the rest of s1batch only when needed."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import click

from s1batch import __version__
from s1batch.engine_commands import engine
from s1batch.errors import BudgetSpent, Interrupted, OutOfTime, S1BatchError
from s1batch.model_commands import model
from s1batch.results_commands import RESULTS, compact, export, merge
from s1batch.slurm_commands import cancel, close, submit
from s1batch.stopping import ctrl_c_noted, signals

P = ParamSpec("P")

JOB = click.argument("job", type=click.Path(dir_okay=False))
SET = click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Set a field of the job, in YAML.")
OUTCOME_NAMES = ("ok", "unparsed", "length", "refused", "unreadable", "failed", "skipped")


class _Program(click.Group):
    """Turns errors into one line and an exit code, and keeps commands in the order of use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        with ctrl_c_noted() as interrupted:
            return self._invoke(ctx, interrupted)

    def _invoke(self, ctx: click.Context, interrupted: threading.Event) -> Any:
        try:
            return super().invoke(ctx)
        except S1BatchError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            click.echo(f"s1batch: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("s1batch: interrupted", err=True)
            ctx.exit(Interrupted.exit_code)
        except BrokenPipeError:
            # The reader of our output has gone (head, less); writing more, even at exit, would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except OSError as error:
            # What no part of the program expected of the machine: a full /tmp, a disk that went away.
            if ctx.params.get("debug"):
                traceback.print_exc()
            what = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
            click.echo(f"s1batch: {what}; mend it and run again to go on (--debug shows where)", err=True)
            ctx.exit(S1BatchError.exit_code)
        except Exception:
            if not interrupted.is_set():
                raise
            click.echo("s1batch: interrupted", err=True)
            ctx.exit(Interrupted.exit_code)


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="s1batch")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
def main(debug: bool) -> None:
    """Ask Intern-S1-Pro about every piece of a scientific archive, and prove that none is missing.

    \b
    Exit codes: 0 all rows ok or accepted; 3 finished with rows that are not; 1 could not finish, or verify failed;
    2 wrong command line or job file; 4 locked, or job and results disagree; 75 interrupted, or the budget is spent.
    """


def _settled(command: Callable[P, None]) -> Callable[P, None]:
    """Settle how the process uses memory before a command that may need much."""

    @wraps(command)
    def run_command(*args: P.args, **options: P.kwargs) -> None:
        from s1batch.process_settings import settle_process

        settle_process()
        command(*args, **options)

    return run_command


def _say(line: str) -> None:
    # The log of a task is on the disk of its results, mostly: one that is full costs the line, and not the run.
    with suppress(OSError):
        click.echo(line, err=True)


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Job file to write (default: FOLDER.yaml).")
def init(folder: Path, output: Path | None) -> None:
    """Write a commented job file for the data in FOLDER."""
    from s1batch.init import write_job_file

    click.echo(write_job_file(folder, output or Path(f"{folder.resolve().name}.yaml")))


@main.command()
@JOB
@SET
@click.option("-n", "count", default=3, show_default=True, type=click.IntRange(1), help="How many chunks.")
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Folder for plots of the series (PNG).")
@click.option("--offline", is_flag=True, help="Contact no endpoint.")
@_settled
def preview(job: str, overrides: tuple[str, ...], count: int, plots: Path | None, offline: bool) -> None:
    """Show the exact prompts, the token map and the series of a few chunks; ask nothing."""
    from s1batch.jobfile import load_job
    from s1batch.preview import preview_lines

    for line in preview_lines(load_job(job, overrides), count, plots, offline=offline):
        click.echo(line)


@main.command()
@JOB
@SET
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--offline", is_flag=True, help="Contact no endpoint, not even to resolve `auto`.")
@click.option("-o", "folder", type=click.Path(file_okay=False), help="Keep plan.parquet and inventory.parquet there.")
@_settled
def plan(job: str, overrides: tuple[str, ...], as_json: bool, offline: bool, folder: str | None) -> None:
    """Show what a run would do: chunks, coverage, refusals, tokens, GPU-hours; ask nothing."""
    import s1batch
    from s1batch.plan_report import plan_dict, plan_lines

    made = s1batch.plan(job, overrides=overrides, offline=offline, folder=folder)
    if as_json:
        _print_json(plan_dict(made))
    else:
        click.echo("\n".join(plan_lines(made)))


@main.command()
@JOB
@SET
@click.option("-o", "--output", type=Path, help="Results folder.")  # click.Path would look whether it is there
@click.option("--scheduler", help="auto, inline, local, slurm, allocation, or the address of a Dask scheduler.")
@click.option("--workers", type=click.IntRange(1), help="Worker processes; most jobs of `slurm`.")
@click.option("--shard", metavar="i/N", help="Only the parts with part % N == i, i from 0.")
@click.option("--limit", type=click.IntRange(1), help="Only the first chunks of the plan (of the shard).")
@click.option(
    "--pilot",
    type=click.IntRange(1),
    metavar="N",
    help="Only N chunks, spread over the plan; then say what the rest takes.",
)
@click.option("--retry", help="Ask rows with these outcomes again: failed,unparsed,...")
@click.option("--extend", is_flag=True, help="Add files that are not in the plan.")
@click.option("--accept", help="Outcomes besides ok that leave the exit code at 0: refused,...")
@click.option("--submission", type=click.Path(file_okay=False, path_type=Path), help="For tasks of `s1batch submit`.")
@_settled
def run(
    job: str,
    overrides: tuple[str, ...],
    output: Path | None,
    scheduler: str | None,
    workers: int | None,
    shard: str | None,
    limit: int | None,
    pilot: int | None,
    retry: str | None,
    extend: bool,
    accept: str | None,
    submission: Path | None,
) -> None:
    """Run a job, or go on with it."""
    from s1batch.execution import RunOptions, execute
    from s1batch.jobfile import load_job
    from s1batch.outcome_names import parse_outcomes
    from s1batch.run_report import summary_lines
    from s1batch.slurm.task import LEASE_PATIENCE_S, task_of
    from s1batch.slurm.walltime import working_deadline
    from s1batch.subset import Shard

    loaded = load_job(job, overrides)
    deadline = working_deadline()
    options = RunOptions(
        scheduler=scheduler,
        workers=workers,
        shard=Shard.parse(shard) if shard else None,
        limit=limit,
        pilot=pilot,
        retry=parse_outcomes("--retry", retry) if retry else (),
        extend=extend,
        accept=parse_outcomes("--accept", accept) if accept else None,
        patience_s=LEASE_PATIENCE_S if submission else 0.0,
        deadline=deadline,
    )
    watched = nullcontext() if deadline is None else deadline.watched(_say)
    with signals() as stop, watched, task_of(submission, options.shard, stop, _say) as task:
        try:
            summary = execute(loaded, output, options, say=_say, stop=stop)
        except (BudgetSpent, OutOfTime):
            raise
        except Interrupted:
            where = output or loaded.output
            raise Interrupted(
                f"interrupted; the answers so far are in {where}; run the same command to go on"
            ) from None
        lines = summary_lines(summary)
        task.ended(summary.exit_code, lines[0])
    click.echo("\n".join(lines))
    sys.exit(summary.exit_code)


@main.command()
@RESULTS
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_settled
def status(results: Path, as_json: bool) -> None:
    """Show how far a run is."""
    from s1batch.results.layout import Layout
    from s1batch.results.status import status as read_status
    from s1batch.results_report import status_dict, status_lines
    from s1batch.slurm_commands import slurm_state, without_ended

    plain, lines = slurm_state(results)
    # What was submitted may wait for hours before there is a plan.
    if Layout(results).plan().exists() or not lines:
        state = without_ended(read_status(results))
        plain, lines = {**status_dict(state), **plain}, [*status_lines(state), *lines]
    if as_json:
        _print_json(plain)
    else:
        click.echo("\n".join(lines))


@main.command()
@RESULTS
@click.option("--sources", is_flag=True, help="Look at the input files again too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_settled
def verify(results: Path, sources: bool, as_json: bool) -> None:
    """Prove that every planned chunk has exactly one row and every sample is accounted for."""
    import s1batch
    from s1batch.results_report import verdict_dict, verdict_lines

    verdict = s1batch.open_results(results).verify(sources=sources)
    if as_json:
        _print_json(verdict_dict(verdict))
    else:
        click.echo("\n".join(verdict_lines(verdict)))
    sys.exit(0 if verdict.ok else 1)


@main.command()
@RESULTS
@click.option("-n", "count", default=20, show_default=True, type=click.IntRange(1), help="How many rows.")
@click.option("--outcome", type=click.Choice(OUTCOME_NAMES), multiple=True, help="Only rows with this outcome.")
@click.option("--columns", help="Columns to show, separated by commas.")
@click.option("--merged", is_flag=True, help="Show merged answers instead of rows.")
@click.option("--wide", is_flag=True, help="Do not cut long values.")
@_settled
def show(results: Path, count: int, outcome: tuple[str, ...], columns: str | None, merged: bool, wide: bool) -> None:
    """Show rows on the terminal."""
    import s1batch
    from s1batch.show import show_lines

    opened = s1batch.open_results(results)
    names = [name.strip() for name in columns.split(",")] if columns else None
    for line in show_lines(opened, count=count, outcomes=outcome, columns=names, merged=merged, wide=wide):
        click.echo(line)


# Here, so that they are listed in the order of use.
main.add_command(export)
main.add_command(compact)
main.add_command(merge)


@main.command()
@RESULTS
@click.option(
    "--truth",
    type=click.Path(exists=True, path_type=Path),
    help="CSV, Parquet or JSON lines; for picks also QuakeML, or a folder.",
)
@click.option(
    "--tolerance",
    "tolerances",
    help="For picks, in seconds (0.1,0.3,0.5,1.0 when left out); for other numbers, the share of the true one.",
)
@click.option(
    "--baseline",
    "baselines",
    help="What to compare with, with commas, or none; left out: ar_pick,sta_lta,median for picks (both pickers: one "
    "behind the other too), all,none,robust_z for anomalies.",
)
@click.option("--by", help="For picks, station: score each station too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the bootstrap.")
def score(
    results: Path,
    truth: Path | None,
    tolerances: str | None,
    baselines: str | None,
    by: str | None,
    as_json: bool,
    seed: int,
) -> None:
    """Score answers by the metrics of their job, most of them against truth.

    Picks are scored beside classical pickers on the same windows; tables of truth have one line for each onset
    (station, phase, time) or for each record (p_index and s_index in a file or from a start time, SeisBench's
    trace_p_arrival_sample, ...). docs/jobs.md says what the other jobs' truth looks like. The same numbers go to
    metrics/score.json.
    """
    import s1batch
    from s1batch.score import parse_baselines, parse_tolerances
    from s1batch.scorers import ScoreOptions, scorer_of

    opened = s1batch.open_results(results)
    scorer = scorer_of(opened.loaded.spec.job.kind)
    options = ScoreOptions(
        tolerances=None if tolerances is None else parse_tolerances(tolerances),
        baselines=None if baselines is None else parse_baselines(baselines),
        by=by,
        seed=seed,
        say=_say,
    )
    report = scorer.score(opened, truth, options)
    if as_json:
        _print_json(report.plain())
    else:
        click.echo("\n".join(scorer.lines(report)))


@main.command()
def doctor() -> None:
    """Show what this machine can run, and what to install for the rest."""
    from s1batch.doctor import doctor_lines

    for line in doctor_lines():
        click.echo(line)


@main.command()
def schema() -> None:
    """Print the JSON Schema of the job file."""
    from s1batch.jobfile import job_schema

    _print_json(job_schema())


for each in (submit, cancel, close, engine, model):
    main.add_command(each)


def _print_json(value: object) -> None:
    import orjson

    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode())


if __name__ == "__main__":
    main()
