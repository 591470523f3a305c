"""Status and verdict as lines for a person, or as mappings."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from s1batch.results.status import Status
from s1batch.results.verify import Verdict
from s1batch.times import format_ns
from s1batch.wording import count


def status_lines(status: Status) -> list[str]:
    """Return how far a run is."""
    share = status.rows / status.chunks if status.chunks else 1.0
    lines = [
        f"{status.rows:,} of {count(status.chunks, 'row')} ({share:.1%}); "
        f"{status.finished:,} of {count(status.parts, 'part')} finished, {status.begun:,} begun"
    ]
    for outcome, reason, number in status.outcomes:
        lines.append(f"  {number:>9,}  {outcome:<10}  {reason}".rstrip())
    if status.output_tokens or status.prompt_tokens:
        prompt = f"{status.prompt_tokens:,} prompt ({status.cached_tokens:,} cached)"
        lines.append(f"tokens: {prompt}, {status.output_tokens:,} output")
    if status.last_ns is not None:
        rate = f", {status.rows_per_s:,.1f} rows/s lately" if status.rows_per_s is not None else ""
        lines.append(f"last row: {format_ns(status.last_ns // 10**9 * 10**9)}{rate}")
    lines += [f"at work: {holder}" for holder in status.holders]
    lines += [f"lost: {holder}" for holder in status.lost]
    return lines


def status_dict(status: Status) -> dict[str, Any]:
    """Return the same as plain data."""
    outcomes = [{"outcome": outcome, "reason": reason, "rows": number} for outcome, reason, number in status.outcomes]
    who = {"holders": [str(each) for each in status.holders], "lost": [str(each) for each in status.lost]}
    return {**asdict(status), **who, "outcomes": outcomes, "complete": status.complete}


def verdict_lines(verdict: Verdict) -> list[str]:
    """Return what was proved, or what is wrong."""
    lines = verdict.account.lines() if verdict.account is not None else []
    rows, chunks = count(verdict.rows, "row"), count(verdict.chunks, "planned chunk")
    lines.append(f"{rows} in finished parts for {chunks}")
    if verdict.unfinished:
        lines.append(f"{verdict.unfinished:,} of {verdict.parts:,} parts are not finished yet; run again to go on")
    lines += [f"{'WRONG' if finding.is_error else 'note'}: {finding.text}" for finding in verdict.findings]
    if not verdict.ok:
        lines.append(f"not clean: {sum(finding.is_error for finding in verdict.findings)} findings")
    elif verdict.complete:
        lines.append("clean: every planned chunk has exactly one row, and every sample is accounted for")
    else:
        lines.append("clean so far: nothing that is there is wrong, but the run is not finished")
    return lines


def verdict_dict(verdict: Verdict) -> dict[str, Any]:
    """Return the same as plain data."""
    return {
        "ok": verdict.ok,
        "complete": verdict.complete,
        "chunks": verdict.chunks,
        "rows": verdict.rows,
        "parts": verdict.parts,
        "unfinished": verdict.unfinished,
        "findings": [{**asdict(finding), "is_error": finding.is_error} for finding in verdict.findings],
        "account": verdict.account.plain() if verdict.account is not None else None,
    }
