"""The `job: {kind: ask}` block of a job file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from s1batch.errors import JobFileError
from s1batch.jobs.drawing_spec import DrawingTask

if TYPE_CHECKING:
    from s1batch.jobs.base import Job
    from s1batch.jobs.tools.toolbox import Toolbox


class AskSpec(DrawingTask):
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
    tools: tuple[str, ...] = Field(
        (),
        max_length=64,
        description="functions that the model may call before it answers: calculate, convert_units, travel_times, "
        "series_statistics, series_spectrum, or your own as module:function; they run on this machine",
    )
    tool_choice: str = Field(
        "auto",
        min_length=1,
        description="whether the first answer must be a call: auto, required, or the name of a tool; others are free",
    )
    max_turns: int = Field(
        4, ge=2, le=64, description="most questions of one row when tools are called; in the last one none may be"
    )
    tool_timeout_s: float = Field(30.0, gt=0, le=3600, description="longest run of a tool; the model is then told so")

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
        from s1batch.jobs.schema import load_schema
        from s1batch.jobs.template import PromptTemplate

        schema = None if self.answer_schema is None else AnswerSchema(load_schema(self.answer_schema, base_dir))
        return AskJob(
            prompt=PromptTemplate(self.prompt, "job.prompt"),
            system=PromptTemplate(self.system, "job.system") if self.system else None,
            schema=schema,
            show_schema=self.show_schema,
            guided=self.guided,
            repairs=self.repair,
            attach=self.attach,
            drawing=self.drawing,
            toolbox=_toolbox(self, base_dir),
        )


def _toolbox(spec: AskSpec, base_dir: Path) -> Toolbox | None:
    from s1batch.jobs.tools.toolbox import Toolbox, load_tools

    if not spec.tools:
        if spec.tool_choice != "auto":
            raise JobFileError(
                f"job.tool_choice: {spec.tool_choice!r} without job.tools: name the tools, or leave it out"
            )
        return None
    return Toolbox(
        functions=load_tools(spec.tools, base_dir),
        choice=spec.tool_choice,
        max_turns=spec.max_turns,
        timeout_s=spec.tool_timeout_s,
    )
