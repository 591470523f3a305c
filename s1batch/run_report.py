"""How a run ended, as lines for a person."""

from __future__ import annotations

from s1batch.execution import RunSummary
from s1batch.pilot_report import pilot_lines
from s1batch.wording import count

_MEANING = {
    "ok": "answered",
    "unparsed": "answered, but not in the schema",
    "length": "cut by the output limit",
    "refused": "not asked: too much is missing, the engine would not take it whole, or the prompt failed",
    "unreadable": "could not be read",
    "failed": "the engine failed after its retries",
    "skipped": "not asked on purpose",
}


def summary_lines(summary: RunSummary) -> list[str]:
    """Return the table of outcomes, with reasons, and where the rows are."""
    rows, chunks = count(summary.outcomes.total(), "row"), count(summary.chunks, "chunk")
    lines = [f"{summary.path}: {rows} for {chunks}"]
    for outcome, meaning in _MEANING.items():
        number = summary.outcomes.get(outcome, 0)
        if not number:
            continue
        reasons = sorted((reason, rows) for (name, reason), rows in summary.reasons.items() if name == outcome)
        why = ": " + ", ".join(f"{rows:,} {reason}" for reason, rows in reasons) if reasons else ""
        lines.append(f"  {number:>9,}  {outcome:<10}  {meaning}{why}")
    if summary.merged is not None:
        lines.append(f"  {summary.merged:>9,}  merged answers in {summary.path / 'merged'}")
    if summary.cached_tokens:
        share = summary.cached_tokens / max(summary.prompt_tokens, 1)
        lines.append(
            f"{summary.cached_tokens:,} of {summary.prompt_tokens:,} prompt tokens ({share:.0%}) came from the cache"
        )
    lines.append(
        f"{count(summary.added, 'row')} in {summary.seconds:.1f} s; prove it with: s1batch verify {summary.path}"
    )
    if summary.pilot is not None:
        lines += pilot_lines(summary.pilot)
    return lines
