"""Before anything is started: dry runs, which node this is, and what a log's end looks like."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from s1batch.errors import UsageError
from s1batch.launching.checking import EndpointState, state_lines
from s1batch.launching.log_tail import tail
from s1batch.launching.starting import prepare, this_node
from tests.launching.nodes import s1batch

SPEC = "{model: /models/pro, architecture: InternS1ProForConditionalGeneration, tp: 16, nodes: [alpha, beta]}"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "serve.yaml").write_text(SPEC)
    return tmp_path / "serve.yaml"


def test_a_dry_run_prints_the_commands_of_all_nodes_and_starts_nothing(spec: Path) -> None:
    code, text = s1batch("engine", "up", spec, "--dry-run", "--nodes", "n7,n8")
    assert code == 0
    assert [line for line in text.splitlines() if line.startswith("# node ")] == [
        "# node 0: n7, serves http://n7:23333",
        "# node 1: n8",
    ]
    assert "RAY_ADDRESS=n7:6379 lmdeploy serve api_server /models/pro --backend pytorch --tp 16" in text
    assert [path.name for path in spec.parent.iterdir()] == ["serve.yaml"]


def test_turbomind_is_refused_by_the_name_of_the_architecture(spec: Path) -> None:
    spec.write_text(SPEC.replace("tp: 16", "tp: 16, backend: turbomind"))
    code, text = s1batch("engine", "up", spec, "--dry-run")
    assert (code, text.count("\n")) == (2, 1)
    assert "InternS1ProForConditionalGeneration: TurboMind does not serve it" in text


def test_a_node_finds_its_place_by_name_then_by_slurm(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = socket.gethostname()
    for name in ("SLURM_NODEID", "SLURM_NNODES"):
        monkeypatch.delenv(name, raising=False)
    assert this_node(prepare(spec, nodes=["other", here]), None).rank == 1
    assert this_node(prepare(spec), 1).host == "beta"
    with pytest.raises(UsageError, match=f"this host is {here}.*say which it is with --node-rank"):
        this_node(prepare(spec), None)
    with pytest.raises(UsageError, match="there are 2 nodes"):
        this_node(prepare(spec), 2)
    monkeypatch.setenv("SLURM_NODEID", "1")
    monkeypatch.setenv("SLURM_NNODES", "2")
    assert this_node(prepare(spec), None).host == "beta"
    monkeypatch.setenv("SLURM_NNODES", "3")
    with pytest.raises(UsageError, match="--node-rank"):
        this_node(prepare(spec), None)


def test_a_url_that_cannot_be_asked_is_an_error_and_a_dead_one_exits_1() -> None:
    assert s1batch("engine", "check", "ftp://x")[0] == 2
    code, text = s1batch("engine", "check", "http://127.0.0.1:1", "--json")
    assert code == 1
    assert '"ok": false' in text


def test_what_a_server_says_of_itself_steers_no_terminal() -> None:
    state = EndpointState(url="http://a:1", ok=True, model="m\x1b[2J\n", dialect="lmdeploy", single_prefill=True)
    assert state_lines([state])[1:] == [
        "http://a:1  works  lmdeploy  yes             m\ufffd[2J\ufffd",
        "1 of 1 endpoints work",
    ]


def test_the_end_of_a_log_steers_no_terminal(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 100_000 + b"\n\x1b]0;title\x07 50%\r100%\n\n\x1b[2J\xffend\n")
    assert tail(log, 2) == ["100%", "\ufffdend"]
    assert tail(tmp_path / "none", 2) == []
