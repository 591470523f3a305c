"""The `ask` job: the user's own question, with or without a schema for the answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from s1batch.canonical import digest
from s1batch.columns import Column
from s1batch.jobs.answers import AnswerSchema, interpret_json, interpret_text
from s1batch.jobs.base import Settings
from s1batch.jobs.drawing import AS_SERIES, Drawing
from s1batch.jobs.repair import MENDED, repair_request
from s1batch.jobs.template import PromptTemplate, names_of
from s1batch.records import Answer, Message, PlanEntry, Record, Request, Response, TextPart
from s1batch.special_tokens import neutralise

if TYPE_CHECKING:
    import polars as pl

    from s1batch.jobs.tools.toolbox import Toolbox

Attach = Literal["auto", "none"]


@dataclass(frozen=True, kw_only=True)
class AskJob:
    """Asks the user's question about each record.

    Attributes:
        prompt: Template of the question.
        system: Template of a system message; None sends none.
        schema: What the answer must look like; None takes any text, which stands in the column `text`.
        show_schema: Whether the prompt begins with the schema, so that the model knows it and not only the decoder.
        guided: Whether the engine is told the schema.
        repairs: How often the model is asked to mend an answer that does not fit the schema.
        attach: `auto` sends the record's series or images behind the question; `none` keeps them out.
        drawing: Whether series are sent as such, as plots, or as both.
        toolbox: Tools that the model may call before it answers.
    """

    prompt: PromptTemplate
    system: PromptTemplate | None = None
    schema: AnswerSchema | None = None
    show_schema: bool = True
    guided: bool = True
    repairs: int = 0
    attach: Attach = "auto"
    drawing: Drawing = AS_SERIES
    toolbox: Toolbox | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """One column for each property of the schema; none without a schema."""
        return () if self.schema is None else self.schema.columns

    @property
    def prompt_hash(self) -> str:
        """Hash of the templates, the schema and what the model is told of tools."""
        system = self.system.source if self.system else None
        schema = self.schema.text if self.schema else None
        tools = [self.toolbox.text, self.toolbox.choice, self.toolbox.max_turns] if self.toolbox else []
        drawn = self.drawing.identity
        return digest([system, self.prompt.source, schema, self.show_schema, self.guided, self.attach, *tools, *drawn])

    def sends(self, entry: PlanEntry) -> PlanEntry:
        """Return the entry with the media that are sent: none without `attach`, plots in place of series."""
        if self.attach == "none":
            return replace(entry, series=None, further_series=(), images=0, image_sizes=())
        return self.drawing.sends(entry)

    def outline(self, entry: PlanEntry) -> str:
        """Return the prompt as it is written; the plan knows no values, only how long they are."""
        before = [self.system.source] if self.system else []
        before += [self.toolbox.text] if self.toolbox else []
        return "\n".join([*before, self._schema_text() + self.prompt.source])

    @property
    def pieces(self) -> tuple[str | None, ...]:
        """System message, tools, schema, question; then the media."""
        before = self.system.pieces if self.system else ()
        tools = (self.toolbox.text,) if self.toolbox else ()
        return (*before, *tools, self._schema_text(), *self.prompt.pieces, None)

    def prepare(self, record: Record, settings: Settings) -> Request:
        """Build the request: what all records share, the question, then the series or images.

        Raises:
            SourceError: A template fails on this record, or its series cannot be drawn.
        """
        names = names_of(record, self.prompt.names | (self.system.names if self.system else frozenset()))
        question = self.prompt.render(names)
        shared, neutralised = neutralise(self._schema_text())
        neutralised += question.neutralised
        media = self.drawing.parts(record) if self.attach == "auto" else ()
        text = TextPart(text=shared + question.text + ("\n" if media else ""))
        messages = [Message(role="user", parts=(text, *media))]
        if self.system is not None:
            system = self.system.render(names)
            messages.insert(0, Message(role="system", parts=(TextPart(text=system.text),)))
            neutralised += system.neutralised
        return Request(
            messages=tuple(messages),
            sampling=settings.sampling,
            model=settings.model,
            seed=settings.seed,
            schema=self.schema.document if self.guided and self.schema is not None else None,
            neutralised=neutralised,
            tools=self.toolbox.tools if self.toolbox else (),
            tool_choice=self.toolbox.choice if self.toolbox else "auto",
        )

    @property
    def checks_values(self) -> bool:
        """False: the answer alone decides."""
        return False

    def interpret(self, record: Record, response: Response) -> Answer:
        """Turn a response into the schema's fields, or judge its text where there is no schema."""
        return interpret_text(response) if self.schema is None else interpret_json(response, self.schema)

    def repair(self, request: Request, response: Response, answer: Answer) -> Request | None:
        """Return the question that asks for an answer in the schema; None when that is not what is wrong."""
        if self.schema is None or answer.outcome != "unparsed" or answer.reason not in MENDED:
            return None
        return repair_request(request, response, answer.detail, "" if self.show_schema else self._form())

    def places(self, fields: Mapping[str, Any]) -> None:
        """Return None: what the answer to a free question says about places is not known."""

    @property
    def merge_columns(self) -> frozenset[str]:
        """None: answers to a free question are not merged."""
        return frozenset()

    def merge(self, rows: pl.DataFrame) -> None:
        """Return None: answers to a free question are not merged."""

    def merge_pieces(self, pieces: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Yield nothing: answers to a free question are not merged."""
        return iter(())

    def _schema_text(self) -> str:
        if self.schema is None or not self.show_schema:
            return ""
        return self._form() + "\n"

    def _form(self) -> str:
        text = "" if self.schema is None else self.schema.text
        return f"Answer with one JSON object that fits this JSON Schema, and nothing else:\n{text}\n"
