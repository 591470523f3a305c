"""The command line of the comparison; `python -m tests.benchmarks.peers --help`."""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import peers
from tests.benchmarks.harness import ROOT
from tests.benchmarks.peers.environments import MissingEnvironmentError, set_up, versions
from tests.benchmarks.peers.measuring import Record, carry_out
from tests.benchmarks.peers.programs import PROGRAMS
from tests.benchmarks.peers.scenarios import SCENARIOS
from tests.benchmarks.peers.tables import report

BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"
"""What stands around the tables of a page."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    given = _parser().parse_args(arguments)
    folder: Path = given.folder.absolute()
    try:
        if given.command == "setup":
            set_up(folder, _say)
            return 0
        if given.command == "run":
            _run(given, folder)
        tables = _report(given.results or folder / "results.json")
        print(tables)
        if given.into is not None:
            page = given.into.read_text()
            given.into.write_text(f"{page.partition(BEGIN)[0]}{BEGIN}\n{tables}\n{END}{page.partition(END)[2]}")
    except (MissingEnvironmentError, FileNotFoundError) as error:
        _say(str(error))
        return 2
    return 0


def _run(given: argparse.Namespace, folder: Path) -> None:
    results = given.results or folder / "results.json"
    kept: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {"records": []}
    kept |= {"versions": versions(folder), "machine": _machine()}
    for name in ("s1batch", "engine", "readers", "jobs", "tests/benchmarks"):  # the peers were compiled by pip
        compileall.compile_dir(ROOT / name, quiet=2)
    began = time.monotonic()
    for name in given.only or SCENARIOS:
        scenario = SCENARIOS[name]
        names = [each for each in scenario.programs if given.programs is None or each in given.programs]
        if not names:
            continue
        place = given.work or folder / "work"
        new = carry_out(scenario, names, folder, place / name, given.repeat or scenario.repeat, _say)
        # What was measured again takes the place of what was there of the same programs.
        old = [record for record in kept["records"] if (record["scenario"], record["program"]) not in _of(new)]
        kept["records"] = [*old, *new]
        results.write_text(json.dumps(kept, indent=1) + "\n")
    _say(f"measured in {time.monotonic() - began:.0f} s; {results}")


def _of(records: Sequence[Record]) -> set[tuple[str, str]]:
    return {(record["scenario"], record["program"]) for record in records}


def _report(results: Path) -> str:
    kept = json.loads(results.read_text())
    return report(kept["records"], kept["versions"], kept["machine"])


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.system()} {platform.release().split('-')[0]}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.peers",
        description=peers.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, said in (("setup", "make the environments"), ("run", "measure"), ("show", "print what was measured")):
        command = commands.add_parser(name, help=said)
        command.add_argument("--folder", type=Path, required=True, help="of the environments")
        command.add_argument("--results", type=Path, help="JSON of all runs (FOLDER/results.json)")
        if name != "setup":
            command.add_argument("--into", type=Path, help="page whose tables are replaced (docs/benchmarks.md)")
        if name == "run":
            command.add_argument("--only", type=_names(SCENARIOS), help=f"scenarios: {','.join(SCENARIOS)}")
            command.add_argument("--programs", type=_names(PROGRAMS), help=f"programs: {','.join(PROGRAMS)}")
            command.add_argument("--repeat", type=int, help="rounds (3 for throughput and tail, 1 for the others)")
            command.add_argument("--work", type=Path, help="folder for prompts and outputs (FOLDER/work)")
    return parser


def _names(known: Any) -> Any:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} (there are: {', '.join(known)})")
        return names

    return parse


if __name__ == "__main__":
    # As at Ctrl-C: what runs at that moment is ended too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(main())
