"""Runs a command and says what its whole process tree took: wall time, CPU time, and memory, through /proc."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SAMPLE_EVERY_S = 0.01
LONGEST_S = 600.0
"""No command takes longer than this."""

GRACE_S = 2.0
"""What a command leaves behind has so long to end by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a command took.

    Attributes:
        wall_s: From its start to its end.
        cpu_s: User and system time of its process and all processes that it started, also those that others adopted.
        peak_mb: Largest sum of the resident memory of its processes, sampled every 10 ms (MB of 2**20 bytes).
        began: When it was started, in seconds since 1970.
        code: Its exit code; negative: the number of the signal that ended it.
        output: Its standard output and error.
        ended: Who ended it: itself, `stop`, or the limit of its time.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    began: float
    code: int
    output: str
    ended: str = "itself"


def measure(
    command: Sequence[str],
    *,
    folder: Path,
    variables: Mapping[str, str] | None = None,
    stop: Callable[[], bool] | None = None,
    limit_s: float = LONGEST_S,
) -> Usage:
    """Run a command to its end; no process of it is left.

    Args:
        command: The program and its arguments.
        folder: Its working directory; its output goes to `output.txt` there.
        variables: Further environment variables.
        stop: Asked again and again; once it says so, SIGKILL goes to all processes of the command.
        limit_s: The command is killed after so long.
    """
    tag = f"BENCH_ID={uuid.uuid4().hex}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(variables or {}), "BENCH_ID": tag.partition("=")[2]}
    # Modules are compiled once, as where they are installed; with this they would be compiled each time.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    output = folder / "output.txt"
    tree = _Tree(tag.encode())
    before = _children_cpu_s()
    began, start = time.time(), time.perf_counter()
    ended = "itself"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        peak = 0
        try:
            while process.poll() is None:
                peak = max(peak, tree.resident_bytes())
                if stop is not None and stop():
                    ended = "stop"
                elif time.perf_counter() - start > limit_s:
                    ended = "limit"
                if ended != "itself":
                    tree.kill()
                    process.wait()
                    break
                time.sleep(SAMPLE_EVERY_S)
            wall_s = time.perf_counter() - start
        finally:
            tree.end()
            if process.poll() is None:
                process.kill()
                process.wait()
    return Usage(
        wall_s=wall_s,
        cpu_s=max(_children_cpu_s() - before, tree.cpu_s()),
        peak_mb=peak / 2**20,
        began=began,
        code=process.returncode,
        output=output.read_text(errors="replace"),
        ended=ended,
    )


def load() -> str:
    """Return how busy the machine is, in words."""
    one, five, _ = os.getloadavg()
    return f"{os.cpu_count()} cores, load {one:.1f} (1 min), {five:.1f} (5 min)"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [f"**{title}**", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


class _Tree:
    """The processes that carry a mark in their environment: also those that another process adopted."""

    def __init__(self, tag: bytes) -> None:
        self._tag = tag
        self._ours: set[int] = set()
        self._others: set[int] = set()
        self._ticks: dict[tuple[int, int], int] = {}

    def resident_bytes(self) -> int:
        """Look at all processes; return the memory of ours."""
        total = 0
        for name in os.listdir("/proc"):
            if not name.isdigit() or (pid := int(name)) in self._others:
                continue
            try:
                if pid not in self._ours:
                    environment = Path(f"/proc/{pid}/environ").read_bytes()
                    if self._tag not in environment:
                        # A process that was forked just now has not got its own environment yet.
                        if environment and os.getpid() != _parent(pid):
                            self._others.add(pid)
                        continue
                    # One that was born just now still shows the memory of its parent, which it shares until its exec.
                    self._ours.add(pid)
                    continue
                fields = _stat(pid)
                # Number and start together name a process for ever.
                self._ticks[pid, int(fields[19])] = int(fields[11]) + int(fields[12])
                total += int(fields[21]) * PAGE_BYTES
            except (OSError, ValueError):
                self._ours.discard(pid)
        return total

    def cpu_s(self) -> float:
        """Return the CPU time of all of them, each as it was seen last: up to 10 ms of each are missing."""
        return sum(self._ticks.values()) / TICKS_PER_S

    def kill(self) -> None:
        """Send SIGKILL to all of them, until none is left."""
        give_up = time.monotonic() + 10.0
        while time.monotonic() < give_up:
            self.resident_bytes()
            alive = self._alive()
            if not alive:
                return
            for pid in alive:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)

    def end(self) -> None:
        """Let those that are left end by themselves, and kill them after a while."""
        give_up = time.monotonic() + GRACE_S
        self.resident_bytes()
        while self._alive() and time.monotonic() < give_up:
            time.sleep(SAMPLE_EVERY_S)
            self.resident_bytes()
        if self._alive():
            self.kill()

    def _alive(self) -> list[int]:
        alive = []
        for pid in self._ours:
            with suppress(OSError, ValueError):
                if _stat(pid)[0] not in "ZX":
                    alive.append(pid)
        return alive


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on (proc(5); the state is field 3 there, and 0 here)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
