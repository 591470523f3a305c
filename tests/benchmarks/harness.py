"""Runs a command and says what its whole process tree took: wall time, CPU time, and memory, through /proc."""

from __future__ import annotations

import os
import resource
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SAMPLE_EVERY_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a command took.

    Attributes:
        wall_s: From its start to its end.
        cpu_s: User and system time of its process and all its descendants that ended.
        peak_mb: Largest sum of the resident memory of its processes, sampled every 10 ms (MB of 2**20 bytes).
        began: When it was started, in seconds since 1970.
        code: Its exit code.
        output: Its standard output and error.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    began: float
    code: int
    output: str


def measure(command: Sequence[str], *, folder: Path, variables: Mapping[str, str] | None = None) -> Usage:
    """Run a command to its end.

    Args:
        command: The program and its arguments.
        folder: Its working directory; its output goes to `output.txt` there.
        variables: Further environment variables.
    """
    tag = f"BENCH_ID={uuid.uuid4().hex}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(variables or {}), "BENCH_ID": tag.partition("=")[2]}
    output = folder / "output.txt"
    tree = _Tree(tag.encode())
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began, start = time.time(), time.perf_counter()
    with output.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
        peak = 0
        while process.poll() is None:
            peak = max(peak, tree.resident_bytes())
            time.sleep(SAMPLE_EVERY_S)
    wall_s = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Usage(
        wall_s=wall_s,
        cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        peak_mb=peak / 2**20,
        began=began,
        code=process.returncode,
        output=output.read_text(errors="replace"),
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

    def resident_bytes(self) -> int:
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
                total += int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * PAGE_BYTES
            except (OSError, ValueError):
                self._ours.discard(pid)
        return total


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
