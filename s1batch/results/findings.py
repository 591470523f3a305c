"""What a check of results may find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Code = Literal[
    "no_plan",
    "no_results",
    "plan_key_doubled",
    "file_damaged",
    "content_differs",
    "part_doubled",
    "schema_differs",
    "row_missing",
    "row_doubled",
    "row_not_in_plan",
    "part_wrong",
    "outcome_unknown",
    "reason_unknown",
    "refusal_differs",
    "skip_unfounded",
    "samples_missing",
    "samples_overlap",
    "account_unbalanced",
    "merged_unknown_chunk",
    "source_changed",
    "journal_left",
    "journal_damaged",
    "compaction_left",
]

_WARNINGS: frozenset[Code] = frozenset({"journal_left", "journal_damaged", "compaction_left", "samples_overlap"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that does not agree.

    Attributes:
        code: What, as one of a closed set.
        text: What, where and what to do, in words.
        count: How many rows, samples, files or bytes.
    """

    code: Code
    text: str
    count: int = 1

    @property
    def is_error(self) -> bool:
        """Whether the results are wrong; a warning otherwise."""
        return self.code not in _WARNINGS
