"""A real server that others wrote, on the CPU: `transformers serve` with a checkpoint of a few kilobytes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import venv
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

import s1batch
from s1batch.engine.http.client import HttpEngine
from s1batch.engine.http.opening import open_http
from s1batch.engine.http.spec import HttpEngineSpec
from s1batch.records import ImagePart, Message, ModelIdentity, Request, Response, Sampling, TextPart
from tests.engine.serving.tiny_models import IMAGE_TOKENS, save_image_model, save_text_model
from tests.launching.nodes import until, words
from tests.ports import free_ports

PACKAGES = ("fastapi", "uvicorn", "openai", "python-multipart")
"""What `transformers serve` needs beside what s1batch brings."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own that sees this one's packages."""
    folder = tmp_path_factory.mktemp("serve") / "env"
    venv.create(folder, with_pip=False)
    interpreter = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "--python", str(interpreter)]
    subprocess.run([*pip, "install", *PACKAGES], check=True, timeout=600)
    subprocess.run([*pip, "install", "--no-deps", "accelerate"], check=True, timeout=600)
    program = folder / "bin" / "transformers"
    program.write_text(f"#!{interpreter}\nfrom transformers.cli.transformers import main\n\nmain()\n")
    program.chmod(0o755)
    return interpreter


@pytest.fixture(scope="module")
def environment(python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A PATH on which the server is found, and no Hugging Face cache."""
    home = tmp_path_factory.mktemp("home") / "nothing-here"
    return {"PATH": f"{python.parent}:{os.environ['PATH']}", "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text_model(tmp_path_factory.mktemp("models") / "text")


@pytest.fixture(scope="module")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_image_model(tmp_path_factory.mktemp("models") / "image")


class Served:
    """A server that was started with the command line that `engine up --dry-run` prints."""

    def __init__(self, folder: Path, model: Path, environment: dict[str, str]) -> None:
        self.spec = folder / "serve.yaml"
        self.folder = folder / "endpoints"
        self.port = free_ports()
        description = {"server": "transformers", "model": str(model), "port": self.port, "nodes": ["127.0.0.1"]}
        self.spec.write_text(json.dumps({**description, "env": environment, "stop_grace_s": 10}))
        self.url = f"http://127.0.0.1:{self.port}"
        self.model = str(model)

    def __enter__(self) -> Served:
        command = [sys.executable, "-m", "s1batch", "engine", "up", str(self.spec)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

        def ready() -> bool:
            assert self.process.poll() is None, self.process.communicate()[0]
            found = list(self.folder.glob("[!.]*.json")) if self.folder.is_dir() else []
            return bool(found) and json.loads(found[0].read_text())["ready"]

        until(ready, "the server")
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        said = self.process.communicate(timeout=250)[0]
        assert "all servers of this node have ended" in said

    async def engine(self, **fields: Any) -> HttpEngine:
        return await open_http(HttpEngineSpec(urls=(self.url,), model=self.model, max_attempts=1, **fields))


@pytest.fixture(scope="module")
def text_server(
    text_model: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("text"), text_model, environment) as served:
        yield served


def request(text: str, *images: ImagePart, **sampling: Any) -> Request:
    message = Message(role="user", parts=(TextPart(text=text), *images))
    model = ModelIdentity(name="tiny")
    return Request(messages=(message,), sampling=Sampling(max_tokens=12, **sampling), seed=0, model=model)


def flat(colour: str, kind: str = "PNG") -> ImagePart:
    """A picture of one colour."""
    file = BytesIO()
    Image.new("RGB", (64, 48), colour).save(file, kind)
    return ImagePart(file.getvalue(), f"image/{kind.lower()}")


async def ask(engine: HttpEngine, *requests: Request) -> list[Response]:
    try:
        return list(await asyncio.gather(*(engine.answer(engine.adapt(each)) for each in requests)))
    finally:
        await engine.aclose()


async def test_chat_is_answered_the_same_every_time_and_the_server_is_recognised_without_a_cache(
    text_server: Served,
) -> None:
    engine = await text_server.engine()
    assert engine.name == "http:transformers"
    one, two, other = await ask(engine, request("What is a P wave?"), request("What is a P wave?"), request("Why?"))
    assert one.error is None, one.detail
    assert one.text == two.text
    assert one.finish_reason in ("stop", "length")
    assert one.prompt_tokens == len("<user\nWhat is a P wave?>\n<assistant\n"), "one token for each byte"
    assert other.prompt_tokens == len("<user\nWhy?>\n<assistant\n")
    assert 0 < (one.output_tokens or 0) <= 12


async def test_what_it_does_not_take_is_an_error_and_not_a_lesser_answer(text_server: Served) -> None:
    (unknown,) = await ask(await text_server.engine(), request("Why?", temperature=0.5, top_k=7))
    assert unknown.error is not None
    assert "top_k" in unknown.detail
    wrong = HttpEngineSpec(urls=(text_server.url,), model="another", max_attempts=1)
    (other,) = await ask(await open_http(wrong), request("Why?"))
    assert other.error is not None
    assert "pinned" in other.detail


async def test_a_text_model_drops_images_so_a_run_that_starts_it_refuses_them(
    text_server: Served, text_model: Path, tmp_path: Path
) -> None:
    with_image, without = await ask(await text_server.engine(), request("Why?", flat("red")), request("Why?"))
    assert (with_image.text, with_image.prompt_tokens) == (without.text, without.prompt_tokens), "it has seen the image"
    (tmp_path / "a.png").write_bytes(flat("red").data)
    (tmp_path / "table.jsonl").write_text(json.dumps({"image": "a.png"}))
    plan = s1batch.plan(
        {
            "source": {"kind": "table", "path": str(tmp_path / "table.jsonl"), "images": "image"},
            "job": {"kind": "ask", "prompt": "Why?"},
            "engine": {"kind": "transformers", "model": str(text_model)},
        }
    )
    assert plan.totals.asked == 0


async def test_every_image_reaches_a_model_that_sees(
    image_model: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    with Served(tmp_path, image_model, environment) as served:
        asked = [
            request("What?"),
            request("What?", flat("white")),
            request("What?", flat("blue", kind="JPEG")),
            request("What?", flat("white"), flat("blue")),
        ]
        answers = await ask(await served.engine(), *asked)
    assert [each.error for each in answers] == [None] * 4
    tokens = [each.prompt_tokens or 0 for each in answers]
    assert [each - tokens[0] for each in tokens] == [0, IMAGE_TOKENS, IMAGE_TOKENS, 2 * IMAGE_TOKENS]
    assert len({each.text for each in answers}) == 4


def test_a_whole_run_through_a_server_that_is_killed_in_its_middle(
    text_model: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    lines = [json.dumps({"question": f"What is {number} times {number}?"}) for number in range(160)]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines))
    job = {
        "name": "questions",
        "source": {"kind": "table", "path": str(tmp_path / "questions.jsonl")},
        "job": {"kind": "ask", "prompt": "{{ question }}", "sampling": {"max_tokens": 8}},
        "engine": {
            "kind": "transformers",
            "model": str(text_model),
            "env": environment,
            "max_in_flight": 2,
            "stop_grace_s": 10,
            "check_every_s": 0.5,
        },
        "run": {"part_chunks": 10},
    }
    told: list[str] = []
    done: list[s1batch.Results] = []
    out = tmp_path / "out"
    stop = threading.Event()
    run = threading.Thread(target=lambda: done.append(s1batch.run(job, out, say=told.append, stop=stop)))

    def logs() -> list[Path]:
        return sorted(out.glob("servers/*/logs/*-server-*.log"))

    def answered(log: Path) -> int:
        return log.read_text(errors="replace").count('POST /v1/chat/completions HTTP/1.1" 200')

    before = set(psutil.Process().children(recursive=True))

    def family() -> list[psutil.Process]:
        """Every process that the run has brought about, in the order of their levels."""
        return [each for each in psutil.Process().children(recursive=True) if each not in before]

    def server() -> psutil.Process | None:
        """The process that the innermost guard has started."""
        found = [each for each in family() if "guard.py" in " ".join(words(each))]
        children = [each for guard in found[1:] for each in guard.children()]
        return children[0] if children else None

    run.start()
    try:
        process = until(lambda: logs() and answered(logs()[0]) and server(), "the server")
        assert "serve" in words(process)
        while answered(logs()[0]) < 15:
            time.sleep(0.002)
        process.kill()
        run.join(timeout=900)
    finally:
        stop.set()
        run.join()
    assert done, told
    (results,) = done
    assert set(results.summary.outcomes) <= {"ok", "length"}
    assert results.summary.outcomes.total() == 160
    assert results.verify().ok
    assert any("starting them again (1 of 5)" in line for line in told)
    assert len(logs()) == 2
    assert sum(map(answered, logs())) <= 160 + 2, "what was received was asked again"
    until(lambda: not family(), "the end of all processes")
    whole = s1batch.run(job, tmp_path / "whole")
    columns = ["chunk_key", "text", "outcome"]
    assert results.scan().select(columns).collect().equals(whole.scan().select(columns).collect())
