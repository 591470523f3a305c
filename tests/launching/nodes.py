"""Runs `s1batch engine up` as a process of its own, with the stand-in in the place of the servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml
from click.testing import CliRunner

from s1batch.cli import main
from tests.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = Path(__file__).with_name("stand_in.py")
PATIENCE_S = 250.0


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


class Node:
    """A folder with a description, and the `engine up` that runs from it."""

    def __init__(self, folder: Path, *, stand_in: str = "", **fields: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = fields.setdefault("port", free_ports(fields.get("dp", 1)))
        self.spec = folder / "serve.yaml"
        given = {
            "model": "/models/tiny",
            "architecture": "InternS1ProForConditionalGeneration",
            "nodes": ["127.0.0.1"],
            "prefix": [sys.executable, str(STAND_IN)],
            "env": {"STAND_IN": stand_in},
            "stop_grace_s": 5,
            "check_every_s": 0.2,
            **fields,
        }
        self.spec.write_text(yaml.safe_dump({key: value for key, value in given.items() if value is not None}))
        self.endpoints = Path(given.get("endpoints") or folder / "endpoints")
        self.process: subprocess.Popen[str] | None = None
        self.output = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "s1batch", "engine", "up", str(self.spec), *options]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        return self.process

    def registrations(self) -> list[dict[str, Any]]:
        files = sorted(self.endpoints.glob("[!.]*.json")) if self.endpoints.is_dir() else []
        return [json.loads(path.read_text()) for path in files]

    def until_ready(self) -> dict[str, Any]:
        def ready() -> dict[str, Any] | None:
            assert self.process is not None
            assert self.process.poll() is None, self.process.communicate()[0]
            mine = [one for one in self.registrations() if one["process"]["pid"] == self.process.pid]
            return mine[0] if mine and mine[0]["ready"] else None

        found: dict[str, Any] = until(ready, "a registration")
        return found

    def family(self) -> list[psutil.Process]:
        """Every process that `engine up` has brought about."""
        assert self.process is not None
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to `engine up`, wait for its end, and return its exit code."""
        assert self.process is not None
        os.kill(self.process.pid, number)
        return self.finished()

    def finished(self) -> int:
        """Wait for the end of `engine up`, keep its output, and return its exit code."""
        assert self.process is not None
        self.output = self.process.communicate(timeout=PATIENCE_S)[0]
        return self.process.returncode


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def words(process: psutil.Process) -> list[str]:
    """The command line of a process; empty when it has ended."""
    try:
        found: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return found


def s1batch(*arguments: object) -> tuple[int, str]:
    """Run a command in this process, and return its exit code and what it wrote."""
    done = CliRunner().invoke(main, list(map(str, arguments)))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def detached_up(spec: Path) -> tuple[int, str]:
    """Run `engine up --detach` as a process that has ended when this returns, as in a shell."""
    command = [sys.executable, "-m", "s1batch", "engine", "up", str(spec), "--detach"]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_S, check=False
    )
    return done.returncode, done.stdout
