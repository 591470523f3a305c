"""The `job: {kind: ask}` block of a job file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from s1batch.jobs.drawing_spec import DrawingTask
from s1batch.jobs.tools.spec import ToolsConfig

if TYPE_CHECKING:
    from s1batch.jobs.base import Job


class AskSpec(ToolsConfig, DrawingTask):
    """A question of your own about each piece of the archive."""

    model_config = ConfigDict(populate_by_name=True)

    kind: Literal["ask"]
    prompt: str = Field(
        min_length=1, description="Jinja2 template over the fields of a table row and the lineage columns"
    )
    answer_schema: dict[str, Any] | str | None = Field(
        None,
        alias="schema",
        description="JSON Schema of the answer: a mapping, a JSON file relative to the job file, or module:Model "
        "(pydantic); left out: free text",
    )
    show_schema: bool = Field(True, description="begin the prompt with the schema")
    attach: Literal["auto", "none"] = Field(
        "auto", description="auto sends the time series or the images with the question"
    )

    @model_validator(mode="after")
    def _sends_what_it_draws(self) -> AskSpec:
        if self.attach == "none" and self.render != "series":
            raise ValueError("render has no meaning with `attach: none`, which sends no series; leave one of them out")
        return self

    @property
    def sends_series(self) -> bool:
        """Whether series are sent as such."""
        return self.attach == "auto" and self.render != "image"

    def build(self, base_dir: Path) -> Job:
        """Make the job."""
        from s1batch.jobs.answers import AnswerSchema
        from s1batch.jobs.ask import AskJob
        from s1batch.jobs.question import Question
        from s1batch.jobs.schema import load_schema
        from s1batch.jobs.template import PromptTemplate

        schema = None if self.answer_schema is None else AnswerSchema(load_schema(self.answer_schema, base_dir))
        question = Question(
            prompt=PromptTemplate(self.prompt, "job.prompt"),
            system=PromptTemplate(self.system, "job.system") if self.system else None,
            schema=schema,
            show_schema=self.show_schema,
            guided=self.guided,
            repairs=self.repair,
            attach=self.attach,
            drawing=self.drawing,
            toolbox=self.toolbox(base_dir),
        )
        return AskJob(question=question)
