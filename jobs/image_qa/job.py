"""Asks a question about each image, and takes an answer of a stated type.

The answer is `{"answer": ...}`: a text, a number, true or false, or one of the choices. The question stands in the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from s1batch.canonical import digest
from s1batch.columns import Column
from s1batch.errors import SourceError
from s1batch.jobs.answers import interpret_json
from s1batch.jobs.image_place import image_name
from s1batch.jobs.question import Question, value_of
from s1batch.jobs.question_job import QuestionJob
from s1batch.jobs.question_spec import closed_object
from s1batch.jobs.template import PromptTemplate, names_of
from s1batch.records import Answer, Fields, PlanEntry, Record, Request, Response

if TYPE_CHECKING:
    from s1batch.jobs.base import Settings

AnswerType = Literal["text", "number", "boolean", "choice"]

TAKEN = ("answer", "image", "question")
"""The answer's columns."""


@dataclass(frozen=True, kw_only=True)
class ImageQaJob(QuestionJob):
    """Asks questions about images.

    Attributes:
        question: Templates, schema and how the answer is asked for.
        asked: Template of the question itself; None where a field holds it.
        question_field: The field that holds the question.
        answer_type: Type of the answer.
        choices: What a choice chooses from.
        unit: Unit of a number.
    """

    question: Question
    asked: PromptTemplate | None
    question_field: str | None
    answer_type: AnswerType
    choices: tuple[str, ...] = ()
    unit: str | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """`image`, `question`, `answer`, and the further fields."""
        import pyarrow as pa

        return (
            Column(name="image", type=pa.string(), doc="file that the image stands in"),
            Column(name="question", type=pa.string(), doc="what was asked"),
            *self.schema.columns,
        )

    @property
    def prompt_hash(self) -> str:
        """Hash of the question, its template and the type of its answer."""
        asked = self.asked.source if self.asked is not None else {"field": self.question_field}
        return digest([*self.question.identity, asked, self.answer_type, list(self.choices), self.unit])

    def outline(self, entry: PlanEntry) -> str:
        """Return the prompt with the question as it is written; a field's length is known to the reader alone."""
        return self.question.outline(self._names(self.asked.source if self.asked is not None else ""))

    def prepare(self, record: Record, settings: Settings) -> Request:
        """Build the request.

        Raises:
            SourceError: The record holds no image or no question, or a template fails on it.
        """
        images = len(record.payload.images) if isinstance(record.payload, Fields) else 0
        if not images:
            raise SourceError("prompt_error", "image-qa needs an image in each record; this one has none")
        return self.question.request(record, settings, more=self._names(self._asked(record)))

    @property
    def checks_values(self) -> bool:
        """True: the question that was asked stands in the row."""
        return True

    def interpret(self, record: Record, response: Response) -> Answer:
        """Turn a response into the typed answer."""
        answer = interpret_json(response, self.schema)
        if answer.outcome != "ok":
            return answer
        fields = {"image": image_name(record), "question": self._asked(record), **answer.fields}
        return Answer(outcome="ok", detail=answer.detail, fields=fields)

    def _asked(self, record: Record) -> str:
        """Return the question.

        Raises:
            SourceError: The field holds no text, or the template fails.
        """
        if self.asked is not None:
            return self.asked.render(names_of(record, self.asked.names)).text
        found = value_of(record, self.question_field or "")
        if not isinstance(found, str) or not found.strip():
            raise SourceError("prompt_error", f"image-qa needs a question in the field {self.question_field!r}")
        return found

    def _names(self, asked: str) -> dict[str, Any]:
        return {
            "question": asked,
            "answer_type": self.answer_type,
            "choices": list(self.choices),
            "unit": self.unit or "",
        }


def qa_schema(answer_type: AnswerType, choices: Sequence[str], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of the answer."""
    kinds: dict[AnswerType, dict[str, Any]] = {
        "text": {"type": "string", "maxLength": 1000},
        "number": {"type": "number"},
        "boolean": {"type": "boolean"},
        "choice": {"type": "string", "enum": list(choices)},
    }
    return closed_object({"answer": kinds[answer_type], **fields})
