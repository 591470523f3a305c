"""The seam between s1batch and a science task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from s1batch.columns import Column
from s1batch.records import Answer, ModelIdentity, PlanEntry, Record, Request, Response, Sampling

if TYPE_CHECKING:
    import polars as pl

    from s1batch.jobs.tools.toolbox import Toolbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a job needs to know to resolve a request: the model that will answer, and how it samples."""

    model: ModelIdentity
    sampling: Sampling
    seed: int = 0


@runtime_checkable
class ChoosesMedia(Protocol):
    """What a job has besides that does not send every series and image of a record as it is."""

    def sends(self, entry: PlanEntry) -> PlanEntry:
        """Return the entry with the series and images that the question really holds; pure.

        Only `series`, `further_series`, `images` and `image_sizes` may differ.
        """


class Job(Protocol):
    """Turns records into requests and responses into typed answers; pure, picklable, without state."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The answer's columns; every `Answer.fields` holds a subset of these."""

    @property
    def prompt_hash(self) -> str:
        """Hash of the templates, the schema and what the model is told of tools."""

    @property
    def names(self) -> frozenset[str]:
        """The names that the templates use."""

    def outline(self, entry: PlanEntry) -> str:
        """Return the text of the prompt as far as it is known before reading (for counting tokens)."""

    @property
    def pieces(self) -> tuple[str | None, ...]:
        """The prompt in the order in which the model gets it: constant text, and None for each thing that varies."""

    def prepare(self, record: Record, settings: Settings) -> Request:
        """Build the request.

        Raises:
            SourceError: This record cannot be asked about (a template that fails on it): becomes a `refused` row.
        """

    @property
    def checks_values(self) -> bool:
        """Whether `interpret` looks at the plain values of the record's payload, which are then kept until it ends."""

    def interpret(self, record: Record, response: Response) -> Answer:
        """Turn a response without error into an answer.

        `record` comes without its payload, or with its plain values alone where the job checks them.
        """

    @property
    def guided(self) -> bool:
        """Whether the engine shall force answers into the schema, where there is one."""

    @property
    def repairs(self) -> int:
        """How often the model is asked to mend an answer that does not fit."""

    def repair(self, request: Request, response: Response, answer: Answer) -> Request | None:
        """Return the question that asks the model to mend its answer; pure.

        Args:
            request: The question.
            response: The model's answer.
            answer: What `interpret` made of it.

        Returns:
            None when there is nothing to mend, or nothing that asking again would mend.
        """

    def places(self, fields: Mapping[str, Any]) -> tuple[int | tuple[int, int], ...] | None:
        """Return where a closer look is worth it, when a scan at a low rate was answered so; pure.

        Args:
            fields: The answer's columns of a row that is `ok`, as they are stored (times are integers of ns).

        Returns:
            Places or half-open ranges, in ns where the chunk has times, else in the units of its first slice; empty for
            nowhere; None when the answer does not say where, which means everywhere.
        """

    @property
    def toolbox(self) -> Toolbox | None:
        """The tools that the model may call; None when there are none. `prepare` puts them into the request."""

    @property
    def merge_columns(self) -> frozenset[str]:
        """The columns that `merge` looks at, where results have them; none when there is nothing to merge."""

    def merge(self, rows: pl.DataFrame) -> pl.DataFrame | None:
        """Merge the answers of overlapping chunks; None when the job has nothing to merge."""

    def merge_pieces(self, pieces: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Yield what `merge` of all pieces together would return, in pieces; for archives of any size.

        Args:
            pieces: Rows in the order of the plan, the columns `merge_columns` of them; may be gone through again.
        """
