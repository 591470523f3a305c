"""`s1batch engine up`, `check` and `down` with real processes: what starts is watched, and nothing survives its end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import psutil
import pytest

from s1batch.results.process import ProcessIdentity
from tests.launching.nodes import Node, alive, detached_up, s1batch, until, words
from tests.ports import free_ports


@pytest.fixture
def node(tmp_path):
    """Make nodes whose processes do not outlive the test."""
    made = []

    def make(folder="node", **fields):
        made.append(Node(tmp_path / folder, **fields))
        return made[-1]

    yield make
    for each in made:
        if each.process is not None and each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


def test_healthy_servers_are_registered_checked_and_ended_by_ctrl_c(node, tmp_path):
    """Two ranks, one of them slow: both registered once healthy, all processes and the registration gone at the end."""
    one = node(stand_in="slow:1,family", dp=2, ep=2, name="pro", smallest_prompt_tokens=62, stop_grace_s=1)
    one.up()
    found = one.until_ready()
    assert [each["url"].rpartition(":")[2] for each in found["endpoints"]] == [str(one.port), str(one.port + 1)]
    assert {(each["model"], each["single_prefill"]) for each in found["endpoints"]} == {("pro", True)}
    code, table = s1batch("engine", "check", one.endpoints)
    assert code == 0
    assert "2 of 2 endpoints work" in table
    family = one.family()

    def marked():
        return [each for each in family if any(word.startswith("family-of-") for word in words(each))]

    until(lambda: len(marked()) == 2, "one in a group of its own, one detached twice")
    assert one.end(signal.SIGINT) == 0
    assert not alive(family)
    assert one.registrations() == []
    assert "TurboMind does not serve it, using LMDeploy's PyTorch engine" in one.output


def test_a_crash_at_start_shows_the_end_of_the_log_and_exits_1(node):
    one = node(stand_in="crash")
    one.up()
    assert one.finished() == 1
    assert "  CUDA error: out of memory\n" in one.output, "without the codes that colour a terminal"
    assert "server ended with code 3" in one.output
    assert one.registrations() == []


def test_a_program_that_is_not_there_is_an_error_before_anything_starts(node):
    one = node(prefix=["no-such-program"])
    one.up()
    assert one.finished() == 2
    assert "no-such-program is not on the PATH" in one.output


def test_a_port_that_is_taken_is_an_error_before_anything_starts(node):
    port = free_ports()
    first = node("first", port=port)
    first.up()
    first.until_ready()
    second = node("second", port=port)
    second.up()
    assert second.finished() == 2
    assert f"port {port} of this node is taken" in second.output
    first.end()


def test_a_deadline_ends_what_never_becomes_healthy(node):
    one = node(stand_in="slow:600,deaf", ready_timeout_s=3.0, stop_grace_s=0.3)
    one.up()
    assert one.finished() == 1
    assert "not all servers are healthy after" in one.output
    assert "started with lmdeploy serve api_server /models/tiny" in one.output


def test_another_model_behind_the_port_is_not_registered(node):
    one = node(server="vllm", architecture=None, name="other", prefix=[sys.executable, "-c", SERVES_SOMETHING_ELSE])
    one.up()
    assert one.finished() == 1
    assert "it serves something-else, not other" in one.output


SERVES_SOMETHING_ELSE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"data": [{"id": "something-else"}]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("", port), Handler).serve_forever()
"""


def test_a_crash_later_ends_the_rest_and_exits_1(node):
    """Ray and the server of one node: when the server dies, Ray's process and all its children go too."""
    port = free_ports(2)
    one = node(stand_in="", tp=2, nodes=["127.0.0.1", "127.0.0.2"], port=port, ray_port=port + 1)
    one.up("--node-rank", "0")
    one.until_ready()
    family = one.family()
    (server,) = [each for each in family if "api_server" in each.cmdline() and "--grace-s" not in each.cmdline()]
    server.kill()
    assert one.finished() == 1
    assert "server ended with code 137" in one.output
    assert not alive(family)
    assert one.registrations() == []


def test_a_node_that_only_computes_waits_for_the_first_one(node):
    """The second node joins when Ray's head is there, registers no endpoint, and ends with its own signal."""
    port, ray = free_ports(), free_ports()
    nodes = ["127.0.0.1", "127.0.0.2"]
    second = node("second", tp=2, nodes=nodes, port=port, ray_port=ray)
    second.up("--node-rank", "1")
    first = node("first", tp=2, nodes=nodes, port=port, ray_port=ray)
    first.up("--node-rank", "0")
    assert second.until_ready()["endpoints"] == []
    assert first.until_ready()["endpoints"][0]["url"] == f"http://127.0.0.1:{port}"
    assert second.end() == 0
    assert f"started with ray start --address=127.0.0.1:{ray}" in next(second.folder.glob("logs/*ray*")).read_text()
    assert first.end() == 0


def test_a_server_that_stays_sick_is_given_up(node, tmp_path):
    sick = tmp_path / "sick"
    one = node(stand_in=f"sick-when:{sick}", unhealthy_after_s=0.5)
    one.up()
    one.until_ready()
    sick.touch()
    assert one.finished() == 1
    assert "/health answers 503" in one.output
    assert one.registrations() == []


def test_nothing_survives_when_up_itself_is_killed(node):
    """SIGKILL of the supervisor: its guards end the servers, also deaf ones, and take the registration away."""
    one = node(stand_in="deaf,family", stop_grace_s=0.3)
    one.up()
    one.until_ready()
    family = one.family()
    assert len(family) == 4, "guard, server, and its two children"
    assert one.end(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: not alive(family), "the end of all processes")
    assert one.registrations() == []


def test_nothing_survives_when_a_guard_is_killed(node):
    one = node(stand_in="deaf,family", stop_grace_s=0.3)
    one.up()
    one.until_ready()
    family = one.family()
    (guard,) = [each for each in family if "--grace-s" in each.cmdline()]
    guard.kill()
    assert one.finished() == 1
    assert "server was killed by signal 9" in one.output
    assert not alive(family)


def test_a_signal_before_the_servers_are_ready_is_an_interruption(node):
    one = node(stand_in="slow:600")
    one.up()
    until(one.registrations, "the first registration")
    until(lambda: len(one.family()) == 2, "guard and server")
    family = one.family()
    assert one.registrations()[0]["ready"] is False
    code, text = s1batch("engine", "check", one.endpoints)
    assert (code, text.splitlines()[-1]) == (1, "0 of 0 endpoints work")
    assert one.end() == 75
    assert not alive(family)


def test_two_nodes_register_at_once_and_down_ends_one_host(node, tmp_path):
    folder = tmp_path / "shared"
    nodes = [node(f"node{number}", endpoints=str(folder)) for number in range(2)]
    for each in nodes:
        each.up()
    for each in nodes:
        each.until_ready()
    code, text = s1batch("engine", "check", folder, "--expect", 2)
    assert code == 0, text
    assert s1batch("engine", "check", folder, "--expect", 3)[0] == 1
    elsewhere = {**nodes[0].registrations()[0]}
    elsewhere["process"] = {**elsewhere["process"], "host": "another-host"}
    (folder / "another-host_1_1.json").write_text(json.dumps(elsewhere))
    code, text = s1batch("engine", "down", folder)
    assert code == 0
    assert text.count(": ended\n") == 2
    assert "runs on another-host, run the same command there" in text
    assert [each.finished() for each in nodes] == [0, 0]
    assert [path.name for path in folder.iterdir()] == ["another-host_1_1.json"]


def test_down_never_kills_a_number_that_was_used_again(tmp_path):
    """A registration whose process has ended and whose number another process got: only deregistered."""
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        here = ProcessIdentity.current().plain()
        plain = {
            "host": "127.0.0.1",
            "node_rank": 0,
            "server": "lmdeploy",
            "started": "2026-01-01T00:00:00+00:00",
            "ready": True,
            "process": {**here, "pid": stranger.pid, "started": "1"},
            "endpoints": [{"url": "http://127.0.0.1:1", "model": "m", "single_prefill": False}],
        }
        (tmp_path / "one.json").write_text(json.dumps(plain))
        code, text = s1batch("engine", "down", tmp_path)
        assert code == 0
        assert "is gone already; deregistered" in text
        assert stranger.poll() is None
        assert list(tmp_path.iterdir()) == []
    finally:
        stranger.kill()
        stranger.wait()


def test_detached_servers_stay_until_down(node):
    one = node()
    code, text = detached_up(one.spec)
    assert code == 0, text
    pid = one.registrations()[0]["process"]["pid"]
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    assert len(family) == 3
    assert s1batch("engine", "check", one.url)[0] == 0
    assert s1batch("engine", "down", one.endpoints)[0] == 0
    assert not alive(family)
    assert s1batch("engine", "check", one.url)[0] == 1


@pytest.mark.slow
def test_a_signal_while_detached_servers_start_ends_them(node):
    one = node(stand_in="slow:600")
    one.up("--detach")
    until(lambda: len(one.family()) == 3, "supervisor, guard and server")
    family = one.family()
    assert one.end() == 75
    assert not alive(family)


def test_a_server_ends_when_its_guard_and_up_are_killed_in_the_same_moment(node):
    one = node()
    one.up()
    one.until_ready()
    family = one.family()
    (guard,) = [each for each in family if "--grace-s" in each.cmdline()]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        guard.send_signal(number)
        one.process.send_signal(number)
    one.finished()
    until(lambda: not alive(family), "the end of the server")
    code, text = s1batch("engine", "check", one.endpoints)
    assert (code, "dead" in text) == (1, True)
    again = node("again", endpoints=str(one.endpoints))
    again.up()
    again.until_ready()
    assert len(again.registrations()) == 1, "the dead one was removed"
    again.end()


@pytest.mark.slow
def test_detached_servers_that_crash_are_told_with_their_log(node):
    one = node(stand_in="crash")
    code, text = detached_up(one.spec)
    assert code == 1
    assert "CUDA error: out of memory" in text
    assert one.registrations() == []
