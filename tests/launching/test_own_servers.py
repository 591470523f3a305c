"""`engine: {mode: server}`: a run that starts its servers, keeps them alive, and leaves none behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

import s1batch
from s1batch.errors import ConflictError, UsageError
from tests.archives import pick_job, write_archive
from tests.launching.nodes import ROOT, STAND_IN, alive, until, words

PATIENCE_S = 90.0


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("data") / "archive")


def served_job(archive: Path, folder: Path, stand_in: str = "", **engine: Any) -> dict[str, Any]:
    """A job whose servers are the stand-in; 58 chunks."""
    wishes = f"log:{folder / 'asked'},{stand_in}"
    return pick_job(
        archive,
        engine={
            "kind": "lmdeploy",
            "mode": "server",
            "model": "/models/tiny",
            "name": "tiny",
            "architecture": "InternS1ProForConditionalGeneration",
            "prefix": [sys.executable, str(STAND_IN)],
            "env": {"STAND_IN": wishes, "DIED": str(folder / "died"), "UNTIL": str(folder / "until")},
            "stop_grace_s": 5,
            "check_every_s": 0.2,
            "max_in_flight": 4,
            **engine,
        },
        run={"part_chunks": 8, "drain_s": 2},
    )


class Run:
    """`s1batch run` as a process of its own."""

    def __init__(self, job: dict[str, Any], folder: Path, *options: str) -> None:
        self.folder = folder
        self.out = folder / "out"
        file = folder / "job.yaml"
        file.write_text(yaml.safe_dump(job))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "s1batch", "run", str(file), "-o", str(self.out), *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def asked(self) -> list[tuple[int, str]]:
        """The process that got each question, and the question's hash."""
        log = self.folder / "asked"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(int(line.split()[0]), line.split()[1]) for line in lines]

    def until_asked(self, count: int) -> None:
        until(lambda: len(self.asked()) >= count or self.process.poll() is not None, f"{count} questions")
        assert self.process.poll() is None, self.process.communicate()[0]

    def finished(self) -> tuple[int, str]:
        said = self.process.communicate(timeout=PATIENCE_S)[0]
        return self.process.returncode, said


@pytest.fixture
def survivors() -> Iterator[list[psutil.Process]]:
    """Processes that a test leaves; they are ended behind it."""
    found: list[psutil.Process] = []
    yield found
    for process in alive(found):
        process.kill()


def test_a_run_starts_its_servers_and_takes_them_down(archive: Path, tmp_path: Path) -> None:
    told: list[str] = []
    results = s1batch.run(served_job(archive, tmp_path, "slow:1"), tmp_path / "out", say=told.append)
    assert results.summary.outcomes == {"ok": 58}
    assert results.verify().ok
    assert any("LMDeploy's PyTorch engine" in line for line in told)
    assert any("is ready after" in line for line in told)
    (folder,) = (path for path in (tmp_path / "out" / "servers").iterdir() if path.is_dir())
    assert not list((folder / "endpoints").iterdir()), "a registration is left"
    (server,) = {int(line.split()[0]) for line in (tmp_path / "asked").read_text().splitlines()}
    assert not psutil.pid_exists(server)
    replayed = s1batch.run(pick_job(archive), tmp_path / "replayed")
    columns = ["chunk_key", "contain", "p_index", "s_index"]
    assert results.scan().select(columns).collect().equals(replayed.scan().select(columns).collect())
    told.clear()
    again = s1batch.run(served_job(archive, tmp_path, tp=4, port=29000), tmp_path / "out", say=told.append)
    assert again.summary.added == 0
    assert not any("started" in line for line in told if "started and ended" not in line), "for nothing"


def test_where_the_servers_run_may_change_and_what_they_answer_from_may_not(archive: Path, tmp_path: Path) -> None:
    job = served_job(archive, tmp_path)
    s1batch.run(job, tmp_path / "out")
    resolved = s1batch.open_results(tmp_path / "out").loaded.spec.engine
    assert resolved.kind == "lmdeploy"
    moved = {"tp": 2, "port": 29001, "env": {}, "tuning": {"max-batch-size": 8}, "session_len": 9999}
    assert s1batch.run({**job, "engine": {**job["engine"], **moved}}, tmp_path / "out").summary.added == 0
    for field, value in {"model": "/models/other", "name": "other", "flags": {"quant-policy": 8}}.items():
        with pytest.raises(ConflictError, match=rf"engine\.{field}"):
            s1batch.run({**job, "engine": {**job["engine"], field: value}}, tmp_path / "out")


def test_a_server_that_dies_is_started_again_and_only_what_was_in_flight_is_asked_again(
    archive: Path, tmp_path: Path
) -> None:
    run = Run(served_job(archive, tmp_path, "die-after:20,family"), tmp_path)
    code, said = run.finished()
    assert code == 0, said
    assert "an illegal memory access" in said, "the log's tail is shown"
    assert "starting them again (1 of 5)" in said
    asked = run.asked()
    first, second = dict.fromkeys(pid for pid, _ in asked)
    twice = {each for pid, each in asked if pid == first} & {each for pid, each in asked if pid == second}
    assert len(twice) <= 4, "what was answered was asked again"
    assert len({each for _, each in asked}) == 58
    assert s1batch.open_results(run.out).verify().ok


@pytest.mark.slow
def test_a_server_that_dies_again_and_again_ends_the_run_with_the_reason(archive: Path, tmp_path: Path) -> None:
    run = Run(served_job(archive, tmp_path, "die-after:20", max_restarts=0), tmp_path)
    code, said = run.finished()
    assert code == 1, said
    assert "an illegal memory access" in said
    assert "the servers of this run have ended: server ended with code 5" in said
    received = s1batch.open_results(run.out).scan(unfinished=True).collect().height
    assert received >= 10
    job = served_job(archive, tmp_path)
    assert s1batch.run(job, run.out).summary.added == 58 - received


@pytest.mark.parametrize(
    ("stand_in", "engine", "code", "words"),
    [
        ("crash", {}, 1, ["CUDA error: out of memory", "server ended with code 3"]),
        pytest.param(
            *("slow:600", {"ready_timeout_s": 1}, 1, ["not all servers are healthy after"]), marks=pytest.mark.slow
        ),
        pytest.param(
            *("", {"prefix": ["no-such-program"]}, 2, ["no-such-program is not on the PATH"]), marks=pytest.mark.slow
        ),
    ],
)
def test_servers_that_do_not_start_end_the_run_with_the_reason(
    archive: Path, tmp_path: Path, stand_in: str, engine: dict[str, Any], code: int, words: list[str]
) -> None:
    run = Run(served_job(archive, tmp_path, stand_in, **engine), tmp_path)
    returned, said = run.finished()
    assert returned == code, said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGTERM, signal.SIGINT))],
)
def test_nothing_survives_a_run_however_it_ends(
    archive: Path, tmp_path: Path, number: signal.Signals, survivors: list[psutil.Process]
) -> None:
    run = Run(served_job(archive, tmp_path, "family,hold:20"), tmp_path)
    run.until_asked(10)
    family = psutil.Process(run.process.pid).children(recursive=True)
    family += [each for each in psutil.process_iter() if f"family-of-{run.asked()[0][0]}" in words(each)]
    survivors += family
    assert len(alive(family)) >= 5, "guard, supervisor, guard, server, and what the server started"
    os.kill(run.process.pid, number)
    code, said = run.finished()
    assert code == (-9 if number == signal.SIGKILL else 75), said
    until(lambda: not alive(family), "the end of everything")
    results = s1batch.run(served_job(archive, tmp_path), run.out)
    assert results.summary.outcomes == {"ok": 58}
    assert results.verify().ok


@pytest.mark.slow
def test_servers_that_do_not_end_are_gone_before_the_limit(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends at its limit still has to put its task back into the queue."""
    limit = time.time() + 65
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(limit)))
    run = Run(served_job(archive, tmp_path, "deaf,pause:2", stop_grace_s=300, max_in_flight=1), tmp_path)
    run.until_asked(1)
    family = psutil.Process(run.process.pid).children(recursive=True)
    code, said = run.finished()
    assert code == 75, said
    assert time.time() < limit
    assert not alive(family)


@pytest.mark.slow
def test_a_signal_while_the_servers_load_ends_at_once(archive: Path, tmp_path: Path) -> None:
    run = Run(served_job(archive, tmp_path, "slow:600"), tmp_path)

    def loading() -> bool:
        return any(str(STAND_IN) in words(each) for each in psutil.Process(run.process.pid).children(recursive=True))

    until(loading, "a server")
    family = psutil.Process(run.process.pid).children(recursive=True)
    run.process.send_signal(signal.SIGTERM)
    code, said = run.finished()
    assert code == 75, said
    assert not alive(family)


def test_plan_knows_the_rules_without_starting_anything(archive: Path, tmp_path: Path) -> None:
    job = served_job(archive, tmp_path, prefix=["no-such-program"])
    plan = s1batch.plan(job, offline=True)
    assert (plan.totals.asked, plan.facts.rules.name) == (58, "lmdeploy")
    job["engine"].update(model="internlm/not-here", architecture=None)
    plan = s1batch.plan(job, offline=True)
    assert plan.totals.asked == 58
    assert "is not here: planned with the rules of LMDeploy's PyTorch engine" in plan.facts.told
    job["engine"].update(architecture="Qwen3ForCausalLM")
    assert s1batch.plan(job).totals.refused == {"series_not_supported": 58}
    job["engine"].update(architecture="InternS1ProForConditionalGeneration", backend="turbomind")
    with pytest.raises(UsageError, match="TurboMind does not serve it"):
        s1batch.plan(job)
    job["engine"] = {"kind": "vllm", "model": "m", "tp": 2}
    assert s1batch.plan(job).totals.refused == {"series_not_supported": 58}


@pytest.mark.slow
def test_worker_processes_ask_the_same_servers(archive: Path, tmp_path: Path) -> None:
    job = served_job(archive, tmp_path, smallest_prompt_tokens=20)
    options = s1batch.RunOptions(scheduler="local", workers=2)
    results = s1batch.run(job, tmp_path / "out", options=options)
    assert results.summary.outcomes == {"ok": 58}
