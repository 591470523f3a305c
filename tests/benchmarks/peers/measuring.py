"""Carries scenarios out: the programs by turns, one server for all of them, one record for each run."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import Usage, measure
from tests.benchmarks.mock_server import ServerProcess, serving
from tests.benchmarks.peers.outcomes import as_dict, judge
from tests.benchmarks.peers.programs import PROGRAMS, Program, Task
from tests.benchmarks.peers.scenarios import Prompts, Scenario, write

Record = dict[str, Any]
"""One run, as it stands in the JSON file: what `_record` puts together."""

BETWEEN_S = 0.5
"""Pause between runs, so that what one leaves behind (sockets, pages to write) is not the next one's."""


def carry_out(
    scenario: Scenario,
    names: Sequence[str],
    environments: Path,
    folder: Path,
    repeat: int,
    say: Callable[[str], None],
) -> list[Record]:
    """Measure a scenario.

    The order of the programs rotates from round to round, so that a busy moment does not meet the same one each time.

    Args:
        scenario: Which.
        names: Programs that take part.
        environments: Folder of the virtual environments.
        folder: For prompts and outputs; everything in it is replaced.
        repeat: Rounds.
        say: Told what was measured.
    """
    prompts = write(scenario.prompts, folder / "prompts")
    records = []
    with serving(**_fields(scenario)) as server:
        for number in range(repeat):
            turn = number % len(names)
            for name in [*names[turn:], *names[:turn]]:
                record = _run(scenario, PROGRAMS[name], prompts, server, environments, folder / name)
                records.append({**record, "round": number})
                say(
                    f"{scenario.name} {number + 1}/{repeat} {name}: {record['wall_s']:.2f} s, "
                    f"exit {record['code']}, {record['outcome']['right']:,} right"
                )
                time.sleep(BETWEEN_S)
    return records


def _fields(scenario: Scenario) -> dict[str, Any]:
    behaviour = scenario.behaviour
    return {name: getattr(behaviour, name) for name in behaviour.__slots__}


def _run(
    scenario: Scenario, program: Program, prompts: Prompts, server: ServerProcess, environments: Path, folder: Path
) -> Record:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    task = Task(
        url=server.url,
        prompts=prompts.parquet,
        parts=prompts.parts,
        lines=prompts.lines,
        folder=folder,
        in_flight=scenario.in_flight,
        options=scenario.options.get(program.name, {}),
    )
    command, variables = program.command(task, environments), program.environ(task)
    server.reset()
    killed: Record = {}
    if scenario.stop_after:
        stop = _Stop(server, scenario.stop_after)
        usage = measure(command, folder=folder, variables=variables, stop=stop, limit_s=scenario.limit_s)
        (folder / "output.txt").replace(folder / "output-killed.txt")
        time.sleep(2 * scenario.behaviour.latency_s)  # the server still answers what was on its way
        asked = server.stats()["requests"]
        killed = {"killed": {"ended": usage.ended, "wall_s": usage.wall_s, "asked": asked, "answered": stop.answered}}
    usage = measure(command, folder=folder, variables=variables, limit_s=scenario.limit_s)
    outcome = as_dict(judge(program.rows(task, prompts.texts), prompts.texts))
    return {**_record(scenario, program, usage, server.stats()), **killed, "outcome": outcome}


class _Stop:
    """Says when enough is answered; the server then remembers what was: asking for that again is asking twice."""

    def __init__(self, server: ServerProcess, enough: int) -> None:
        self._server = server
        self._enough = enough
        self.answered = 0

    def __call__(self) -> bool:
        if self._server.stats()["answers"] < self._enough:
            return False
        self.answered = self._server.mark()
        return True


def _record(scenario: Scenario, program: Program, usage: Usage, seen: dict[str, Any]) -> Record:
    window_s = None if seen["first"] is None else seen["last"] - seen["first"]
    return {
        "scenario": scenario.name,
        "program": program.name,
        "wall_s": usage.wall_s,
        "cpu_s": usage.cpu_s,
        "peak_mb": usage.peak_mb,
        "code": usage.code,
        "ended": usage.ended,
        "window_s": window_s,
        "before_s": None if seen["first"] is None else seen["first"] - usage.began,
        "server": seen,
        "load": os.getloadavg()[0],
    }
