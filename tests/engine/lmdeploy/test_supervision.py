"""One engine process after the other, real ones, none of them LMDeploy: what fails, and what is asked again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from s1batch.engine.lmdeploy import worker as worker_module
from s1batch.engine.lmdeploy.engine import LmdeployEngine
from s1batch.engine.lmdeploy.spec import LmdeployEngineSpec, open_lmdeploy
from s1batch.errors import EngineUnavailable, MissingExtra
from s1batch.records import Response, Sampling
from tests.engine.build import text_request

ROOT = Path(__file__).resolve().parents[3]
CHILD = Path(__file__).with_name("small_child.py")

Opener = Callable[..., Awaitable[LmdeployEngine]]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


class Child:
    """What the engine processes of a test were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def lines(self) -> list[dict[str, Any]]:
        file = self.folder / "asked.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def asked(self) -> Counter[str]:
        return Counter(line["text"] for line in self.lines if "text" in line)

    @property
    def pids(self) -> list[int]:
        return [line["pid"] for line in self.lines if "opened" in line]

    async def sees(self, text: str, times: int = 1) -> None:
        await until(lambda: self.asked[text] >= times)

    async def stands_still(self) -> None:
        await until(lambda: psutil.Process(self.pids[-1]).status() == psutil.STATUS_STOPPED)

    def go(self) -> None:
        (self.folder / "go").touch()


@pytest.fixture
def child(tmp_path: Path) -> Child:
    return Child(tmp_path)


@pytest.fixture
async def open_engine(tmp_path: Path) -> AsyncIterator[Opener]:
    opened = []
    before = set(psutil.Process().children(recursive=True))

    async def opener(mode: str = "works", **fields: Any) -> LmdeployEngine:
        fields = {"stop_grace_s": 0.5, "check_every_s": 0.05, "unhealthy_after_s": 60.0, **fields}
        spec = LmdeployEngineSpec(model="internlm/Intern-S1-Pro", **fields)
        command = [sys.executable, "-P", str(CHILD), str(tmp_path), mode]
        engine = await open_lmdeploy(spec, tmp_path, command=command)
        opened.append(engine)
        return engine

    yield opener
    for engine in opened:
        await engine.aclose()
    left = set(psutil.Process().children(recursive=True)) - before
    assert not left, "neither guards nor engine processes nor zombies are left"


async def answer(engine: LmdeployEngine, text: str) -> Response:
    return await engine.answer(text_request(text))


async def answers(engine: LmdeployEngine, texts: list[str]) -> list[Response]:
    return await asyncio.gather(*(answer(engine, text) for text in texts))


async def test_every_answer_belongs_to_its_request(open_engine: Opener, child: Child) -> None:
    engine = await open_engine()
    texts = [f"question {number}" for number in range(60)]
    found = await answers(engine, texts)
    assert [each.text for each in found] == texts
    assert [each.fingerprint for each in found] == [text_request(text).fingerprint for text in texts]
    assert set(child.asked.values()) == {1}
    assert (found[0].prompt_tokens, found[0].output_tokens, found[0].cached_tokens) == (1, 2, 3)
    assert (found[0].attempts, found[0].engine, found[0].model) == (1, "lmdeploy 0 pytorch", "internlm/Intern-S1-Pro")
    assert engine.rules.context_tokens == 4096


async def test_a_budget_cuts_the_thought_and_the_answer_is_asked_for_behind_it(
    open_engine: Opener, child: Child
) -> None:
    engine = await open_engine()
    schema = {"type": "object"}
    sampling = Sampling(max_tokens=100, thinking=True, thinking_budget=30)
    plain = text_request("[think] of waves")
    asked = replace(plain, sampling=sampling, schema=schema)
    found = await engine.answer(asked)
    first, second = (line for line in child.lines if "text" in line)
    assert (first["generation"]["max_new_tokens"], second["generation"]["max_new_tokens"]) == (30, 70)
    assert (first["template"], second["template"]) == ({"enable_thinking": True}, {"enable_thinking": False})
    assert first["generation"]["response_format"]["type"] == "structural_tag"
    assert second["generation"]["response_format"]["type"] == "json_schema"
    assert second["text"] == "<think>[think] of waves</think>\n\n"
    assert (found.reasoning, found.fingerprint) == ("[think] of waves", asked.fingerprint)
    assert (found.prompt_tokens, found.output_tokens, found.attempts) == (2, 4, 2)


async def test_a_thought_within_its_budget_is_asked_for_once(open_engine: Opener, child: Child) -> None:
    engine = await open_engine()
    sampling = Sampling(max_tokens=100, thinking=True, thinking_budget=30)
    found = await engine.answer(replace(text_request("waves</think>yes"), sampling=sampling))
    assert (found.reasoning, found.text, found.attempts) == ("waves", "yes", 1)
    assert len(child.pids) == 1
    assert sum(child.asked.values()) == 1


async def test_a_request_is_sent_at_once_and_waits_for_no_other(open_engine: Opener, child: Child) -> None:
    engine = await open_engine()
    slow = asyncio.create_task(answer(engine, "[wait] slow"))
    await child.sees("[wait] slow")
    assert (await answer(engine, "quick")).text == "quick"
    assert not slow.done()
    child.go()
    assert (await slow).text == "[wait] slow"


@pytest.mark.parametrize(
    "order", ["die", "stop", "unhealthy", "garbage", pytest.param("freeze", marks=pytest.mark.slow)]
)
async def test_after_a_failure_only_what_was_in_flight_is_asked_again(
    open_engine: Opener, child: Child, order: str
) -> None:
    engine = await open_engine(unhealthy_after_s=2.5 if order == "freeze" else 60.0)
    early = [f"early {number}" for number in range(10)]
    await answers(engine, early)
    waiting = [f"[wait] {number}" for number in range(4)]
    tasks = [asyncio.create_task(answer(engine, text)) for text in waiting]
    for text in waiting:
        await child.sees(text)
    culprit = asyncio.create_task(answer(engine, f"[{order}-once] [wait]"))
    for text in waiting:
        await child.sees(text, 2)
    child.go()
    late = await answers(engine, ["late"])
    found = await asyncio.gather(*tasks)
    assert [each.text for each in [*found, *late]] == [*waiting, "late"]
    assert [each.attempts for each in [*found, *late]] == [2, 2, 2, 2, 1]
    assert (await culprit).attempts == 2
    assert [child.asked[text] for text in [*early, *waiting, "late"]] == [1] * 10 + [2] * 4 + [1]
    first, second = child.pids
    assert not psutil.pid_exists(first)
    assert psutil.pid_exists(second)


async def test_an_engine_process_that_reads_nothing_any_more_is_replaced(open_engine: Opener, child: Child) -> None:
    """More is on its way to it than the socket holds."""
    engine = await open_engine(unhealthy_after_s=2.5)
    freezing = asyncio.create_task(answer(engine, "[freeze-once]"))
    await child.stands_still()
    large = [f"{number} {'x' * 3_000_000}" for number in range(3)]
    found = await answers(engine, large)
    assert [each.text for each in found] == large
    assert (await freezing).text == "[freeze-once]"


async def test_an_engine_process_that_reads_nothing_any_more_can_be_closed(open_engine: Opener, child: Child) -> None:
    engine = await open_engine()
    tasks = [asyncio.create_task(answer(engine, "[freeze]"))]
    await child.stands_still()
    tasks += [asyncio.create_task(answer(engine, "x" * 3_000_000)) for _ in range(3)]
    await asyncio.sleep(0)
    await engine.aclose()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(each) for each in found} == {EngineUnavailable}


async def test_a_question_that_always_kills_the_engine_ends_alone(open_engine: Opener, child: Child) -> None:
    engine = await open_engine()
    waiting = [f"[wait] {number}" for number in range(3)]
    tasks = [asyncio.create_task(answer(engine, text)) for text in waiting]
    for text in waiting:
        await child.sees(text)
    poison = asyncio.create_task(answer(engine, "[die]"))
    await child.sees("[die]", 2)
    child.go()
    ended = await poison
    assert (ended.error, ended.finish_reason, ended.attempts) == ("engine_unavailable", "error", 3)
    assert [each.text for each in await asyncio.gather(*tasks)] == waiting
    assert (await answer(engine, "next")).text == "next"


async def test_restarts_are_bounded(open_engine: Opener) -> None:
    engine = await open_engine(max_restarts=1, max_attempts=10)
    with pytest.raises(EngineUnavailable, match=r"failed 2 times in a row.*exit code 7.*Run again"):
        await answer(engine, "[die]")
    with pytest.raises(EngineUnavailable):
        await answer(engine, "later")


async def test_an_engine_that_does_not_come_back_ends_the_run(open_engine: Opener) -> None:
    engine = await open_engine("starts-once", max_restarts=1)
    with pytest.raises(EngineUnavailable, match=r"exit code 4.*no such device \| CUDA error"):
        await answer(engine, "[die]")


async def test_an_error_of_one_request_is_asked_again_and_stays_its_own(open_engine: Opener, child: Child) -> None:
    engine = await open_engine()
    found = await answers(engine, ["[internal]", "[internal-once]", "fine"])
    assert [(each.error, each.attempts) for each in found] == [("internal_error", 3), (None, 2), (None, 1)]
    assert len(child.pids) == 1


async def test_many_errors_in_a_row_are_the_engine_and_not_the_requests(open_engine: Opener, child: Child) -> None:
    engine = await open_engine(max_attempts=1)
    found = await answers(engine, [f"[internal] {number}" for number in range(25)])
    assert {each.error for each in found} <= {"internal_error", "engine_unavailable"}
    assert (await answer(engine, "fine")).text == "fine"
    assert len(child.pids) == 2


@pytest.mark.parametrize(
    ("mode", "error", "told"),
    [
        ("dies", EngineUnavailable, r"ended with exit code 4.*no such device \| CUDA error"),
        ("fails", EngineUnavailable, r"LMDeploy ended the process with exit code 1.*log"),
        ("missing", MissingExtra, r"No module named 'lmdeploy'.*pip install -c constraints/lmdeploy.txt"),
        ("slow", EngineUnavailable, r"not ready after 4 s \(loading nothing\); raise start_timeout_s"),
    ],
)
async def test_an_engine_that_does_not_start_says_why_in_one_line(
    open_engine: Opener, mode: str, error: type[Exception], told: str
) -> None:
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(error, match=told) as caught:
        await open_engine(mode, start_timeout_s=4.0 if mode == "slow" else 60.0)
    assert "\n" not in str(caught.value)
    assert not set(psutil.Process().children(recursive=True)) - before


async def test_a_request_has_a_deadline_even_if_the_engine_process_forgets_it(
    open_engine: Opener, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "REPLY_GRACE_S", 0.0)
    engine = await open_engine(timeout_s=0.5)
    found = await answer(engine, "[hang]")
    assert (found.error, found.detail) == ("deadline", "no answer within 0.5 s")
    await until(lambda: any("cancel" in line for line in child.lines))
    assert len(child.pids) == 1


async def test_a_cancelled_request_is_cancelled_in_the_engine_process(open_engine: Opener, child: Child) -> None:
    engine = await open_engine()
    asking = asyncio.create_task(answer(engine, "[hang]"))
    await child.sees("[hang]")
    asking.cancel()
    await until(lambda: any("cancel" in line for line in child.lines))
    assert (await answer(engine, "fine")).text == "fine"


async def test_a_cancelled_request_ends_when_the_engine_process_is_rid_of_it(
    open_engine: Opener, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A feeder lets the next class of series in when the call has ended."""
    monkeypatch.setattr(worker_module, "CANCEL_PATIENCE_S", 60.0)
    engine = await open_engine("confirms-late")
    asking = asyncio.create_task(answer(engine, "[hang]"))
    await child.sees("[hang]")
    asking.cancel()
    await until(lambda: any("cancel" in line for line in child.lines))
    assert (await answer(engine, "fine")).text == "fine"
    assert not asking.done()
    child.go()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_it_is_started_anew_after_so_many_answers_and_nothing_is_asked_twice(
    open_engine: Opener, child: Child
) -> None:
    engine = await open_engine(recycle_after_requests=10)
    texts = [f"question {number}" for number in range(35)]
    slots = asyncio.Semaphore(4)

    async def one(text: str) -> Response:
        async with slots:
            return await answer(engine, text)

    found = await asyncio.gather(*(one(text) for text in texts))
    assert [each.text for each in found] == texts
    assert set(child.asked.values()) == {1}
    assert {each.attempts for each in found} == {1}
    await engine.aclose()
    assert 3 <= len(child.pids) <= 4
    assert engine.expert_tokens() == [[35, 0], [0, len(child.pids)]], "those of all engine processes"


@pytest.mark.slow
async def test_it_is_started_anew_after_so_much_time(open_engine: Opener, child: Child) -> None:
    engine = await open_engine(recycle_after_h=0.5 / 3600)
    await until(lambda: len(child.pids) >= 2)
    assert (await answer(engine, "fine")).text == "fine"


async def test_the_terminal_does_not_reach_the_engine_process(open_engine: Opener, child: Child) -> None:
    await open_engine()
    (pid,) = child.pids
    assert os.getsid(pid) != os.getsid(0)


async def test_closing_ends_what_is_in_flight(open_engine: Opener, child: Child) -> None:
    engine = await open_engine()
    asking = asyncio.create_task(answer(engine, "[hang]"))
    await child.sees("[hang]")
    await engine.aclose()
    with pytest.raises(EngineUnavailable):
        await asking
    assert not psutil.pid_exists(child.pids[0])


async def test_expert_counts_are_those_of_all_engine_processes(open_engine: Opener) -> None:
    engine = await open_engine()
    await answers(engine, ["a", "b", "c"])
    await engine.aclose()
    assert engine.expert_tokens() == [[3, 0], [0, 1]]


PARENT = """
import asyncio, sys
from pathlib import Path
from s1batch.engine.lmdeploy.spec import LmdeployEngineSpec, open_lmdeploy

async def main():
    spec = LmdeployEngineSpec(model="internlm/Intern-S1-Pro", stop_grace_s=0.5)
    await open_lmdeploy(spec, Path(sys.argv[2]), command=[sys.executable, "-P", *sys.argv[1:], "works"])
    print("open", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_engine_process_does_not_survive_a_run_that_is_killed(child: Child) -> None:
    command = [sys.executable, "-c", PARENT, str(CHILD), str(child.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:  # noqa: ASYNC220
        assert parent.stdout is not None
        assert await asyncio.to_thread(parent.stdout.readline) == b"open\n"
        parent.send_signal(signal.SIGKILL)
    (pid,) = child.pids
    await until(lambda: not psutil.pid_exists(pid))


async def test_a_python_without_lmdeploy_says_what_to_install(tmp_path: Path) -> None:
    spec = LmdeployEngineSpec(model="internlm/Intern-S1-Pro", python=sys.executable, env={"PYTHONPATH": str(ROOT)})
    with pytest.raises(MissingExtra, match=r"No module named 'lmdeploy'.*pip install -c constraints/lmdeploy.txt"):
        await open_lmdeploy(spec, tmp_path)
