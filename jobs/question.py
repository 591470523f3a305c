"""A question about one record, from its templates to the request: what all jobs that ask in words share.

    [system message]   form of the answer + prompt  ->  media  ->  note

What all records share stands first (the schema, the question), so that engines keep it in their caches; the media and
the note about them, which differ from record to record, follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from s1batch.errors import SourceError
from s1batch.jobs.answers import AnswerSchema
from s1batch.jobs.drawing import AS_SERIES, Drawing
from s1batch.jobs.messages import messages_of
from s1batch.jobs.repair import MENDED, repair_request
from s1batch.jobs.template import PromptTemplate, names_of
from s1batch.records import Answer, Fields, Part, PlanEntry, Record, Request, Response, TextPart
from s1batch.special_tokens import neutralise

if TYPE_CHECKING:
    from s1batch.jobs.base import Settings
    from s1batch.jobs.tools.toolbox import Toolbox

Attach = Literal["auto", "none"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """How a record is asked about.

    Attributes:
        prompt: Template of the question, before the media.
        note: Template of the text behind the media; None leaves it out.
        system: Template of a system message; None sends none.
        schema: What the answer must look like; None takes any text.
        show_schema: Whether the prompt begins with the schema, so that the model knows it and not only the decoder.
        guided: Whether the engine is told the schema.
        repairs: How often the model is asked to mend an answer that does not fit.
        attach: `auto` sends the record's series and images; `none` keeps them out.
        drawing: Whether series are sent as such, as plots, or as both.
        toolbox: Tools that the model may call before it answers.
    """

    prompt: PromptTemplate
    note: PromptTemplate | None = None
    system: PromptTemplate | None = None
    schema: AnswerSchema | None = None
    show_schema: bool = True
    guided: bool = True
    repairs: int = 0
    attach: Attach = "auto"
    drawing: Drawing = AS_SERIES
    toolbox: Toolbox | None = None

    @property
    def identity(self) -> list[Any]:
        """All that is the same for each record and can change an answer; what a job hashes."""
        system = self.system.source if self.system else None
        schema = self.schema.text if self.schema else None
        tools = [self.toolbox.text, self.toolbox.choice, self.toolbox.max_turns] if self.toolbox else []
        note = [{"note": self.note.source}] if self.note else []
        drawn = self.drawing.identity
        return [system, self.prompt.source, schema, self.show_schema, self.guided, self.attach, *tools, *note, *drawn]

    @property
    def names(self) -> frozenset[str]:
        """The names that the templates use."""
        templates = (self.prompt, self.note, self.system)
        return frozenset().union(*(template.names for template in templates if template is not None))

    def sends(self, entry: PlanEntry) -> PlanEntry:
        """Return the entry with the media that are sent: none without `attach`, plots in place of series."""
        if self.attach == "none":
            return replace(entry, series=None, further_series=(), images=0, image_sizes=())
        return self.drawing.sends(entry)

    def outline(self, known: Mapping[str, Any] | None = None) -> str:
        """Return the prompt before reading; a template that needs more than what is known stands as it is written."""
        before = [_as_known(self.system, known)] if self.system else []
        before += [self.toolbox.text] if self.toolbox else []
        note = [_as_known(self.note, known)] if self.note else []
        return "\n".join([*before, self.schema_text() + _as_known(self.prompt, known), *note])

    @property
    def pieces(self) -> tuple[str | None, ...]:
        """System message, tools, schema, question; then the media; then the note."""
        before = self.system.pieces if self.system else ()
        tools = (self.toolbox.text,) if self.toolbox else ()
        after = self.note.pieces if self.note else ()
        return (*before, *tools, self.schema_text(), *self.prompt.pieces, None, *after)

    def request(
        self,
        record: Record,
        settings: Settings,
        *,
        schema: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> Request:
        """Build the request.

        Args:
            record: The record, with its payload.
            settings: The model and its sampling.
            schema: The schema that the engine is told, where it is narrower for this record than that of the job.
            more: The job's own names for the templates, which go before those of the record.

        Raises:
            SourceError: A template fails on this record, or its series cannot be drawn.
        """
        names = {**names_of(record, self.names), **(more or {})}
        media = self.drawing.parts(record) if self.attach == "auto" else ()
        question = self.prompt.render(names)
        shared, neutralised = neutralise(self.schema_text())
        neutralised += question.neutralised
        break_after = "\n" if media or self.note is not None else ""
        parts: list[Part] = [TextPart(text=shared + question.text + break_after), *media]
        messages, elsewhere = messages_of(parts, note=self.note, system=self.system, names=names)
        wanted = None
        if self.guided and self.schema is not None:
            wanted = schema if schema is not None else self.schema.document
        return Request(
            messages=messages,
            sampling=settings.sampling,
            model=settings.model,
            seed=settings.seed,
            schema=wanted,
            neutralised=neutralised + elsewhere,
            tools=self.toolbox.tools if self.toolbox else (),
            tool_choice=self.toolbox.choice if self.toolbox else "auto",
        )

    def repair(self, request: Request, response: Response, answer: Answer) -> Request | None:
        """Return the question that asks for an answer in the schema; None when that is not what is wrong."""
        if self.schema is None or answer.outcome != "unparsed" or answer.reason not in MENDED:
            return None
        return repair_request(request, response, answer.detail, "" if self.show_schema else self._form())

    def schema_text(self) -> str:
        """Return what the prompt says about the form of the answer; empty where it says nothing."""
        if self.schema is None or not self.show_schema:
            return ""
        return self._form() + "\n"

    def _form(self) -> str:
        text = "" if self.schema is None else self.schema.text
        return f"Answer with one JSON object that fits this JSON Schema, and nothing else:\n{text}\n"


def value_of(record: Record, name: str, otherwise: Any = None) -> Any:
    """Return what a record says under a name: its lineage, else its plain values; None counts as not said."""
    found = record.lineage.get(name)
    if found is None and isinstance(record.payload, Fields):
        found = record.payload.values.get(name)
    return otherwise if found is None else found


def number_of(record: Record, name: str) -> float | None:
    """Return the number that a record says under a name; tables of text hold numbers as text. None where it is none."""
    try:
        return float(value_of(record, name))
    except (TypeError, ValueError):
        return None


def row_name(record: Record) -> str:
    """Return a name for what was read: the file, and the number of the row in a table."""
    path = value_of(record, "source_file", record.chunk.inputs[0].path if record.chunk.inputs else "")
    row = record.lineage.get("row_index")
    return str(path) if row is None else f"{path}:{row}"


def _as_known(template: PromptTemplate, known: Mapping[str, Any] | None) -> str:
    if known is None:
        return template.source
    try:
        return template.render(known).text
    except SourceError:
        return template.source
