"""The `job: {kind: image-qa}` block of a job file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from s1batch.jobs.question_spec import QuestionConfig

if TYPE_CHECKING:
    from s1batch.jobs.base import Job

PROMPT = "Please answer a question about what is shown here, from what can be seen alone."

NOTE = (
    "Question: {{ question }}\n"
    "{% if answer_type == 'number' %}Answer with a number{% if unit %} in {{ unit }}{% endif %}."
    "{% elif answer_type == 'boolean' %}Answer with true or false."
    "{% elif answer_type == 'choice' %}Answer with one of: {{ choices|join(', ') }}."
    "{% else %}Answer in as few words as possible.{% endif %}"
)


class ImageQaSpec(QuestionConfig):
    """A question about each image, with a typed answer."""

    kind: Literal["image-qa"]
    question: str | None = Field(
        None, min_length=1, description="Jinja2 template of the question, the same for all images or with their fields"
    )
    question_field: str | None = Field(None, min_length=1, description="field that holds the question of each record")
    prompt: str = Field(PROMPT, min_length=1, description="Jinja2 template of what all questions share, first")
    note: str = Field(NOTE, min_length=1, description="Jinja2 template behind the image; `question` is the question")
    answer: Literal["text", "number", "boolean", "choice"] = Field("text", description="type of the answer")
    choices: tuple[str, ...] = Field((), description="what a `choice` chooses from")
    unit: str | None = Field(None, min_length=1, description="unit that a `number` is asked in")

    @model_validator(mode="after")
    def _check(self) -> ImageQaSpec:
        if (self.question is None) == (self.question_field is None):
            raise ValueError("give exactly one of question and question_field")
        if (self.answer == "choice") != bool(self.choices):
            raise ValueError("choices belong to `answer: choice`, which needs them")
        if len(set(self.choices)) != len(self.choices):
            raise ValueError("choices: one of them stands there twice")
        if self.unit is not None and self.answer != "number":
            raise ValueError("unit belongs to `answer: number`")
        return self

    def build(self, base_dir: Path) -> Job:
        """Make the job."""
        from s1batch.jobs.image_qa.job import TAKEN, ImageQaJob, qa_schema
        from s1batch.jobs.template import PromptTemplate

        document = qa_schema(self.answer, self.choices, self.further(*TAKEN))
        return ImageQaJob(
            question=self.make_question(document, base_dir),
            asked=PromptTemplate(self.question, "job.question") if self.question is not None else None,
            question_field=self.question_field,
            answer_type=self.answer,
            choices=self.choices,
            unit=self.unit,
        )
