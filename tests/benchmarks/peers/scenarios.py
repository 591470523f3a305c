"""What is measured: for each scenario the server, the prompts, and what every program is told besides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.mock_server import Behaviour
from tests.benchmarks.prompts import write_large_prompts, write_prompts

PromptKind = Literal["distinct", "repeated", "large"]
PLAIN = ("bare", "s1batch", "datatrove", "daft", "ray", "curator")
TOOLS = PLAIN[1:]
PARTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One table.

    Attributes:
        name: On the command line.
        title: Above the table.
        behaviour: Of the server.
        prompts: Which.
        programs: Who takes part.
        in_flight: Requests at once; None: as each is configured.
        options: What some programs are told, by their names.
        repeat: How often each is run.
        stop_after: The first run is killed at so many answers, and the same command started again; 0: it is not.
        limit_s: Longest time of one run.
    """

    name: str
    title: str
    behaviour: Behaviour = field(default_factory=Behaviour)
    prompts: PromptKind = "distinct"
    programs: tuple[str, ...] = PLAIN
    in_flight: int | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    repeat: int = 1
    stop_after: int = 0
    limit_s: float = 120.0


# Each goes on at failures where it can be told so; left as they are, datatrove, Daft and curator stop at the first.
GOES_ON: Mapping[str, Mapping[str, Any]] = {
    "datatrove": {"skip_bad_requests": True},
    "daft": {"on_error": "ignore"},
    "curator": {"all_or_nothing": False},
}

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="throughput",
            title="2,000 prompts, answers after 50 ms",
            programs=(*PLAIN[:3], "datatrove-resumable", *PLAIN[3:]),
            repeat=3,
        ),
        Scenario(
            name="refused",
            title="2,000 prompts, every 40th is answered with HTTP 400",
            behaviour=Behaviour(fail_every=40, fail_status=400),
            programs=TOOLS,
            options=GOES_ON,
        ),
        Scenario(
            name="errors",
            title="2,000 prompts, every 40th is answered with HTTP 500 the first time",
            behaviour=Behaviour(fail_every=40, fail_status=500),
            programs=TOOLS,
            options=GOES_ON,
        ),
        Scenario(
            name="resume",
            title="2,000 prompts, answers after 0.5 s, 100 at once: SIGKILL at 1,000 answers, the same command again",
            behaviour=Behaviour(latency_s=0.5),
            programs=("s1batch", "datatrove-resumable", "daft-resumable", "ray-resumable", "curator"),
            in_flight=100,
            stop_after=1000,
        ),
        Scenario(name="large", title="300 prompts of 1 MB, answers after 50 ms", prompts="large", programs=TOOLS),
        Scenario(
            name="tail",
            title="2,000 prompts, every 100th request takes 2 s, 64 at once",
            behaviour=Behaviour(tail_every=100),
            in_flight=64,
            repeat=3,
        ),
        Scenario(name="repeated", title="2,000 prompts of which 20 are distinct", prompts="repeated", programs=TOOLS),
    )
}
"""By name, in the order of the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Prompts on disk.

    Attributes:
        parquet: Columns `id` and `text`.
        parts: Folder with the same in twenty files.
        lines: The same as JSON lines.
        texts: Texts by id, in their order.
    """

    parquet: Path
    parts: Path
    lines: Path
    texts: Mapping[str, str]


def write(kind: PromptKind, folder: Path) -> Prompts:
    """Write prompts of a kind, in all forms."""
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    file = folder / "prompts.parquet"
    if kind == "large":
        write_large_prompts(file)
    else:
        write_prompts(file, distinct=20 if kind == "repeated" else None)
    table: pa.Table = pq.ParquetFile(file).read()
    size = -(-len(table) // PARTS)
    for number in range(PARTS):
        pq.write_table(table.slice(number * size, size), parts / f"{number:02}.parquet")
    rows = table.to_pylist()
    lines = folder / "prompts.jsonl"
    with lines.open("w") as out:
        for row in rows:
            out.write(json.dumps(row) + "\n")
    return Prompts(parquet=file, parts=parts, lines=lines, texts={row["id"]: row["text"] for row in rows})
