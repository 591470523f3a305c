"""`s1batch engine`: start, probe and end servers."""

from __future__ import annotations

import sys
from pathlib import Path

import click

SPEC = click.argument("spec", type=click.Path(dir_okay=False, path_type=Path))
ENDPOINTS = click.Path(file_okay=False, path_type=Path)


@click.group()
def engine() -> None:
    """Start, probe and end the servers that answer a job."""


@engine.command()
@SPEC
@click.option("--nodes", help="Hosts, separated by commas, instead of those in SPEC.")
@click.option("--node-rank", type=click.IntRange(0), help="Which of the nodes this is (default: found by its name).")
@click.option("--dry-run", is_flag=True, help="Print the commands of every node and start nothing.")
@click.option("--endpoints", type=ENDPOINTS, help="Folder to register in, instead of the one in SPEC.")
@click.option("--detach", is_flag=True, help="Return when the servers are ready; `engine down` ends them.")
@click.option("--of-run", "free_ports", hidden=True, help="A run started this; which ports are to be found free.")
def up(
    spec: Path,
    nodes: str | None,
    node_rank: int | None,
    dry_run: bool,
    endpoints: Path | None,
    detach: bool,
    free_ports: str | None,
) -> None:
    """Start this node's part of the servers that SPEC describes, and watch them until a signal comes."""
    from s1batch.launching import starting

    if free_ports is not None:
        starting.serve_for_run(spec, [each for each in free_ports.split(",") if each], _say)
        return
    prepared = starting.prepare(spec, nodes=nodes.split(",") if nodes else None, endpoints=endpoints)
    if prepared.backend.told:
        _say(prepared.backend.told)
    if dry_run:
        for line in starting.dry_run_lines(prepared):
            click.echo(line)
    elif detach:
        starting.start_detached(prepared, node_rank, _say)
    else:
        starting.serve_node(prepared, node_rank, _say)


@engine.command()
@click.argument("target", metavar="ENDPOINTS|URL")
@click.option("--wait", "wait_s", type=click.FloatRange(0), default=0.0, help="Seconds to wait until all work.")
@click.option("--expect", type=click.IntRange(1), help="How many endpoints there must be.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(target: str, wait_s: float, expect: int | None, as_json: bool) -> None:
    """Ask registered endpoints, or one URL, for health and model; exit code 1 if any is dead."""
    from s1batch.launching.checking import all_work, check_endpoints, state_lines

    states = check_endpoints(target, wait_s=wait_s, expect=expect)
    if as_json:
        from dataclasses import asdict

        import orjson

        click.echo(orjson.dumps([asdict(each) for each in states], option=orjson.OPT_INDENT_2).decode())
    else:
        click.echo("\n".join(state_lines(states)))
    sys.exit(0 if all_work(states, expect) else 1)


@engine.command()
@click.argument("folder", metavar="ENDPOINTS", type=ENDPOINTS)
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), default=120.0, show_default=True, help="In seconds.")
def down(folder: Path, timeout_s: float) -> None:
    """End what this host has registered in ENDPOINTS, and deregister it."""
    from s1batch.launching.ending import end_registered

    sys.exit(0 if end_registered(folder, timeout_s=timeout_s, say=click.echo) else 1)


def _say(line: str) -> None:
    click.echo(line, err=True)
