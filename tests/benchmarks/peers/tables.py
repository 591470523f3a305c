"""Tables in Markdown, from the records of runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from tests.benchmarks.harness import table
from tests.benchmarks.peers.measuring import Record
from tests.benchmarks.peers.programs import PROGRAMS
from tests.benchmarks.peers.scenarios import SCENARIOS, Scenario

Column = tuple[str, Callable[[Sequence[Record]], str]]
"""Its head, and its cell for the runs of one program."""


def report(records: Sequence[Record], versions: Mapping[str, str], machine: str) -> str:
    """Return all tables of what was measured."""
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    parts = [f"{machine}. {said}.\n"]
    for scenario in SCENARIOS.values():
        mine = [record for record in records if record["scenario"] == scenario.name]
        if mine:
            parts.append(scenario_table(scenario, mine))
    return "\n".join(parts)


def scenario_table(scenario: Scenario, records: Sequence[Record]) -> str:
    """Return the table of one scenario: a line for each program, medians over its runs."""
    columns = _columns(scenario)
    rows = []
    for name, program in PROGRAMS.items():
        if runs := [record for record in records if record["program"] == name]:
            rows.append([program.label, *(cell(runs) for _, cell in columns)])
    loads = [record["load"] for record in records]
    title = f"{scenario.title} (load {min(loads):.1f} to {max(loads):.1f})"
    return table(title, ["", *(head for head, _ in columns)], rows)


def _columns(scenario: Scenario) -> list[Column]:
    wall, cpu, peak = _median("wall_s", ".1f"), _median("cpu_s", ".1f"), _median("peak_mb", ",.0f")
    requests = _server("requests")
    end: list[Column] = [("rows right", _rows_right), ("exit", _codes)]
    usual: list[Column] = [("wall s", _median("wall_s", ".2f")), ("CPU s", _median("cpu_s", ".2f")), ("peak MB", peak)]
    match scenario.name:
        case "throughput":
            return [*usual, ("rows/s in the window", _rate), ("most in flight", _server("peak")), *end]
        case "refused" | "errors":
            return [
                ("right", _rows_right),
                ("no answer, with the reason", _outcome("reasons")),
                ("no answer, no reason", _silent),
                ("requests", requests),
                ("exit", _codes),
                ("wall s", wall),
            ]
        case "resume":
            return [
                ("answered before the kill", _killed("answered")),
                ("of them asked again", _server("again")),
                ("requests in all", requests),
                ("right, once each", _rows_right),
                ("no answer, or twice", _silent),
                ("exit", _codes),
                ("wall s of the second run", wall),
            ]
        case "tail":
            return [*usual[:2], ("window s", _median("window_s", ".2f")), ("most in flight", _server("peak")), *end]
        case "large":
            return [("peak MB", peak), ("wall s", wall), ("CPU s", cpu), *end]
        case _:
            return [("requests", requests), ("wall s", wall), *end]


def _median(field: str, form: str) -> Callable[[Sequence[Record]], str]:
    def cell(runs: Sequence[Record]) -> str:
        values = [run[field] for run in runs if run[field] is not None]
        return format(statistics.median(values), form) if values else "-"

    return cell


def _server(field: str) -> Callable[[Sequence[Record]], str]:
    return lambda runs: f"{statistics.median(run['server'][field] for run in runs):,.0f}"


def _outcome(field: str) -> Callable[[Sequence[Record]], str]:
    return lambda runs: f"{min(run['outcome'][field] for run in runs):,}"


def _killed(field: str) -> Callable[[Sequence[Record]], str]:
    return lambda runs: f"{statistics.median(run['killed'][field] for run in runs):,.0f}"


def _rows_right(runs: Sequence[Record]) -> str:
    return f"{min(run['outcome']['right'] for run in runs):,}"


def _silent(runs: Sequence[Record]) -> str:
    worst = max((run["outcome"] for run in runs), key=lambda found: sum(found[name] for name in _SILENT))
    total = sum(worst[name] for name in _SILENT)
    kinds = [f"{worst[name]:,} {word}" for name, word in _SILENT.items() if worst[name]]
    return f"{total:,} ({', '.join(kinds)})" if total else "0"


_SILENT = {"empty": "null", "wrong": "wrong", "missing": "missing", "twice": "twice"}


def _rate(runs: Sequence[Record]) -> str:
    """Prompts over the time from the first request at the server to the last answer."""
    rates = [sum(run["outcome"].values()) / run["window_s"] for run in runs if run["window_s"]]
    return f"{statistics.median(rates):,.0f}" if rates else "-"


def _codes(runs: Sequence[Record]) -> str:
    codes = {"killed at the limit" if run["ended"] == "limit" else str(run["code"]) for run in runs}
    return ", ".join(sorted(codes))
