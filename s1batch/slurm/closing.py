"""The closing job: what came of a submission, proved from the files.

It depends on the arrays "after any end", because a dependency on success would wait for ever behind one failed task.
So it looks itself whether anything is missing, and says of each such shard what its task said last.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from s1batch.errors import LockedError
from s1batch.results.layout import Layout
from s1batch.results.patience import Patience
from s1batch.slurm.client import Slurm
from s1batch.slurm.folder import SubmissionFolder
from s1batch.slurm.progress import parts_done
from s1batch.slurm.state import SubmissionState, submission_state
from s1batch.slurm.state_report import submission_lines
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
        missing = [shard.shard for shard in state.shards if shard.standing != "complete"]
        if missing:
            found["incomplete_shards"] = missing
            found["said"] = f"{count(len(missing), 'shard')} not complete: submit again to go on"
    for line in submission_lines(state, folder):
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
        state = submission_state(folder, parts_done(results), slurm)
        if not state.live or waited_s >= patience_s:
            return state
        sleep(_LOOK_EVERY_S)
        waited_s += _LOOK_EVERY_S


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
