"""Real runs as processes of their own, and the servers that they ask."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import yaml

from s1batch.errors import ResultsError
from s1batch.results.store import ResultsStore

ROOT = Path(__file__).resolve().parents[2]
SABOTAGE = Path(__file__).parent / "sabotage"
MARK = "S1BATCH_TEST_RUN"
TIMINGS = ("seconds", "attempts")
CHUNKS = 312
"""Windows in the archive of the fixture of that name."""
PATIENCE_S = 250.0
"""How long something may take that comes soon on a machine with nothing else to do."""


@dataclass(kw_only=True)
class Run:
    """One `s1batch run` in a process group of its own."""

    process: subprocess.Popen[str]
    mark: str
    said: str = ""

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for the end and return the exit code; what it printed is in `said`."""
        out, err = self.process.communicate(timeout=timeout_s)
        self.said = out + err
        return self.process.returncode

    def kill(self, whole: bool = True) -> None:
        """SIGKILL the process, or its whole group, and wait until all its children are gone too."""
        if whole:
            with suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        out, err = self.process.communicate()
        self.said = out + err
        self.wait_for_children()

    def wait_for_children(self, timeout_s: float = PATIENCE_S) -> None:
        """Wait until no process of the run is left.

        Raises:
            AssertionError: One is.
        """
        give_up = time.monotonic() + timeout_s
        while left := processes_of(self.mark):
            if time.monotonic() > give_up:
                raise AssertionError(f"left behind: {left}")
            time.sleep(0.02)

    def workers(self) -> list[int]:
        """Return the Dask workers of the run: copies of a process that is a child of it."""
        copies = [pid for pid, command in processes_of(self.mark).items() if "forkserver" in command]
        return [pid for pid in copies if _parent(pid) in copies]


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None  # it has just ended


def processes_of(mark: str) -> dict[int, str]:
    """Return the living processes that carry a mark in their environment, with their commands."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if f"{MARK}={mark}".encode() not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            if (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                continue
            found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def start(
    job: Path,
    *options: str,
    out: Path | None = None,
    env: Mapping[str, str] | None = None,
    sabotage: Mapping[str, Any] | None = None,
    inside: Sequence[str] = (),
) -> Run:
    """Start `s1batch run`; `inside` are words in front of the command."""
    mark = secrets.token_hex(8)
    environment = {**os.environ, MARK: mark, "PYTHONPATH": str(ROOT), **(env or {})}
    if sabotage is not None:
        environment["PYTHONPATH"] = f"{SABOTAGE}{os.pathsep}{ROOT}"
        environment["SABOTAGE"] = orjson.dumps(dict(sabotage), default=str).decode()
    program = [sys.executable, "-m", "s1batch"]
    command = [*inside, *program, "run", str(job), "-o", str(out or job.parent / "out"), *options]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return Run(process=process, mark=mark)


def run(job: Path, *options: str, timeout_s: float = PATIENCE_S, **how: Any) -> Run:
    """Run to the end; no process may be left behind."""
    running = start(job, *options, **how)
    try:
        running.wait(timeout_s)
    except subprocess.TimeoutExpired:
        running.kill()
        raise
    running.wait_for_children()
    return running


def write_job(folder: Path, job: Mapping[str, Any], name: str = "job.yaml") -> Path:
    """Write a job file."""
    path = folder / name
    path.write_text(yaml.safe_dump(dict(job)))
    return path


def rows(path: Path) -> pl.DataFrame:
    """Return the rows of finished parts in the order of their keys, without timings; every key stands there once."""
    frame = pl.read_parquet(path / "rows/*.parquet").sort("chunk_key")
    assert frame["chunk_key"].is_unique().all()
    return frame.drop(TIMINGS)


def stored(path: Path) -> pl.DataFrame:
    """Return all rows, those in journals too; an empty frame before there are any."""
    try:
        with ResultsStore(path, None) as store:
            return store.scan_all().collect()
    except ResultsError:
        return pl.DataFrame(schema={"chunk_key": pl.String, "text": pl.String, "fingerprint": pl.String})


def held(number: int, until: Path | str = "/never") -> dict[str, str]:
    """Variables that hold answers back, from that question on of all that were noted, until a file is there.

    What comes before fills journals with two thousand bytes for each answer.
    """
    return {"HELD": f"{number} {until}"}


def wait_for_journal(path: Path, run: Run, nbytes: int = 5_000, timeout_s: float = PATIENCE_S) -> None:
    """Wait until journals and finished parts have grown to a size in bytes.

    Raises:
        AssertionError: The run ended before, or they did not grow in time.
    """
    reached = has_grown(path, run, nbytes, timeout_s)
    assert run.process.poll() is None, f"the run was over too early: {run.process.communicate()}"
    assert reached, f"waited {timeout_s:g} s in vain"


def has_grown(path: Path, run: Run, nbytes: int, timeout_s: float) -> bool:
    """Wait until journals and finished parts have grown to a size in bytes; not if the run ends or time passes."""
    give_up = time.monotonic() + timeout_s
    while time.monotonic() < give_up and run.process.poll() is None:
        if written(path) >= nbytes:
            return True
        time.sleep(0.005)
    return False


def wait_for_notes(asked: Path, run: Run, count: int = 1, timeout_s: float = PATIENCE_S) -> None:
    """Wait until so many questions were noted.

    Raises:
        AssertionError: The run ended before, or they were not asked in time.
    """
    give_up = time.monotonic() + timeout_s
    while not asked.exists() or len(asked.read_text().split()) < count:
        assert run.process.poll() is None, f"the run was over too early: {run.process.communicate()}"
        assert time.monotonic() < give_up, f"waited {timeout_s:g} s in vain"
        time.sleep(0.02)


def written(path: Path) -> int:
    """Return the bytes in journals and finished parts."""
    total = 0
    for file in (*(path / "journal").glob("*.journal"), *(path / "rows").glob("*.parquet")):
        with suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def one_line(said: str) -> str:
    """Return the line that says what went wrong; there must be one such line, and no traceback."""
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if line.startswith("s1batch: ") and "stopping;" not in line]
    assert len(lines) == 1, said
    return lines[0]


@dataclass(kw_only=True)
class Server:
    """A loopback server in a process of its own."""

    url: str
    process: subprocess.Popen[str]
    log: Path = field(default_factory=Path)

    def asked(self) -> list[str]:
        """Return the hashes of the requests so far, in order."""
        return self.log.read_text().split() if self.log.exists() else []

    def stop(self) -> None:
        """Kill it; a second call does nothing."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def serve(*options: str, log: Path | None = None, inside: Sequence[str] = ()) -> Iterator[Server]:
    """Start a loopback server; `options` are those of `python -m tests.loopback`, `inside` words in front of it."""
    command = [*inside, sys.executable, "-m", "tests.loopback", *options, *(["--log", str(log)] if log else [])]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    server = Server(url=process.stdout.readline().strip(), process=process, log=log or Path())
    try:
        yield server
    finally:
        server.stop()


def write_table(folder: Path, texts: Sequence[str]) -> Path:
    """Write a table of texts, one line each."""
    path = folder / "texts.jsonl"
    path.write_bytes(b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts))
    return path


def ask_job(table: Path, engine: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a job that asks about every line of a table."""
    return {
        "name": "ask",
        "source": {"kind": "table", "path": str(table)},
        "job": {
            "kind": "ask",
            "prompt": "Say something about {{ text }}.",
            "schema": {"type": "object", "properties": {"digest": {"type": "string"}}, "required": ["digest"]},
        },
        "engine": dict(engine),
        **changes,
    }


def http(*urls: str, **changes: Any) -> dict[str, Any]:
    """Return an http engine over some endpoints, quick to ask again."""
    return {
        "kind": "http",
        "urls": list(urls),
        "max_in_flight": 16,
        "retry_base_s": 0.05,
        "connect_timeout_s": 20.0,
        "timeout_s": 60.0,
        **changes,
    }
