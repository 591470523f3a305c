"""Memory that was freed goes back to the system, in processes that s1batch owns."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PIECES = """
import os, sys
from s1batch.process_settings import give_back_memory, settle_process

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

if sys.argv[1] == "settled":
    settle_process()
kept, freed = [], []
for _ in range(800):
    freed.append(b"x" * 100_000)  # smaller than what goes back at once
    kept.append(b"y" * 30_000)  # and lies beneath something that stays
freed.clear()
before = resident_mb()
give_back_memory()
print(before - resident_mb())
"""


def given_back_mb(how: str) -> float:
    command = [sys.executable, "-c", PIECES, how]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc has malloc_trim")
class TestGivingBack:
    def test_what_was_freed_between_objects_that_stay_goes_back(self):
        assert given_back_mb("settled") > 30

    def test_a_process_of_others_is_left_alone(self):
        assert abs(given_back_mb("theirs")) < 1


def test_as_many_files_may_be_open_as_the_system_lets_a_process_have():
    """1,024 are fewer than a run with 1,280 requests in flight has connections."""
    code = """
import resource
from s1batch.process_settings import OPEN_FILES, settle_process

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
settle_process()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(OPEN_FILES, hard if hard >= 0 else OPEN_FILES))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "True"
