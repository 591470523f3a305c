"""What jobs that ask one question have in common; each brings its own schema and says what an answer means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from s1batch.canonical import digest
from s1batch.columns import Column
from s1batch.jobs.question import Question
from s1batch.records import Answer, PlanEntry, Record, Request, Response

if TYPE_CHECKING:
    import polars as pl

    from s1batch.jobs.answers import AnswerSchema
    from s1batch.jobs.base import Settings
    from s1batch.jobs.tools.toolbox import Toolbox


class QuestionJob(ABC):
    """The parts of the `Job` seam that follow from the question alone."""

    question: Question

    @property
    @abstractmethod
    def columns(self) -> tuple[Column, ...]:
        """The answer's columns."""

    @abstractmethod
    def interpret(self, record: Record, response: Response) -> Answer:
        """Turn a response without error into an answer."""

    @property
    def schema(self) -> AnswerSchema:
        """The schema of the answer, which jobs with fields of their own have always."""
        if self.question.schema is None:
            raise ValueError(f"{type(self).__name__} was made without a schema")
        return self.question.schema

    @property
    def prompt_hash(self) -> str:
        """Hash of the templates, the schema and what the model is told of tools."""
        return digest(self.question.identity)

    @property
    def names(self) -> frozenset[str]:
        """The names that the templates use."""
        return self.question.names

    def outline(self, entry: PlanEntry) -> str:
        """Return the prompt with what the plan knows."""
        names: dict[str, Any] = {}
        if entry.series is not None:
            names = {"steps": entry.series.steps, "rate_sent_hz": entry.series.rate_hz}
        return self.question.outline(names)

    def sends(self, entry: PlanEntry) -> PlanEntry:
        """Return the entry with the series and images that the question really holds."""
        return self.question.sends(entry)

    @property
    def pieces(self) -> tuple[str | None, ...]:
        """System message, tools, schema, question; then the media; then the note."""
        return self.question.pieces

    def prepare(self, record: Record, settings: Settings) -> Request:
        """Build the request.

        Raises:
            SourceError: A template fails on this record.
        """
        return self.question.request(record, settings)

    @property
    def checks_values(self) -> bool:
        """Whether `interpret` looks at the plain values of the record."""
        return False

    @property
    def guided(self) -> bool:
        """Whether the engine is told the schema."""
        return self.question.guided

    @property
    def repairs(self) -> int:
        """How often the model is asked to mend an answer that does not fit."""
        return self.question.repairs

    def repair(self, request: Request, response: Response, answer: Answer) -> Request | None:
        """Return the question that asks for an answer that fits; None when that is not what is wrong."""
        return self.question.repair(request, response, answer)

    def places(self, fields: Mapping[str, Any]) -> tuple[int | tuple[int, int], ...] | None:
        """Return None: the answer names no places."""
        return None

    @property
    def toolbox(self) -> Toolbox | None:
        """The tools that the model may call."""
        return self.question.toolbox

    @property
    def merge_columns(self) -> frozenset[str]:
        """None: answers are not merged."""
        return frozenset()

    def merge(self, rows: pl.DataFrame) -> pl.DataFrame | None:
        """Return None: answers are not merged."""
        return None

    def merge_pieces(self, pieces: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Yield nothing: answers are not merged."""
        return iter(())
