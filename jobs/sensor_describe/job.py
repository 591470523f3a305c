"""Asks for a window of measurements in one sentence and typed fields.

The answer is `{"description", "trend", "periodic", "period_s", "level"}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from s1batch.columns import Column
from s1batch.jobs.answers import interpret_json
from s1batch.jobs.question import Question
from s1batch.jobs.question_job import QuestionJob
from s1batch.jobs.question_spec import closed_object
from s1batch.jobs.sent_series import series_names, the_series
from s1batch.records import Answer, Record, Request, Response

if TYPE_CHECKING:
    from s1batch.jobs.base import Settings

TRENDS = ("rising", "falling", "flat", "mixed")
TAKEN = ("description", "trend", "periodic", "period_s", "level")
"""The fields of an answer."""


@dataclass(frozen=True, kw_only=True)
class SensorDescribeJob(QuestionJob):
    """Asks for descriptions of windows of measurements.

    Attributes:
        question: Templates, schema and how the answer is asked for.
    """

    question: Question

    @property
    def columns(self) -> tuple[Column, ...]:
        """One column for each field."""
        return self.schema.columns

    def prepare(self, record: Record, settings: Settings) -> Request:
        """Build the request.

        Raises:
            SourceError: The record holds no series, or several, or a template fails on it.
        """
        series = the_series(record, "sensor-describe")
        return self.question.request(record, settings, more=series_names(record, series, self.question.names))

    def interpret(self, record: Record, response: Response) -> Answer:
        """Turn a response into the fields; a period beside `"periodic": false` is dropped."""
        answer = interpret_json(response, self.schema)
        if answer.outcome != "ok" or answer.fields["periodic"] or answer.fields["period_s"] is None:
            return answer
        notes = [answer.detail] if answer.detail else []
        notes.append(f"period_s {answer.fields['period_s']:g} dropped: periodic is false")
        return Answer(outcome="ok", detail="; ".join(notes), fields={**answer.fields, "period_s": None})


def description_schema(levels: Sequence[str], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of the answer."""
    return closed_object(
        {
            "description": {"type": "string", "maxLength": 500, "description": "one short sentence"},
            "trend": {"type": "string", "enum": list(TRENDS), "description": "how the values change over the window"},
            "periodic": {"type": "boolean", "description": "whether it repeats itself"},
            "period_s": {"type": ["number", "null"], "minimum": 0, "description": "period in seconds, if periodic"},
            "level": {"type": "string", "enum": list(levels), "description": "level of the values"},
            **fields,
        }
    )
