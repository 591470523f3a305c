"""The programs: how each is configured, started and read. docs/benchmarks.md says where the settings come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import ROOT
from tests.benchmarks.peers.environments import QUIET, python_of
from tests.benchmarks.peers.outcomes import Row, curator_rows, datatrove_rows, parquet_rows, s1batch_rows

SCRIPTS = Path(__file__).parent / "scripts"
JOB = """\
name: bench
source: {{kind: table, path: [{prompts}]}}
job: {{kind: ask, prompt: "{{{{ text }}}}"}}
engine: {{kind: http, urls: ["{url}"], max_in_flight: {in_flight}}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a program is to do.

    Attributes:
        url: The server.
        prompts: Parquet file with the columns `id` and `text`.
        parts: Folder with the same in several files.
        lines: The same as JSON lines.
        folder: Its working directory.
        in_flight: Requests at once; None: as the program is configured.
        options: Settings beside those of the program.
    """

    url: str
    prompts: Path
    parts: Path
    lines: Path
    folder: Path
    in_flight: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        """Where rows go."""
        return self.folder / "out"

    @property
    def state(self) -> Path:
        """Where checkpoints and caches go."""
        return self.folder / "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One way to answer all prompts.

    Attributes:
        name: On the command line and in results.
        label: In tables.
        environment: The virtual environment that it runs in; None is ours.
        script: Of `scripts/`; None for those that are started otherwise.
        in_flight: Requests at once where the scenario does not say.
        options: What the script is told besides.
        variables: Environment variables; `{in_flight}` stands for that number.
    """

    name: str
    label: str
    environment: str | None = None
    script: str | None = None
    in_flight: int = 256
    options: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)

    def command(self, task: Task, environments: Path) -> list[str]:
        """Return the command, and write the files that it reads."""
        python, in_flight = python_of(environments, self.environment), task.in_flight or self.in_flight
        if self.name == "s1batch":
            job = task.folder / "job.yaml"
            job.write_text(JOB.format(prompts=task.prompts, url=task.url, in_flight=in_flight))
            return [python, "-m", "s1batch", "run", str(job), "-o", str(task.output)]
        if self.script is None:
            bare = ROOT / "tests/benchmarks/bare_loop.py"
            return [python, str(bare), task.url, str(task.prompts), str(task.output), str(in_flight)]
        settings, options = task.folder / "settings.json", {**self.options, **task.options}
        plain = {
            "url": task.url,
            "prompts": str(task.parts if options.get("parts") else task.prompts),
            "lines": str(task.lines),
            "output": str(task.output),
            "state": str(task.state),
            "in_flight": in_flight,
            "is_bounded": task.in_flight is not None,
            "options": options,
        }
        settings.write_text(json.dumps(plain, indent=1))
        return [python, str(SCRIPTS / self.script), str(settings)]

    def environ(self, task: Task) -> dict[str, str]:
        """Return the environment variables of the command."""
        in_flight = str(task.in_flight or self.in_flight)
        return {**QUIET, **{name: text.format(in_flight=in_flight) for name, text in self.variables.items()}}

    def rows(self, task: Task, prompts: Mapping[str, str]) -> list[Row]:
        """Return what the command wrote."""
        if self.name == "s1batch":
            return s1batch_rows(task.output, prompts)
        if self.name.startswith("datatrove"):
            return datatrove_rows(task.output)
        if self.name == "curator":
            return curator_rows(task.output, task.state)
        return parquet_rows(task.output)


PROGRAMS = {
    program.name: program
    for program in (
        Program(name="bare", label="bare aiohttp loop (floor)"),
        Program(name="s1batch", label="**s1batch**"),
        Program(
            name="datatrove",
            label="datatrove",
            environment="peers",
            script="datatrove_endpoint.py",
            in_flight=500,
        ),
        Program(
            name="datatrove-resumable",
            label="datatrove, with checkpoints",
            environment="peers",
            script="datatrove_endpoint.py",
            in_flight=500,
            options={"checkpoints": True},
        ),
        Program(name="daft", label="Daft", environment="peers", script="daft_prompt.py", in_flight=1000),
        Program(
            name="daft-resumable",
            label="Daft on Ray, with checkpoints",
            environment="peers",
            script="daft_prompt.py",
            options={"checkpoints": True, "parts": True},
        ),
        Program(
            name="ray",
            label="Ray Data",
            environment="peers",
            script="ray_http.py",
            in_flight=256,
            options={"batch": 8},
            variables={"RAY_DATA_DEFAULT_ASYNC_BATCH_UDF_MAX_CONCURRENCY": "{in_flight}"},
        ),
        Program(
            name="ray-resumable",
            label="Ray Data, with checkpoints",
            environment="peers",
            script="ray_http.py",
            options={"batch": 8, "checkpoints": True, "parts": True},
            variables={"RAY_DATA_DEFAULT_ASYNC_BATCH_UDF_MAX_CONCURRENCY": "{in_flight}"},
        ),
        Program(
            name="curator",
            label="curator",
            environment="curator",
            script="curator_online.py",
            in_flight=2000,
        ),
    )
}
"""By name, in the order of the tables."""
