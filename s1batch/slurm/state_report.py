"""Submissions as lines for a person, or as plain data."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from s1batch.slurm.folder import SubmissionFolder
from s1batch.slurm.state import ShardState, Standing, SubmissionState
from s1batch.wording import count

MOST_LINES = 20
"""Shards that are shown one by one."""

_ORDER: tuple[Standing, ...] = ("complete", "running", "waiting", "ended", "gone", "unknown")


def submission_lines(state: SubmissionState, folder: SubmissionFolder) -> list[str]:
    """Return how far a submission is."""
    spec, jobs = state.spec, state.jobs
    numbers = ", ".join(f"array {job}" for job in jobs.arrays) or "never submitted"
    standings = Counter(shard.standing for shard in state.shards)
    counted = ", ".join(f"{standings[name]:,} {name}" for name in _ORDER if standings[name])
    lines = [f"slurm {spec.name}: {numbers}; {count(len(state.shards), 'shard')} of {spec.shards}: {counted}"]
    if not state.reachable:
        lines.append("  Slurm's queue cannot be asked now; only the files are known")
    open_shards = [shard for shard in state.shards if shard.standing != "complete"]
    lines += ["  " + _shard_line(shard) for shard in open_shards[:MOST_LINES]]
    if len(open_shards) > MOST_LINES:
        lines.append(f"  and {len(open_shards) - MOST_LINES:,} more shards that are not complete")
    found = folder.read_closing()
    if found is not None:
        lines.append(f"  closing job: {found.get('said', 'ended')}")
    elif state.closing is not None:
        lines.append(f"  closing job {jobs.closing}: {_slurm_words(state.closing.state, state.closing.reason)}")
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


def _shard_line(shard: ShardState) -> str:
    parts = "no plan yet" if shard.parts is None else f"{shard.finished:,} of {count(shard.parts, 'part')}"
    words = [f"shard {shard.shard}: {shard.standing}, {parts}"]
    if shard.slurm is not None:
        words.append(f"{shard.slurm.name} {_slurm_words(shard.slurm.state, shard.slurm.reason)}")
        if shard.slurm.node:
            words.append(f"on {shard.slurm.node}")
    if shard.note is not None:
        if shard.note.restarts:
            words.append(f"started again {count(shard.note.restarts, 'time')}")
        if shard.note.ended is not None and shard.standing not in ("running", "waiting"):
            words.append(f"exit code {shard.note.exit_code}: {shard.note.said}")
    return "; ".join(words)


def _slurm_words(state: str, reason: str) -> str:
    return f"{state.lower()} ({reason})" if reason else state.lower()
