"""Commands that bring results into another form: export, compact, merge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from s1batch.errors import UsageError

if TYPE_CHECKING:
    from s1batch.export import Kind

RESULTS = click.argument("results", type=click.Path(file_okay=False, exists=True, path_type=Path))


@click.command()
@RESULTS
@click.argument("output", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), help="The same as OUTPUT.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "parquet", "jsonl", "quakeflow", "delta"]),
    help="Default: the file's suffix.",
)
@click.option("--merged", is_flag=True, help="Export merged answers instead of rows.")
def export(results: Path, output: Path | None, target: Path | None, kind: str | None, merged: bool) -> None:
    """Write rows to another format; quakeflow: picks with QuakeFlow's column names, as CSV.

    delta: bring the Delta table in the folder OUTPUT up to date; rows that it has already are not written again.
    """
    _settle()
    import s1batch
    from s1batch.export import export_results

    where = output or target
    if where is None or (output is not None and target is not None):
        raise UsageError("export: say once where to write, as `export RESULTS OUTPUT` or with -o")
    opened = s1batch.open_results(results)
    if kind == "delta":
        from s1batch.delta import export_delta

        if merged:
            raise UsageError("--format delta holds rows; export --merged as parquet")
        done = export_delta(opened, where)
        counts = f"{done.appended:,} appended, {done.replaced:,} replaced, {done.kept:,} as they were"
        click.echo(f"{where}: rows {counts}; version {done.version}")
        return
    count = export_results(opened, where, cast("Kind | None", kind), merged=merged)
    click.echo(f"{where}: {count:,} rows")


@click.command()
@RESULTS
@click.option(
    "--rows-per-file", default=1_000_000, show_default=True, type=click.IntRange(1), help="Most rows of a file."
)
@click.option("--keep", is_flag=True, help="Move the old files to originals/ instead of removing them.")
def compact(results: Path, rows_per_file: int, keep: bool) -> None:
    """Join the many small files of finished parts to few large ones, checked before the old ones go."""
    _settle()
    from s1batch.results.compaction import compact as compact_rows

    done = compact_rows(results, rows_per_file=rows_per_file, keep=keep)
    click.echo(
        f"{results}: {done.rows:,} rows of {done.parts:,} parts, {done.before:,} files before, {done.after:,} now"
    )
    if done.kept is not None:
        click.echo(f"the old files are in {done.kept}")


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="OUT RESULTS...", type=click.Path(path_type=Path))
def merge(folders: tuple[Path, ...]) -> None:
    """Merge the results of several runs of one job into the new folder OUT; they stay as they are.

    The runs may be of different archives, or shards of one plan on different file systems. With one folder alone, merge
    its answers over overlapping chunks into merged/ again.
    """
    _settle()
    import s1batch
    from s1batch.merging.merge import merge_results

    target, *parents = folders
    if parents:
        done = merge_results(target, parents)
        click.echo(f"{target}: {done.rows:,} rows for {done.chunks:,} planned chunks of {len(parents)} folders")
        if done.superseded:
            click.echo(f"{done.superseded:,} rows of chunks that had a better one elsewhere are in superseded/")
        if done.unfinished:
            click.echo(f"{done.unfinished:,} parts lack rows; run the job again to go on")
            return
    count = s1batch.open_results(target).merge()
    click.echo("this job has nothing to merge" if count is None else f"{target}: {count:,} merged rows")


def _settle() -> None:
    """Settle how the process uses memory, before anything large is loaded."""
    from s1batch.process_settings import settle_process

    settle_process()
