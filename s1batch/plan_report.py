"""A plan as lines for a person, or as a mapping."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from s1batch.api import Plan
from s1batch.assembly import make_job, make_sampling, text_counter
from s1batch.engine.costs import PLAN_FACTORS, Estimate, Load, estimate, mixture
from s1batch.engine.sizes import INTERN_S1_PRO, sizes_of
from s1batch.pilot import Forecast, Pilot
from s1batch.pilot_report import forecast_line, rates_line
from s1batch.planner import PlanTotals
from s1batch.prefix_advice import prefix_advice
from s1batch.records import SeriesShape
from s1batch.wording import count, one_line

COMMON_SHAPES = 5
LONGEST_DETAIL = 160
"""Characters that are shown of what is said of one chunk."""

_OFFERS = dict.fromkeys(
    ("series_with_image", "series_not_supported", "several_series", "series_too_long"),
    "an ask job with `render: image` sends a plot in place of the series",
)


def plan_lines(plan: Plan) -> list[str]:
    """Return chunks, coverage, refusals, tokens and the estimate."""
    totals = plan.totals
    lines = [plan.facts.told] if plan.facts.told else []
    lines.append(f"{count(totals.chunks, 'chunk')} in {count(totals.parts, 'part')}; {totals.asked:,} will be asked")
    for reason, number in sorted(totals.refused.items()):
        offer = f" ({_OFFERS[reason]})" if reason in _OFFERS else ""
        detail = one_line(totals.details.get(reason, ""), LONGEST_DETAIL)
        lines.append(f"  {number:,} not asked: {reason}{offer}" + (f", such as: {detail}" if detail else ""))
    if totals.conditional is not None:
        windows = count(totals.conditional.asked, "window")
        lines.append(f"  {count(totals.scans, 'scan')} at a lower rate first; {windows} only where a scan calls for it")
    lines += plan.account.lines()
    if totals.shapes:
        common = totals.shapes.most_common(COMMON_SHAPES)
        shapes = [f"{number:,} x ({steps}, {channels}) at {rate:g} Hz" for (steps, channels, rate), number in common]
        if len(totals.shapes) > COMMON_SHAPES:
            shapes.append(f"{len(totals.shapes) - COMMON_SHAPES:,} more shapes")
        lines.append(f"series sent: {', '.join(shapes)}")
    if (told := _mixture_line(plan)) is not None:
        lines.append(told)
    lines.append(
        f"prompt tokens: about {_range(_least(totals).prompt_tokens, totals.prompt_tokens)}; output tokens: at most "
        f"{_range(_output_tokens(plan, _least(totals)), _output_tokens(plan, totals))}; {_bytes(totals.nbytes)} to read"
    )
    advice = prefix_advice(make_job(plan.loaded).pieces, text_counter(plan.loaded, plan.facts))
    lines += [advice] if advice else []
    if totals.conditional is not None:
        lines.append("the smaller numbers hold when no scan calls for anything, the larger ones when all do")
    if plan.pilot is not None:
        return [*lines, *_pilot_lines(plan, plan.pilot)]
    if totals.conditional is not None:
        lines.append(_estimate_line(plan, _least(totals)))
    lines.append(_estimate_line(plan, totals))
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
        "output_tokens_at_most": _output_tokens(plan, totals),
        "bytes": totals.nbytes,
        "estimate": {"model": _sized_model(plan), **asdict(_estimate(plan, totals))},
        "pilot": None if plan.pilot is None else _pilot_dict(plan, plan.pilot),
        "scans": totals.scans,
        "least": {
            "asked": _least(totals).asked,
            "prompt_tokens": _least(totals).prompt_tokens,
            "output_tokens_at_most": _output_tokens(plan, _least(totals)),
            "estimate": asdict(_estimate(plan, _least(totals))),
        },
    }


def _mixture_line(plan: Plan) -> str | None:
    """Return how a mixture of shapes is served fastest, where the engine must not prefill them together."""
    rules, totals = plan.facts.rules, plan.totals
    is_single = rules.name == "lmdeploy_single_prefill"
    if len(totals.shapes) < 2 or not (rules.exclusive_series or is_single):
        return None
    said = f"series of {len(totals.shapes):,} shapes must not be prefilled together: "
    sizes = sizes_of(plan.facts.model.name)
    found = None if sizes is None else mixture(_load(plan, totals), sizes)
    if found is None:
        return said + ("the servers see to it (single_prefill)" if is_single else "they are asked shape by shape")
    apart, single = found.apart_s, found.single_s
    said += f"one after the other costs {_seconds(apart)}, single-prefill settings {_seconds(single)}; "
    if is_single == (single <= apart):
        return said + f"the faster is set (engine.single_prefill: {'true' if is_single else 'false'})"
    if is_single:
        return said + "servers without these settings, and engine.single_prefill: false, are faster"
    return said + "start the servers with these settings and set engine.single_prefill (docs/servers.md)"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 1 else "less than 1 s"


def _least(totals: PlanTotals) -> PlanTotals:
    """Return what is asked when no scan calls for anything."""
    depends = totals.conditional
    if depends is None:
        return totals
    return replace(
        totals,
        chunks=totals.chunks - depends.chunks,
        refused=totals.refused - depends.refused,
        prompt_tokens=totals.prompt_tokens - depends.prompt_tokens,
        shapes=totals.shapes - depends.shapes,
    )


def _range(least: int, most: int) -> str:
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"


def _output_tokens(plan: Plan, totals: PlanTotals) -> int:
    return totals.asked * make_sampling(plan.loaded).max_tokens


def _sized_model(plan: Plan) -> str:
    """Return which model the estimate is for: the reference engine rehearses what Intern-S1-Pro would cost."""
    return "Intern-S1-Pro" if plan.loaded.spec.engine.kind == "reference" else plan.facts.model.name


def _estimate(plan: Plan, totals: PlanTotals) -> Estimate:
    sizes = INTERN_S1_PRO if plan.loaded.spec.engine.kind == "reference" else sizes_of(plan.facts.model.name)
    return estimate(_load(plan, totals), sizes)


def _load(plan: Plan, totals: PlanTotals) -> Load:
    series = {
        SeriesShape(steps=steps, channels=channels, rate_hz=rate): number
        for (steps, channels, rate), number in totals.shapes.items()
    }
    return Load(
        requests=totals.asked,
        prompt_tokens=totals.prompt_tokens,
        output_tokens=_output_tokens(plan, totals),
        series=series,
    )


def _estimate_line(plan: Plan, totals: PlanTotals) -> str:
    found = _estimate(plan, totals)
    if found.floor_gpu_hours is None:
        return f"GPU-hours: not estimated: {found.reason}"
    low, high = PLAN_FACTORS
    return (
        f"GPU-hours of {_sized_model(plan)} on {found.hardware}, with answers of full length: at least "
        f"{found.floor_gpu_hours:.3g}, plan with {found.low_gpu_hours:.3g} to {found.high_gpu_hours:.3g} "
        f"({low:g} to {high:g} times the floor)"
    )


def _pilot_lines(plan: Plan, pilot: Pilot) -> list[str]:
    where = f"from the pilot of {pilot.made} in {plan.loaded.output}, in place of the formula"
    lines = [f"{where}: {rates_line(pilot)}", f"the whole plan: {forecast_line(Forecast.of(pilot, _units(plan)))}"]
    if plan.units_left is not None and plan.units_left != _units(plan):
        lines.append(f"what has no row yet: {forecast_line(Forecast.of(pilot, plan.units_left))}")
    return lines


def _pilot_dict(plan: Plan, pilot: Pilot) -> dict[str, Any]:
    left = None if plan.units_left is None else asdict(Forecast.of(pilot, plan.units_left))
    return {"whole": asdict(Forecast.of(pilot, _units(plan))), "left": left}


def _units(plan: Plan) -> int:
    """Return how many chunks are asked whatever scans say."""
    return _least(plan.totals).asked


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
