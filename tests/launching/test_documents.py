"""README.md, docs/two-nodes.md and docs/servers.md: every command and option exists, every block of YAML is valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from s1batch.cli import main
from s1batch.engine.serving.backends import choose_backend
from s1batch.engine.serving.commands import plan_nodes
from s1batch.engine.serving.engine_spec import ServedEngineSpec
from s1batch.engine.serving.spec import ServingSpec
from s1batch.jobfile import load_job

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TEXT = (DOCS / "two-nodes.md").read_text(encoding="utf-8")
COMMANDS = sorted({match.group().rstrip("\\ ") for match in re.finditer(r"(?<![/`\w])s1batch [a-z][^\n#|&]*", TEXT)})
SERVERS = (DOCS / "servers.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODES = re.findall(r"^\| ([^|]+) \| `(\{[^`]*\})`[^|]* \| (\d+)", SERVERS, flags=re.MULTILINE)


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


def test_the_servers_on_the_page_can_be_started_on_two_nodes() -> None:
    (block,) = [block for block in blocks("yaml") if block.startswith("server:")]
    (job,) = [block for block in blocks("yaml") if block.startswith("name:")]
    engine = load_job(yaml.safe_load(job)).spec.engine
    assert isinstance(engine, ServedEngineSpec)
    assert engine.nodes == 2
    spread = engine.model_copy(update={"tp": 1, "dp": 16, "ep": 16})
    described = ServingSpec.model_validate(yaml.safe_load(block))
    endpoints = []
    for served in (described, engine.serving(("node0", "node1")), spread.serving(("node0", "node1"))):
        spec = served.model_copy(update={"architecture": "InternS1ProForConditionalGeneration"})
        endpoints.append(sum(len(plan.ports) for plan in plan_nodes(spec, choose_backend(spec), ("node0", "node1"))))
    assert endpoints == [1, 1, 16]
    same = ("tp", "session_len", "trust_remote_code", "reasoning_parser", "stage", "prefix", "env", "name")
    assert [getattr(described, field) for field in same] == [getattr(engine, field) for field in same]


@pytest.mark.parametrize("line", sorted(set(re.findall(r"`(s1batch [a-z][^`]*)`", README + SERVERS))))
def test_every_command_that_is_mentioned_exists_with_its_options(line: str) -> None:
    words = line.split()[1:]
    alternatives = words.pop(0).split("/")
    if isinstance(main.commands.get(alternatives[0]), click.Group):
        group = main.commands[alternatives[0]]
        assert isinstance(group, click.Group)
        alternatives = words.pop(0).split("/") if words else []
        commands = [group.commands[name] for name in alternatives]
    else:
        commands = [main.commands[name] for name in alternatives]
    options = {name for command in commands for parameter in command.params for name in parameter.opts}
    mentioned = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", " ".join(words)))
    assert mentioned <= options, line


def test_the_table_of_modes_is_there() -> None:
    assert len(MODES) == 5


@pytest.mark.parametrize(("mode", "description", "endpoints"), MODES)
def test_a_dry_run_prints_the_commands_of_each_mode(
    mode: str, description: str, endpoints: str, tmp_path: Path
) -> None:
    architecture = "Qwen3MoeForCausalLM" if mode.startswith("TurboMind") else "InternS1ProForConditionalGeneration"
    spec = {"model": "/models/m", "architecture": architecture, **yaml.safe_load(description)}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(spec))
    done = CliRunner().invoke(main, ["engine", "up", str(tmp_path / "serve.yaml"), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert f"LMDeploy's {'TurboMind' if mode.startswith('TurboMind') else 'PyTorch'} engine" in done.output
    lines = [line for line in done.output.splitlines() if "lmdeploy serve api_server" in line]
    assert len([line for line in done.output.splitlines() if line.startswith("# node")]) == len(spec.get("nodes", "1"))
    assert all(shlex.split(line.removesuffix(" &")) for line in lines)
    assert len(re.findall(r"http://\S+", done.output)) == int(endpoints)


def test_the_engines_on_the_page_are_valid() -> None:
    engines = [yaml.safe_load(block)["engine"] for block in re.findall(r"```yaml\n(engine:.*?)```", SERVERS, re.DOTALL)]
    assert engines
    for engine in engines:
        job = {"source": {"kind": "seismic", "paths": ["a"]}, "job": {"kind": "seismic-pick"}, "engine": engine}
        assert load_job(job).spec.engine.kind == "lmdeploy"


def test_every_field_of_the_description_is_in_the_table() -> None:
    table = (DOCS / "servers.md").read_text(encoding="utf-8").partition("## Modes")[0]
    assert set(re.findall(r"`(\w+)`", table)) >= set(ServingSpec.model_fields)
