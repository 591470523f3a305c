"""A plan as lines for a person, or as a mapping."""

from __future__ import annotations

from typing import Any

from s1batch.api import Plan
from s1batch.assembly import make_sampling
from s1batch.engine.costs import Estimate, estimate_plan


def plan_lines(plan: Plan) -> list[str]:
    """Return chunks, coverage, refusals, tokens and the estimate."""
    totals = plan.totals
    lines = [plan.told] if plan.told else []
    lines.append(f"{totals.chunks:,} chunks in {totals.parts:,} parts; {totals.asked:,} will be asked")
    lines += [f"  {count:,} not asked: {reason}" for reason, count in sorted(totals.refused.items())]
    lines += plan.account.render().splitlines()
    if totals.shapes:
        common = totals.shapes.most_common(5)
        shapes = ", ".join(
            f"{count:,} x ({steps}, {channels}) at {rate:g} Hz" for (steps, channels, rate), count in common
        )
        more = f", {len(totals.shapes) - 5:,} more shapes" if len(totals.shapes) > 5 else ""
        lines.append(f"series: {shapes}{more}")
    lines.append(
        f"prompt tokens: about {totals.prompt_tokens:,}; output tokens: at most "
        f"{totals.asked * make_sampling(plan.loaded).max_tokens:,}; {_bytes(totals.nbytes)} to read"
    )
    lines += _estimate(plan).render().splitlines()
    return lines


def plan_dict(plan: Plan) -> dict[str, Any]:
    """Return the same as plain data."""
    totals = plan.totals
    return {
        "engine": plan.told,
        "chunks": totals.chunks,
        "parts": totals.parts,
        "asked": totals.asked,
        "refused": dict(sorted(totals.refused.items())),
        "account": plan.account.to_dict(),
        "series": [
            {"steps": steps, "channels": channels, "rate_hz": rate, "chunks": count}
            for (steps, channels, rate), count in totals.shapes.most_common()
        ],
        "prompt_tokens": totals.prompt_tokens,
        "output_tokens_at_most": totals.asked * make_sampling(plan.loaded).max_tokens,
        "bytes": totals.nbytes,
        "estimate": _estimate(plan).to_dict(),
    }


def _estimate(plan: Plan) -> Estimate:
    sampling = make_sampling(plan.loaded)
    return estimate_plan(plan.totals.shapes, plan.totals.asked, plan.totals.prompt_tokens, sampling.max_tokens)


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
