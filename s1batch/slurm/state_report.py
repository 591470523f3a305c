"""Submissions as lines for a person, or as plain data."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from s1batch.errors import Interrupted
from s1batch.slurm.client import JobState
from s1batch.slurm.folder import SubmissionFolder
from s1batch.slurm.state import ShardState, Standing, SubmissionState
from s1batch.wording import count

MOST_LINES = 20
"""Shards that are shown one by one."""

_ORDER: tuple[Standing, ...] = ("complete", "running", "waiting", "again", "ended", "gone", "unknown")
_WORDS: dict[Standing, str] = {"again": "submitted again"}

_NO_LOG = "53"
"""With this signal Slurm ends a task whose log it cannot open (seen with Slurm 22.05)."""

_TAIL_BYTES = 4096
_LINE_CHARACTERS = 200


def submission_lines(state: SubmissionState, folder: SubmissionFolder) -> list[str]:
    """Return how far a submission is."""
    spec, jobs = state.spec, state.jobs
    numbers = ", ".join(f"array {job}" for job in jobs.arrays) or "never submitted"
    standings = Counter(shard.standing for shard in state.shards)
    counted = ", ".join(f"{standings[name]:,} {_WORDS.get(name, name)}" for name in _ORDER if standings[name])
    lines = [f"slurm {spec.name}: {numbers}; {count(len(state.shards), 'shard')} of {spec.shards}: {counted}"]
    if not state.reachable:
        lines.append("  Slurm's queue cannot be asked now; only the files are known")
    open_shards = [shard for shard in state.shards if shard.standing not in ("complete", "again")]
    lines += ["  " + shard_line(shard, folder) for shard in open_shards[:MOST_LINES]]
    if len(open_shards) > MOST_LINES:
        lines.append(f"  and {len(open_shards) - MOST_LINES:,} more shards that are not complete")
    found = folder.read_closing()
    if found is not None:
        lines.append(f"  closing job: {found.get('said', 'ended')}")
    elif state.closing is not None:
        words = [f"  closing job {jobs.closing}: {_slurm_words(state.closing)}"]
        if state.closing.ended and state.closing.state != "CANCELLED":
            log = folder.closing_log
            words += [exit_words(state.closing.exit_code), f"{log} {_last_line(log)}"]
        lines.append("; ".join(word for word in words if word))
    return lines


def submission_dict(state: SubmissionState, folder: SubmissionFolder) -> dict[str, Any]:
    """Return the same as plain data."""
    return {
        "name": state.spec.name,
        "arrays": state.jobs.arrays,
        "closing_job": state.jobs.closing,
        "shards": state.spec.shards,
        "reachable": state.reachable,
        "live": state.live,
        "tasks": [asdict(shard) for shard in state.shards],
        "closing": folder.read_closing(),
    }


def shard_line(shard: ShardState, folder: SubmissionFolder) -> str:
    """Return how far a shard is; of one that has ended, all that is known of why."""
    parts = "no plan yet" if shard.parts is None else f"{shard.finished:,} of {count(shard.parts, 'part')}"
    words = [f"shard {shard.shard}: {_WORDS.get(shard.standing, shard.standing)}, {parts}"]
    told, note = shard.slurm, shard.note
    if told is not None:
        words.append(f"{told.name} {_slurm_words(told)}")
        if told.node:
            words.append(f"on {told.node}")
    if note is not None and note.restarts:
        words.append(f"started again {count(note.restarts, 'time')}")
    if told is not None and not told.ended and "held" in told.reason.lower():
        words.append(f"`scontrol release {told.name}` lets it go on")
    if shard.standing not in ("ended", "gone", "unknown"):
        return "; ".join(words)
    if note is not None and note.ended is not None and not note.requeued:
        # One that was interrupted says how a run goes on; a shard goes on when it is submitted again.
        said = note.said.partition(";")[0] if note.exit_code == Interrupted.exit_code else note.said
        words.append(f"exit code {note.exit_code}: {said}")
    elif shard.standing != "unknown":
        words += _without_a_word(shard, folder)
    return "; ".join(words)


def _without_a_word(shard: ShardState, folder: SubmissionFolder) -> list[str]:
    """Return what others know of the end of a task that has not noted it: Slurm, and the log."""
    told, began = shard.slurm, shard.note is not None and not shard.note.requeued
    if told is not None and told.state == "CANCELLED" and not began:
        return []  # before it began: nothing is left to explain
    words = [exit_words(told.exit_code)] if told is not None else []
    words.append("it was ended before it could say why" if began else "s1batch did not come to run")
    if shard.task:
        log = folder.log(shard.task)
        words.append(f"{log} {_last_line(log)}")
    return [word for word in words if word]


def exit_words(code: str) -> str:
    """Return Slurm's `CODE:SIGNAL` in words; empty for success, and for what is not known."""
    left, _, right = code.partition(":")
    if right == _NO_LOG:
        return "Slurm could not open its log"
    if right.isdigit() and int(right):
        return f"ended by {_signal_name(int(right))}"
    return f"exit code {left}" if left.isdigit() and int(left) else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(log: Path) -> str:
    """Return how a log ends, or why that is not known."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except FileNotFoundError:
        return "is not there"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    # What a program printed goes to a terminal.
    printable = "".join(each if each.isprintable() else "?" for each in said)
    return f"ends with: {printable[-_LINE_CHARACTERS:]}" if printable else "is empty"


def _slurm_words(job: JobState) -> str:
    # Slurm gives this reason for each batch job that ends by a signal, and keeps why a cancelled one had waited.
    by_signal = job.reason == "JobLaunchFailure" and job.exit_code not in ("", "0:0")
    reason = "" if by_signal or job.state == "CANCELLED" else job.reason
    return f"{job.state.lower()} ({reason})" if reason else job.state.lower()
