"""The harness counts whole process trees, and leaves none behind."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.benchmarks.harness import measure

HOLD = "block = bytearray({mb} << 20); time.sleep({seconds})"


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", f"import os, subprocess, sys, time\n{code}"]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_the_memory_of_two_processes_is_added_up(tmp_path):
    hold = HOLD.format(mb=40, seconds=0.5)
    alone = measure(python(hold), folder=tmp_path)
    both = measure(python(f"child = subprocess.Popen({python(hold)!r}); {hold}; child.wait()"), folder=tmp_path)
    assert both.code == 0
    assert 75 < both.peak_mb - alone.peak_mb + 40 < 120


def test_the_time_of_a_process_that_nobody_waits_for_is_counted(tmp_path):
    burn = "while time.process_time() < 0.4: pass"
    orphan = python(burn)
    used = measure(python(f"subprocess.Popen({orphan!r}, start_new_session=True); time.sleep(0.8)"), folder=tmp_path)
    assert 0.35 < used.cpu_s < 1.0


def test_a_command_is_killed_with_all_its_processes_when_that_is_said(tmp_path):
    sleep = python("time.sleep(60)")
    code = f"child = subprocess.Popen({sleep!r}, start_new_session=True); print(child.pid, flush=True); time.sleep(60)"
    said = tmp_path / "output.txt"
    used = measure(python(code), folder=tmp_path, stop=lambda: said.stat().st_size > 0, limit_s=30)
    assert (used.ended, used.code) == ("stop", -9)
    assert used.wall_s < 20
    assert not alive(int(used.output))


def test_a_command_that_takes_too_long_is_killed(tmp_path):
    used = measure(python("time.sleep(60)"), folder=tmp_path, limit_s=0.3)
    assert (used.ended, used.code) == ("limit", -9)
    assert used.wall_s < 10


def test_what_a_command_leaves_behind_is_ended(tmp_path):
    began = time.monotonic()
    sleep = python("time.sleep(60)")
    used = measure(
        python(f"print(subprocess.Popen({sleep!r}, start_new_session=True).pid)\ntime.sleep(0.2)"), folder=tmp_path
    )
    assert (used.ended, used.code) == ("itself", 0)
    assert not alive(int(used.output))
    assert time.monotonic() - began < 20


def test_variables_reach_the_command_and_output_is_kept(tmp_path):
    used = measure(python("print(os.environ['WORD']); sys.exit(3)"), folder=tmp_path, variables={"WORD": "here"})
    assert (used.code, used.output) == (3, "here\n")
    assert "WORD" not in os.environ
