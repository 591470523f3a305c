"""What runs on a file system that fails are looked at for."""

from __future__ import annotations

import time
from collections.abc import Callable

import s1batch
from tests.faults.runs import CHUNKS, Run, held, rows, start, wait_for_journal

ROWS_BYTES = 30_000
"""In journals, when a trouble begins."""


def fingerprints(job) -> list[str]:
    """Return what was asked so far."""
    asked = job.parent / "asked"
    return asked.read_text().split() if asked.exists() else []


def under_way(job, *options: str, **how) -> Run:
    """Start a run, and wait until it has answers and is far from its end."""
    released = job.parent / "released"
    running = start(job, *options, env=held(150, released), **how)
    wait_for_journal(job.parent / "out", running, ROWS_BYTES)
    released.touch()
    assert len(set(fingerprints(job))) < CHUNKS
    return running


def says(running: Run, words: str) -> str:
    """Read on until the run has said something, and return all that it said till then."""
    said = running.process.stderr
    assert said is not None
    lines = ""
    while words not in lines:
        line = said.readline()
        assert line, f"it ended without a word about it: {lines}"
        lines += line
    return lines


def until(holds: Callable[[], bool], timeout_s: float = 60) -> None:
    give_up = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < give_up, "in vain"
        time.sleep(0.01)


def ends_well(running: Run, job, undisturbed, twice: int = 0) -> None:
    """The run ends by itself with every row; no more questions were asked twice than said."""
    assert running.wait() == 0, running.said
    running.wait_for_children()
    complete(job, undisturbed)
    asked = fingerprints(job)
    assert len(asked) - len(set(asked)) <= twice, "an answer was lost on the way"


def complete(job, undisturbed) -> None:
    """Every row is there once, and proved."""
    out = job.parent / "out"
    assert rows(out).equals(undisturbed)
    verdict = s1batch.open_results(out).verify()
    assert (verdict.ok, verdict.complete, verdict.findings) == (True, True, ())
