"""A plan as lines for a person, or as a mapping."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from s1batch.api import Plan
from s1batch.assembly import make_sampling
from s1batch.engine.costs import PLAN_FACTORS, Estimate, Load, estimate
from s1batch.engine.sizes import INTERN_S1_PRO, sizes_of
from s1batch.records import SeriesShape
from s1batch.wording import count

COMMON_SHAPES = 5


def plan_lines(plan: Plan) -> list[str]:
    """Return chunks, coverage, refusals, tokens and the estimate."""
    totals = plan.totals
    lines = [plan.facts.told] if plan.facts.told else []
    lines.append(f"{count(totals.chunks, 'chunk')} in {count(totals.parts, 'part')}; {totals.asked:,} will be asked")
    lines += [f"  {number:,} not asked: {reason}" for reason, number in sorted(totals.refused.items())]
    lines += plan.account.lines()
    if totals.shapes:
        common = totals.shapes.most_common(COMMON_SHAPES)
        shapes = [f"{number:,} x ({steps}, {channels}) at {rate:g} Hz" for (steps, channels, rate), number in common]
        if len(totals.shapes) > COMMON_SHAPES:
            shapes.append(f"{len(totals.shapes) - COMMON_SHAPES:,} more shapes")
        lines.append(f"series: {', '.join(shapes)}")
    lines.append(
        f"prompt tokens: about {totals.prompt_tokens:,}; output tokens: at most {_output_tokens(plan):,}; "
        f"{_bytes(totals.nbytes)} to read"
    )
    lines.append(_estimate_line(plan))
    return lines


def plan_dict(plan: Plan) -> dict[str, Any]:
    """Return the same as plain data."""
    totals = plan.totals
    return {
        "engine": plan.facts.name,
        "model": asdict(plan.facts.model),
        "chunks": totals.chunks,
        "parts": totals.parts,
        "asked": totals.asked,
        "refused": dict(sorted(totals.refused.items())),
        "account": plan.account.plain(),
        "series": [
            {"steps": steps, "channels": channels, "rate_hz": rate, "chunks": number}
            for (steps, channels, rate), number in totals.shapes.most_common()
        ],
        "prompt_tokens": totals.prompt_tokens,
        "output_tokens_at_most": _output_tokens(plan),
        "bytes": totals.nbytes,
        "estimate": {"model": _sized_model(plan), **asdict(_estimate(plan))},
    }


def _output_tokens(plan: Plan) -> int:
    return plan.totals.asked * make_sampling(plan.loaded).max_tokens


def _sized_model(plan: Plan) -> str:
    """Return which model the estimate is for: the reference engine rehearses what Intern-S1-Pro would cost."""
    return "Intern-S1-Pro" if plan.loaded.spec.engine.kind == "reference" else plan.facts.model.name


def _estimate(plan: Plan) -> Estimate:
    totals = plan.totals
    series = {
        SeriesShape(steps=steps, channels=channels, rate_hz=rate): number
        for (steps, channels, rate), number in totals.shapes.items()
    }
    load = Load(
        requests=totals.asked, prompt_tokens=totals.prompt_tokens, output_tokens=_output_tokens(plan), series=series
    )
    sizes = INTERN_S1_PRO if plan.loaded.spec.engine.kind == "reference" else sizes_of(plan.facts.model.name)
    return estimate(load, sizes)


def _estimate_line(plan: Plan) -> str:
    found = _estimate(plan)
    if found.floor_gpu_hours is None:
        return f"GPU-hours: not estimated: {found.reason}"
    low, high = PLAN_FACTORS
    return (
        f"GPU-hours of {_sized_model(plan)} on {found.hardware}, with answers of full length: at least "
        f"{found.floor_gpu_hours:.3g}, plan with {found.low_gpu_hours:.3g} to {found.high_gpu_hours:.3g} "
        f"({low:g} to {high:g} times the floor)"
    )


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
