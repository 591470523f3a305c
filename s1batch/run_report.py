"""How a run ended, as lines for a person."""

from __future__ import annotations

from s1batch.execution import RunSummary

_MEANING = {
    "ok": "answered",
    "unparsed": "answered, but not in the schema",
    "length": "cut by the output limit",
    "refused": "not asked: the engine would not take it whole",
    "unreadable": "could not be read",
    "failed": "the engine failed after its retries",
    "skipped": "not asked on purpose",
}


def summary_lines(summary: RunSummary) -> list[str]:
    """Return the table of outcomes, with reasons, and where the rows are."""
    lines = [f"{summary.path}: {summary.outcomes.total():,} rows for {summary.chunks:,} chunks"]
    for outcome, meaning in _MEANING.items():
        count = summary.outcomes.get(outcome, 0)
        if not count:
            continue
        reasons = sorted((reason, number) for (name, reason), number in summary.reasons.items() if name == outcome)
        why = ": " + ", ".join(f"{number:,} {reason}" for reason, number in reasons) if reasons else ""
        lines.append(f"  {count:>9,}  {outcome:<10}  {meaning}{why}")
    if summary.merged is not None:
        lines.append(f"  {summary.merged:>9,}  merged answers in {summary.path / 'merged'}")
    lines.append(f"{summary.added:,} rows in {summary.seconds:.1f} s; prove it with: s1batch verify {summary.path}")
    return lines
