"""The harness counts whole process trees, and leaves none behind."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.benchmarks.harness import measure

HOLD = """
block = bytearray(40 << 20)
open({mark!r}, "w").close()
while not os.path.exists({other!r}): time.sleep(0.02)
time.sleep(1.0)
"""
"""Holds memory, for a second in which another process does so too."""


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", f"import os, subprocess, sys, time\n{code}"]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_the_memory_of_two_processes_is_added_up(tmp_path):
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    alone = measure(python(HOLD.format(mark=one, other=one)), folder=tmp_path)
    hold, below = HOLD.format(mark=one, other=other), python(HOLD.format(mark=other, other=one))
    both = measure(python(f"child = subprocess.Popen({below!r})\n{hold}\nchild.wait()"), folder=tmp_path)
    assert both.code == 0
    assert 75 < both.peak_mb - alone.peak_mb + 40 < 120


def test_the_time_of_a_process_that_nobody_waits_for_is_counted(tmp_path):
    done = str(tmp_path / "done")
    orphan = python(f"while time.process_time() < 1.0: pass\nopen({done!r}, 'w').close(); time.sleep(600)")
    wait = f"while not os.path.exists({done!r}): time.sleep(0.1)\ntime.sleep(0.5)"
    used = measure(python(f"subprocess.Popen({orphan!r}, start_new_session=True)\n{wait}"), folder=tmp_path)
    assert 0.9 < used.cpu_s < 1.9, "counted, and not twice"


def test_a_command_is_killed_with_all_its_processes_when_that_is_said(tmp_path):
    sleep = python("time.sleep(600)")
    code = f"child = subprocess.Popen({sleep!r}, start_new_session=True); print(child.pid, flush=True); time.sleep(600)"
    said = tmp_path / "output.txt"
    used = measure(python(code), folder=tmp_path, stop=lambda: said.stat().st_size > 0, limit_s=250)
    assert (used.ended, used.code) == ("stop", -9)
    assert used.wall_s < 240
    assert not alive(int(used.output))


def test_a_command_that_takes_too_long_is_killed(tmp_path):
    used = measure(python("time.sleep(600)"), folder=tmp_path, limit_s=0.3)
    assert (used.ended, used.code) == ("limit", -9)
    assert used.wall_s < 240


def test_what_a_command_leaves_behind_is_ended(tmp_path):
    began = time.monotonic()
    sleep = python("time.sleep(600)")
    used = measure(
        python(f"print(subprocess.Popen({sleep!r}, start_new_session=True).pid)\ntime.sleep(0.2)"), folder=tmp_path
    )
    assert (used.ended, used.code) == ("itself", 0)
    assert not alive(int(used.output))
    assert time.monotonic() - began < 240


def test_variables_reach_the_command_and_output_is_kept(tmp_path):
    used = measure(python("print(os.environ['WORD']); sys.exit(3)"), folder=tmp_path, variables={"WORD": "here"})
    assert (used.code, used.output) == (3, "here\n")
    assert "WORD" not in os.environ
