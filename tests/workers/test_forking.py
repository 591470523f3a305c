"""Worker processes begin as copies of one that has imported what they need."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys

from s1batch.workers import forking
from s1batch.workers.forking import IMPORTED

SAY_THREADS = f"""
import {", ".join(IMPORTED)}
from pathlib import Path
for thread in Path("/proc/self/task").iterdir():
    print((thread / "comm").read_text().strip())
"""

KNOWS_COPIES = "jemalloc_bg_thd"
"""The thread of Arrow's allocator, which sees to its locks, and begins it anew, when a process is copied."""


def test_the_process_that_is_copied_has_no_threads_of_its_own():
    """A copy has only the thread that made it; locks that others held then would stay locked for ever."""
    # As Dask sets it for its workers, before it starts the process.
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": "."}
    done = subprocess.run(
        [sys.executable, "-c", SAY_THREADS], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert len([name for name in done.stdout.split("\n") if name and name != KNOWS_COPIES]) == 1, done.stdout


def test_where_processes_cannot_be_copied_dask_begins_them_its_own_way(monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert forking.forking() == {}
