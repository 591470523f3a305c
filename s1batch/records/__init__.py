"""The records that flow from an archive to a table.

    plan -> parts of chunks -> (worker: read -> prepare -> admit -> engine -> interpret) -> rows -> results -> merge

A frozen record without arrays (`Address`, `Chunk`, `PlanEntry`) pickles, hashes and compares, and is what travels
between processes. A record with a payload (`Record`, `Request`) compares by identity and never leaves its worker.

Times are int64 UTC nanoseconds since 1970, half-open. Shapes are named by suffix: `wave_TC` is (time, channel).
"""

from __future__ import annotations

from s1batch.records.answers import Answer, Response, Row, TokenLogprob
from s1batch.records.data import Fields, Payload, Record, Series
from s1batch.records.outcomes import OUTCOMES, REASONS, FinishReason, Outcome, Reason
from s1batch.records.places import Address, Chunk, Slice
from s1batch.records.plan import InventoryItem, InventoryStatus, PlanEntry, Refusal, SeriesShape
from s1batch.records.requests import (
    ImagePart,
    Message,
    ModelIdentity,
    Part,
    Request,
    Role,
    Sampling,
    SeriesPart,
    TextPart,
)
from s1batch.records.tools import TOOL_NAME, Tool, ToolCall, ToolResult
from s1batch.records.turns import Turn, turn_from_plain, turn_to_plain, turns_from_text, turns_to_text

__all__ = [
    "Outcome",
    "OUTCOMES",
    "Reason",
    "REASONS",
    "FinishReason",
    "Slice",
    "Address",
    "Chunk",
    "Refusal",
    "SeriesShape",
    "PlanEntry",
    "InventoryStatus",
    "InventoryItem",
    "Series",
    "Fields",
    "Payload",
    "Record",
    "TextPart",
    "SeriesPart",
    "ImagePart",
    "Part",
    "Role",
    "Message",
    "Sampling",
    "ModelIdentity",
    "Request",
    "TOOL_NAME",
    "Tool",
    "ToolCall",
    "ToolResult",
    "Turn",
    "turn_to_plain",
    "turn_from_plain",
    "turns_to_text",
    "turns_from_text",
    "Response",
    "TokenLogprob",
    "Answer",
    "Row",
]
