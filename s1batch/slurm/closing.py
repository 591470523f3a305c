"""The closing job: what came of a submission, proved from the files.

It depends on the arrays "after any end", because a dependency on success would wait for ever behind one failed task.
So it looks itself whether anything is missing, and says of each such shard what its task said last. What a later
submission has at work is left to that one's closing job, which begins when this one has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from s1batch.errors import LockedError
from s1batch.results.layout import Layout
from s1batch.results.patience import Patience
from s1batch.slurm.client import Slurm
from s1batch.slurm.folder import SubmissionFolder, submissions
from s1batch.slurm.progress import parts_done
from s1batch.slurm.shards import incomplete_shards
from s1batch.slurm.state import SubmissionState, submission_state, submitted_later
from s1batch.slurm.state_report import shard_line, submission_lines
from s1batch.wording import count

Say = Callable[[str], None]

STRAGGLERS_S = 600.0
"""How long tasks that are in the queue again are waited for: requeued by hand, or on a node that was lost."""

_LOOK_EVERY_S = 5.0


def close_submission(
    folder: SubmissionFolder,
    slurm: Slurm,
    say: Say,
    *,
    patience_s: float = STRAGGLERS_S,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Look at a submission's results when its tasks have ended: compact and verify them, and record what was found.

    Args:
        folder: The submission's folder.
        slurm: Who is asked about stragglers.
        say: Receives lines for a person.
        patience_s: How long stragglers are waited for, and a disk that cannot be written.
        sleep: Waits.

    Returns:
        The exit code: 0 when every part is there and the proof is clean, 1 otherwise.
    """
    spec = folder.read_spec()
    results = Path(spec.results)
    patience = Patience(results, patience_s, say)
    state = _settled(folder, slurm, patience_s, sleep)
    done = parts_done(results)
    found: dict[str, Any] = {"ended": time.time(), "complete": done.complete, "ok": False, "findings": []}
    if done.parts is None:
        found["said"] = "no task came as far as a plan; the logs say why"
    else:
        if done.complete:
            patience.through(partial(_tidy, results, say))
        found.update(_proof(results, say))
        missing = incomplete_shards(done.parts, done.finished, spec.shards)
        if missing:
            found["incomplete_shards"] = missing
            found["shards"] = [shard_line(shard, folder) for shard in state.shards if shard.shard in missing]
            again = {shard.shard for shard in state.shards if shard.standing == "again"}.intersection(missing)
            found["said"] = _what_to_do(len(again), len(missing) - len(again), _later(folder))
    for line in submission_lines(replace(state, closing=None), folder):
        say(line)
    say(found["said"])
    patience.through(partial(folder.write_closing, found))
    patience.close()
    return 0 if found["ok"] and found["complete"] else 1


def _settled(
    folder: SubmissionFolder, slurm: Slurm, patience_s: float, sleep: Callable[[float], None]
) -> SubmissionState:
    """Wait, within bounds, until no task of the arrays is in the queue."""
    results = Path(folder.read_spec().results)
    waited_s = 0.0
    while True:
        later = submitted_later(folder, _later(folder))
        state = submission_state(folder, parts_done(results), slurm, later=later)
        if not state.live or waited_s >= patience_s:
            return state
        sleep(_LOOK_EVERY_S)
        waited_s += _LOOK_EVERY_S


def _later(folder: SubmissionFolder) -> list[SubmissionFolder]:
    """Return the submissions into the same results that were made after one."""
    return [each for each in submissions(folder.root.parent.parent) if each.root.name > folder.root.name]


def _what_to_do(again: int, lost: int, later: Sequence[SubmissionFolder]) -> str:
    """Return for a person what becomes of shards that are not complete.

    Args:
        again: How many of them a later submission has.
        lost: How many others there are, of this submission or an earlier one.
        later: The later submissions.
    """
    words = []
    if lost:
        words.append(f"{count(lost, 'shard')} not complete: submit again to go on")
    if again:
        jobs = [job for each in later for job in each.read_jobs().arrays]
        them = f"{'job' if len(jobs) == 1 else 'jobs'} {', '.join(jobs)}"
        words.append(f"{count(again, 'shard')} submitted again since, and left to {them}")
    return "; ".join(words)


def _tidy(results: Path, say: Say) -> None:
    """Merge answers over overlaps where the task that ended last was killed before it had; join small files."""
    import s1batch
    from s1batch.results.compaction import compact

    if not Layout(results).merged_rows().exists():
        s1batch.open_results(results).merge()
    try:
        compacted = compact(results)
    except LockedError as error:
        say(f"not compacted: {error}")
    else:
        say(f"compacted: {compacted.before:,} files of rows before, {compacted.after:,} now")


def _proof(results: Path, say: Say) -> dict[str, Any]:
    import s1batch
    from s1batch.results_report import verdict_lines

    verdict = s1batch.open_results(results).verify()
    lines = verdict_lines(verdict)
    for line in lines:
        say(line)
    wrong = [finding.text for finding in verdict.findings if finding.is_error]
    return {"ok": verdict.ok, "complete": verdict.complete, "findings": wrong, "rows": verdict.rows, "said": lines[-1]}
