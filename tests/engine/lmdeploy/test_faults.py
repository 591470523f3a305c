"""The real LMDeploy over a stub engine that fails: what is asked again, and what a run makes of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest
import yaml

import s1batch
from s1batch.engine.lmdeploy.spec import LmdeployEngineSpec, open_lmdeploy
from s1batch.errors import EngineUnavailable
from s1batch.records import Response
from tests.archives import write_trace
from tests.engine.lmdeploy.conftest import Real
from tests.engine.lmdeploy.requests import question, told, wave

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]


def marks(real: Real) -> Counter[str]:
    return Counter(mark for line in real.seen() for mark in line["marks"])


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.02)


@pytest.fixture(scope="module")
def frail(start: Callable[..., Real]) -> Real:
    return start(check_every_s=0.2, unhealthy_after_s=30.0, stop_grace_s=2.0, max_restarts=10)


@pytest.mark.parametrize("number", range(5), ids=["exit", "stop", "sysexit", "kill", "block"])
def test_after_a_failure_only_what_was_in_flight_is_asked_again(frail: Real, number: int) -> None:
    order = ["exit", "stop", "sysexit", "kill", "block"][number]
    (frail.stub / "go").unlink(missing_ok=True)
    early, waiting, last = ([f"{100 * number + base + n}" for n in range(4)] for base in (10, 20, 30))

    def begin(mark: str, order: str = "") -> Future[Response]:
        request = question(wave(2500, 1, peak=int(mark)), text=f"{order} <<{mark}>>")
        return asyncio.run_coroutine_threadsafe(frail.engine.answer(request), frail.loop)

    for future in [begin(mark) for mark in early]:
        assert future.result().error is None
    held = [begin(mark, "[[wait]]") for mark in waiting]
    wait_for(lambda: all(marks(frail)[mark] for mark in waiting))
    before = frail.seen()[-1]["pid"]
    if order == "kill":
        os.kill(before, signal.SIGKILL)
        culprit = None
    else:
        culprit = begin(last[0], f"[[{order}-once]]")
    wait_for(lambda: all(marks(frail)[mark] == 2 for mark in waiting))
    (frail.stub / "go").touch()
    for mark, future in zip(waiting, held, strict=True):
        response = future.result()
        assert (told(response)["peak"], response.attempts) == ([int(mark), 0], 2)
    if culprit is not None:
        assert told(culprit.result())["peak"] == [int(last[0]), 0]
    assert begin(last[1]).result().attempts == 1
    count = marks(frail)
    assert [count[mark] for mark in [*early, *waiting, last[1]]] == [1] * 4 + [2] * 4 + [1]
    assert not psutil.pid_exists(before)


def test_a_request_that_hangs_ends_at_its_deadline_and_is_cancelled_there(start: Callable[..., Real]) -> None:
    real = start(timeout_s=2.0)
    response = real.ask(question(text="[[hang]]"))
    assert (response.error, response.detail) == ("deadline", "no answer within 2 s")
    assert '"cancelled"' in (real.stub / "seen.jsonl").read_text()


def test_a_cancelled_request_leaves_the_engine_before_the_call_ends(frail: Real) -> None:
    """Also one that still waits: there are more of them here than the engine answers at once."""
    (frail.stub / "go").unlink(missing_ok=True)

    async def cancel_some() -> list[Any]:
        asking = [asyncio.create_task(frail.engine.answer(question(text=f"[[wait]] <<{n}>>"))) for n in range(900, 970)]
        while len(set(marks(frail)) & {str(n) for n in range(900, 970)}) < 64:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for task in asking:
            task.cancel()
        return await asyncio.gather(*asking, return_exceptions=True)

    ended = asyncio.run_coroutine_threadsafe(cancel_some(), frail.loop).result()
    assert {type(each) for each in ended} == {asyncio.CancelledError}
    assert frail.ask(question(text="fine")).error is None
    assert frail.seen()[-1]["live"] == 1, "nothing is left in the engine"


def test_a_failed_check_of_the_environment_is_told_in_one_line(
    block: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "refuse-to-load").touch()
    spec = LmdeployEngineSpec.model_validate(block(tmp_path))
    with pytest.raises(EngineUnavailable, match=r"exit code 1.*a check of the environment failed") as caught:
        asyncio.run(open_lmdeploy(spec, tmp_path))
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------------------- a whole run

PROPERTIES = {"peak": {"type": "array", "items": {"type": "integer"}}, "checksum": {"type": "integer"}}
SECONDS = 400


@pytest.fixture
def archive(tmp_path: Path) -> tuple[Path, list[int]]:
    """Noise of three components with one large sample in every window of 20 s, and where it stands in it."""
    random = np.random.default_rng(3)
    places = [int(place) for place in random.integers(2000, size=SECONDS // 20)]
    for channel in ("HHZ", "HHN", "HHE"):
        samples = random.normal(0, 100, SECONDS * 100)
        if channel == "HHZ":
            samples[[2000 * window + place for window, place in enumerate(places)]] = 9000
        write_trace(tmp_path / "archive" / f"{channel}.mseed", samples, channel=channel)
    return tmp_path / "archive", places


def job(folder: Path, archive: Path, engine: dict[str, Any], prompt: str) -> Path:
    document = {
        "name": "whole",
        "source": {"kind": "seismic", "paths": [f"{archive}/*"], "components": "ZNE"},
        "window": {"length": "20s"},
        "job": {
            "kind": "ask",
            "prompt": prompt,
            "schema": {"type": "object", "properties": PROPERTIES, "required": list(PROPERTIES)},
        },
        "engine": engine,
        "output": "out",
        "run": {"part_chunks": 8, "drain_s": 15},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def command(path: Path) -> list[str]:
    return [sys.executable, "-m", "s1batch", "run", str(path)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_a_whole_run_goes_through_the_death_of_its_engine(
    block: Callable[..., dict[str, Any]], archive: tuple[Path, list[int]], tmp_path: Path
) -> None:
    stub = tmp_path / "stub"
    stub.mkdir()
    folder, places = archive
    path = job(tmp_path, folder, block(stub, expert_counts=True), "Where is the largest sample? [[exit-once]]")
    done = subprocess.run(command(path), capture_output=True, text=True, env=environment(), timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "TurboMind does not serve it, using LMDeploy's PyTorch engine" in done.stderr
    assert "the engine process is started again (1 of 5)" in done.stderr
    results = s1batch.open_results(tmp_path / "out")
    rows = results.scan().collect().sort("start")
    assert rows["outcome"].to_list() == ["ok"] * len(places)
    assert rows["peak"].to_list() == [[place, 0] for place in places]
    assert rows["engine"].unique().to_list() == ["lmdeploy 0.18.0 pytorch"]
    assert results.verify().ok
    experts = pl.read_parquet(tmp_path / "out" / "metrics" / "experts.parquet")
    assert experts.filter(pl.col("tokens") > 0)["expert"].unique().sort().to_list() == [0, 1, 5]
    again = subprocess.run(command(path), capture_output=True, text=True, env=environment(), timeout=600, check=False)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr


def test_ctrl_c_lets_what_is_in_flight_be_answered(
    block: Callable[..., dict[str, Any]], archive: tuple[Path, list[int]], tmp_path: Path
) -> None:
    stub = tmp_path / "stub"
    stub.mkdir()
    folder, places = archive
    engine = block(stub, max_in_flight=4)
    path = job(tmp_path, folder, engine, "Where is the largest sample? [[wait]]")
    with subprocess.Popen(command(path), stderr=subprocess.PIPE, env=environment(), start_new_session=True) as running:
        seen = stub / "seen.jsonl"
        wait_for(lambda: seen.exists() and len(seen.read_text().splitlines()) >= 4)
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to everybody in the run's process group
        assert running.stderr is not None
        while b"answers" not in running.stderr.readline():
            pass  # until it says that it waits for answers on their way
        (stub / "new").write_text("4")  # those; what it may have asked before it listened is never answered
        (stub / "new").rename(stub / "go")
        running.stderr.read()
        assert running.wait(300) == 75
    asked = sum('"tokens"' in line for line in seen.read_text().splitlines())
    assert 4 <= asked <= 8
    (stub / "go").write_text("")
    done = subprocess.run(command(path), capture_output=True, text=True, env=environment(), timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    total = sum('"tokens"' in line for line in seen.read_text().splitlines())
    assert total == len(places) + asked - 4, "what was answered is not asked again"
    rows = s1batch.open_results(tmp_path / "out").scan().collect().sort("start")
    assert rows["peak"].to_list() == [[place, 0] for place in places]
