"""The `ask` job: the user's own question, with or without a schema for the answer."""

from __future__ import annotations

from dataclasses import dataclass

from s1batch.columns import Column
from s1batch.jobs.answers import interpret_json, interpret_text
from s1batch.jobs.question import Question
from s1batch.jobs.question_job import QuestionJob
from s1batch.records import Answer, PlanEntry, Record, Response


@dataclass(frozen=True, kw_only=True)
class AskJob(QuestionJob):
    """Asks the user's question about each record.

    Attributes:
        question: The question; without a schema any text is an answer, which stands in the column `text`.
    """

    question: Question

    @property
    def columns(self) -> tuple[Column, ...]:
        """One column for each property of the schema; none without a schema."""
        return () if self.question.schema is None else self.question.schema.columns

    def outline(self, entry: PlanEntry) -> str:
        """Return the prompt as it is written; the plan knows no values, only how long they are."""
        return self.question.outline()

    def interpret(self, record: Record, response: Response) -> Answer:
        """Turn a response into the schema's fields, or judge its text where there is no schema."""
        schema = self.question.schema
        return interpret_text(response) if schema is None else interpret_json(response, schema)
