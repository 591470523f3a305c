"""Builds rows: the one place where a chunk, its lineage, a response and an answer become a line of the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s1batch.records import Answer, PlanEntry, Record, Refusal, Request, Response, Row


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
    entry: PlanEntry, record: Record, response: Response, answer: Answer, facts: Mapping[str, Any], *, shared: bool
) -> Row:
    """Return the row of a chunk that an engine answered, or failed on.

    Args:
        entry: Its line of the plan.
        record: What was read.
        response: What came back.
        answer: What the job made of it.
        facts: The request columns (`rate_declared_hz`, `neutralised`, `conditioned`).
        shared: Whether the answer was given to another chunk first; then its tokens and attempts are counted there.
    """
    return Row(
        **_place(entry),
        outcome=answer.outcome,
        reason=answer.reason,
        detail=answer.detail,
        text=response.text,
        reasoning=response.reasoning,
        finish_reason=response.finish_reason,
        prompt_tokens=0 if shared else response.prompt_tokens,
        cached_tokens=0 if shared else response.cached_tokens,
        output_tokens=0 if shared else response.output_tokens,
        seconds=0.0 if shared else response.seconds,
        attempts=0 if shared else response.attempts,
        engine=response.engine,
        model=response.model,
        fingerprint=response.fingerprint,
        logprobs=None if response.logprobs is None else [each.plain() for each in response.logprobs],
        **facts,
        lineage=record.lineage,
        answer=answer.fields,
    )


def request_facts(request: Request) -> dict[str, Any]:
    """Return the request columns of a row."""
    declared = next((part.declared_rate_hz for part in request.series if part.declared_rate_hz is not None), None)
    # Channels count on from one series of the request to the next.
    channels: list[int] = []
    before = 0
    for part in request.series:
        channels += (before + channel for channel in part.conditioned)
        before += part.values_TC.shape[1]
    return {"rate_declared_hz": declared, "neutralised": request.neutralised, "conditioned": channels or None}


def _place(entry: PlanEntry) -> dict[str, Any]:
    chunk = entry.chunk
    timed = chunk.dim == "time_ns"
    return {
        "chunk_key": chunk.key,
        "part": entry.part,
        "source": entry.label,
        "start_ns": chunk.start if timed else None,
        "stop_ns": chunk.stop if timed else None,
        "span_start": None if timed else chunk.start,
        "span_end": None if timed else chunk.stop,
    }
