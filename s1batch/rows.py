"""Builds rows: the one place where a chunk, its lineage, a response and an answer become a line of the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from s1batch.records import Answer, PlanEntry, Record, Refusal, Request, Response, Row, Turn, turns_to_text


def refused_row(
    entry: PlanEntry, refusal: Refusal, lineage: Mapping[str, Any] | None = None, request: Request | None = None
) -> Row:
    """Return the row of a chunk that was never asked."""
    return Row(
        **_place(entry),
        outcome=refusal.outcome,
        reason=refusal.reason,
        detail=refusal.detail,
        model=request.model.name if request else "",
        fingerprint=request.fingerprint if request else "",
        lineage=lineage or {},
    )


def answered_row(
    entry: PlanEntry,
    record: Record,
    response: Response,
    answer: Answer,
    facts: Mapping[str, Any],
    *,
    shared: bool,
    turns: Sequence[Turn] = (),
) -> Row:
    """Return the row of a chunk that an engine answered, or failed on.

    Args:
        entry: Its line of the plan.
        record: What was read.
        response: What came back.
        answer: What the job made of it.
        facts: The request columns (`rate_declared_hz`, `neutralised`, `conditioned`).
        shared: Whether the answer was given to another chunk first; then its tokens and attempts are counted there.
        turns: What went before the response: calls of tools, answers that do not fit; its cost is counted here too.
    """
    paid = [turn.response for turn in turns if not turn.shared] + ([] if shared else [response])
    cost = _cost(paid[0]) if len(paid) == 1 else _sums(paid)
    return Row(
        **_place(entry),
        outcome=answer.outcome,
        reason=answer.reason,
        detail=answer.detail,
        text=response.text,
        reasoning=_reasoning(response, turns),
        finish_reason=response.finish_reason,
        **cost,
        engine=response.engine,
        model=response.model,
        fingerprint=response.fingerprint,
        logprobs=None if response.logprobs is None else [each.plain() for each in response.logprobs],
        **facts,
        turns=turns_to_text(turns),
        repairs=sum(not turn.response.tool_calls for turn in turns),
        lineage=record.lineage,
        answer=answer.fields,
    )


def _reasoning(response: Response, turns: Sequence[Turn]) -> str | None:
    """Return the reasoning behind an answer: its own, or that of the answer that it mends, without a new thought."""
    for turn in reversed(turns):
        if response.reasoning is not None or not turn.wrong:
            break
        response = turn.response
    return response.reasoning


def request_facts(request: Request) -> dict[str, Any]:
    """Return the request columns of a row."""
    series = request.series
    if not series:
        return {"rate_declared_hz": None, "neutralised": request.neutralised, "conditioned": None}
    declared = next((part.declared_rate_hz for part in series if part.declared_rate_hz is not None), None)
    # Channels count on from one series of the request to the next.
    channels: list[int] = []
    before = 0
    for part in series:
        channels += (before + channel for channel in part.conditioned)
        before += part.values_TC.shape[1]
    return {"rate_declared_hz": declared, "neutralised": request.neutralised, "conditioned": channels or None}


def _cost(response: Response) -> dict[str, Any]:
    return {
        "prompt_tokens": response.prompt_tokens,
        "cached_tokens": response.cached_tokens,
        "output_tokens": response.output_tokens,
        "seconds": response.seconds,
        "attempts": response.attempts,
    }


def _sums(paid: Sequence[Response]) -> dict[str, Any]:
    """Return the cost of several answers, or of none."""
    return {
        "prompt_tokens": _sum(each.prompt_tokens for each in paid),
        "cached_tokens": _sum(each.cached_tokens for each in paid),
        "output_tokens": _sum(each.output_tokens for each in paid),
        "seconds": sum((each.seconds for each in paid), 0.0),
        "attempts": sum(each.attempts for each in paid),
    }


def _sum(counts: Iterable[int | None]) -> int | None:
    """Return the sum of what is known; None when there is something, and nothing of it is known."""
    found = list(counts)
    known = [count for count in found if count is not None]
    return None if found and not known else sum(known)


def _place(entry: PlanEntry) -> dict[str, Any]:
    chunk = entry.chunk
    first, behind, start_ns, stop_ns = chunk.extent
    return {
        "chunk_key": chunk.key,
        "part": entry.part,
        "source": entry.label,
        "start_ns": start_ns,
        "stop_ns": stop_ns,
        "span_start": first,
        "span_end": behind,
    }
