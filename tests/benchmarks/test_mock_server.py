"""The mock server fails, delays and counts as it is told."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from tests.benchmarks.harness import ROOT
from tests.benchmarks.mock_server import Behaviour, serving


def ask(url: str, text: str) -> int:
    """Ask a question; return the HTTP status."""
    body = json.dumps({"messages": [{"role": "user", "content": text}], "pad": " " * 256}).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=100) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_refused_prompt_stays_refused_and_others_are_answered():
    with serving(latency_s=0.0, fail_every=2, fail_status=400) as server:
        assert [ask(server.url, text) for text in "abbacd"] == [200, 400, 400, 200, 200, 400]
        seen = server.stats()
    assert (seen["requests"], seen["distinct"], seen["failed"], seen["answers"]) == (6, 4, 3, 3)


def test_an_error_of_the_server_is_over_when_it_is_asked_again():
    with serving(latency_s=0.0, fail_every=2, fail_status=500) as server:
        assert [ask(server.url, text) for text in "abb"] == [200, 500, 200]


def test_what_is_asked_again_behind_the_mark_is_counted():
    with serving(latency_s=0.0) as server:
        for text in "aab":
            ask(server.url, text)
        assert server.stats()["again"] == 0
        assert server.mark() == 2
        for text in "bcca":
            ask(server.url, text)
        assert server.stats()["again"] == 2
        server.reset()
        ask(server.url, "a")
        assert server.stats()["again"] == 0


def test_a_request_without_a_question_is_none_of_the_prompts():
    with serving(latency_s=0.0) as server:
        request = urllib.request.Request(
            f"{server.url}/v1/chat/completions", b'{"messages": []}', {"Content-Type": "application/json"}
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=100)
        caught.value.close()
        assert server.stats()["requests"] == 0


def test_a_behaviour_is_the_same_as_options():
    behaviour = Behaviour(latency_s=0.5, fail_every=40)
    options = behaviour.options()
    assert options[options.index("--latency-s") + 1] == "0.5"
    assert options[options.index("--fail-every") + 1] == "40"


def test_it_ends_with_whoever_started_it():
    command = [sys.executable, "-m", "tests.benchmarks.mock_server"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.stdin.close()
        assert process.wait(timeout=100) == 0
