"""How a chunk can end, and why: closed sets of words."""

from __future__ import annotations

from typing import Literal, get_args

Outcome = Literal["ok", "unparsed", "length", "refused", "unreadable", "failed", "skipped"]
"""How a planned chunk ended: answered; answered but not in the schema; cut by the output limit; inadmissible for the
engine; not readable; the engine failed after its retries; not asked on purpose."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

Reason = Literal[
    # unreadable
    "unknown_format",
    "empty_file",
    "not_readable",
    "decode_error",
    "source_changed",
    "source_missing",
    "source_unreachable",
    "missing_chunk",
    "encrypted",
    "no_match",
    # refused
    "missing_component",
    "gap_too_large",
    "irregular_axis",
    "too_many_pixels",
    "series_not_supported",
    "image_not_supported",
    "series_too_long",
    "series_too_short",
    "several_series",
    "series_with_image",
    "mixed_series",
    "not_finite",
    "wrong_shape",
    "rate_missing",
    "context_too_long",
    "thinking_not_supported",
    "schema_not_supported",
    "tools_not_supported",
    "prompt_error",
    # unparsed
    "not_json",
    "not_in_schema",
    "out_of_range",
    "no_answer",
    "quote_not_found",
    "bad_tool_call",
    "too_many_turns",
    # length
    "output_limit",
    # failed
    "bad_request",
    "unauthorized",
    "not_found",
    "rate_limited",
    "server_error",
    "connection",
    "bad_response",
    "deadline",
    "engine_error",
    "engine_unavailable",
    "context_length_exceeded",
    "invalid_request",
    "preprocess_failed",
    "internal_error",
    "worker_died",
    # skipped
    "not_triggered",
    "budget",
]
"""Why a row is not `ok`, as a closed set of codes; the row's `detail` says it in words."""

REASONS: tuple[Reason, ...] = get_args(Reason)

FinishReason = Literal["stop", "length", "tool_calls", "error", "abort"]
"""Why generation ended."""
