"""The fields of `job:` blocks that come with a question, a schema and what they make of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from s1batch.errors import JobFileError
from s1batch.jobs.drawing_spec import DrawingTask
from s1batch.jobs.tools.spec import ToolsConfig

if TYPE_CHECKING:
    from s1batch.jobs.answers import AnswerSchema
    from s1batch.jobs.question import Question


class QuestionConfig(ToolsConfig, DrawingTask):
    """A `job:` block whose question can be changed in every part; what stands here is its form."""

    prompt: str = Field(min_length=1, description="Jinja2 template of the question, before the data")
    note: str = Field("", description="Jinja2 template of the text behind the data; empty leaves it out")
    show_schema: bool = Field(True, description="begin the prompt with the schema of the answer")
    fields: dict[str, dict[str, Any]] = Field(
        {},
        max_length=32,
        description="further properties of the answer, each with its JSON Schema; in jobs whose answer is a list, of "
        "each of its items",
    )

    def make_question(self, document: Mapping[str, Any], base_dir: Path) -> Question:
        """Return the question of this block.

        Args:
            document: The schema of the answer.
            base_dir: Folder of the job file.

        Raises:
            JobFileError: A template, a further field or a tool is wrong.
        """
        from s1batch.jobs.question import Question
        from s1batch.jobs.template import PromptTemplate

        return Question(
            prompt=PromptTemplate(self.prompt, "job.prompt"),
            note=PromptTemplate(self.note, "job.note") if self.note else None,
            system=PromptTemplate(self.system, "job.system") if self.system else None,
            schema=checked_schema(document, base_dir),
            show_schema=self.show_schema,
            guided=self.guided,
            repairs=self.repair,
            drawing=self.drawing,
            toolbox=self.toolbox(base_dir),
        )

    def further(self, *taken: str) -> dict[str, dict[str, Any]]:
        """Return `fields`.

        Args:
            taken: Names that they must not have.

        Raises:
            JobFileError: One of them has such a name.
        """
        for name in self.fields:
            if name.casefold() in taken:
                raise JobFileError(f"job.fields: {name!r} is a field that this job has already; rename it")
        return self.fields


def checked_schema(document: Mapping[str, Any], base_dir: Path) -> AnswerSchema:
    """Return a schema that a job made, with what the job file put into it.

    Raises:
        JobFileError: That is no JSON Schema.
    """
    from s1batch.jobs.answers import AnswerSchema
    from s1batch.jobs.schema import load_schema

    return AnswerSchema(load_schema(document, base_dir))


def closed_object(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an object that has all of these properties and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
