"""docs/two-nodes.md and docs/servers.md: every command and option exists, every block of YAML is valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from s1batch.cli import main
from s1batch.engine.serving.backends import choose_backend
from s1batch.engine.serving.commands import plan_nodes
from s1batch.engine.serving.spec import ServingSpec
from s1batch.jobfile import load_job

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "two-nodes.md").read_text(encoding="utf-8")
COMMANDS = sorted({match.group().rstrip("\\ ") for match in re.finditer(r"(?<![/`\w])s1batch [a-z][^\n#|&]*", TEXT)})


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.parametrize("line", [line for line in COMMANDS if " -" in line or "engine" in line])
def test_every_command_on_the_page_exists_with_its_options(line: str) -> None:
    words = shlex.split(line)[1:]
    command: click.Command = main
    while isinstance(command, click.Group):
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options, line


def test_the_page_names_commands() -> None:
    assert len(COMMANDS) > 10


def test_every_description_of_servers_can_be_started_on_two_nodes() -> None:
    served = [block for block in blocks("yaml") if block.startswith("server:")]
    assert len(served) == 2
    endpoints = []
    for block in served:
        spec = ServingSpec.model_validate(
            {**yaml.safe_load(block), "architecture": "InternS1ProForConditionalGeneration"}
        )
        endpoints.append(sum(len(plan.ports) for plan in plan_nodes(spec, choose_backend(spec), ("node0", "node1"))))
    assert endpoints == [1, 16]


def test_the_job_on_the_page_is_valid() -> None:
    (job,) = [block for block in blocks("yaml") if block.startswith("name:")]
    assert load_job(yaml.safe_load(job)).spec.engine.kind == "http"


def test_every_field_of_the_description_is_in_the_table() -> None:
    table = (DOCS / "servers.md").read_text(encoding="utf-8").partition("## Modes")[0]
    assert set(re.findall(r"`(\w+)`", table)) >= set(ServingSpec.model_fields)
