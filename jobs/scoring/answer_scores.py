"""What is scored of the answers of a job, and what comes out: tables of numbers with their n and their intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl

from s1batch.jobs.base import Job
from s1batch.jobs.scoring.bootstrap import Estimate, Resampling
from s1batch.jobs.scoring.truth_lines import TruthLines
from s1batch.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreLine:
    """One line of a table.

    Attributes:
        name: What it is of: the results' own answers, a baseline, a field.
        n: What its numbers are shares of.
        counts: Further counts.
        estimates: The numbers.
    """

    name: str
    n: int
    counts: dict[str, int]
    estimates: dict[str, Estimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTable:
    """Lines with the same columns.

    Attributes:
        title: What is measured.
        of: What `n` counts.
        lines: The lines.
    """

    title: str
    of: str
    lines: tuple[ScoreLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All that a job's metrics found.

    Attributes:
        tables: The numbers.
        notes: What was left out, and why.
    """

    tables: tuple[ScoreTable, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What is scored.

    Attributes:
        name: The model that answered.
        rows: All rows, with the columns that the metrics ask for as far as there are any.
        job: The job, which merges.
        resampling: What intervals resample; `of_window` holds the unit of each row.
        truth: The truth; None without one.
        tolerance: Share of a true number that an answer may be off; None leaves it to the metrics.
        baselines: What to compare with; None leaves it to the metrics.
        read_again: Reads chunks again, by their keys.
        say: Receives lines for a person.
    """

    name: str
    rows: pl.DataFrame
    job: Job
    resampling: Resampling
    truth: TruthLines | None
    tolerance: float | None
    baselines: tuple[str, ...] | None
    read_again: Callable[[Sequence[str]], Iterator[Record]]
    say: Callable[[str], None]

    def answered(self) -> Any:
        """Return which rows have an answer in the schema, as a mask."""
        return (self.rows["outcome"] == "ok").to_numpy()


class AnswerMetrics(Protocol):
    """The metrics of one kind of job; pure but for `read_again`."""

    @property
    def columns(self) -> frozenset[str]:
        """The columns of rows that it looks at."""

    @property
    def needs_truth(self) -> bool:
        """Whether nothing can be said without truth."""

    @property
    def unit(self) -> str:
        """What rows have in common and intervals resample: `papers`, `images`, `streams`."""

    @property
    def valid_baselines(self) -> tuple[str, ...]:
        """What it can compare with."""

    def labels(self, rows: pl.DataFrame) -> list[str]:
        """Return which paper, image or stream each row belongs to."""

    def measure(self, answers: Answers) -> Measured:
        """Return the scores.

        Raises:
            UsageError: The truth is not understood.
        """


def first_of(rows: pl.DataFrame, *names: str) -> list[str]:
    """Return the first of these columns that says something, by row; empty text where none does."""
    present = [pl.col(name).cast(pl.String) for name in names if name in rows.columns]
    if not present:
        return [""] * rows.height
    return rows.select(pl.coalesce(present).fill_null("")).to_series().to_list()


def image_labels(rows: pl.DataFrame) -> list[str]:
    """Return the image of each row; of one without an answer, its file, or its row where the file is a table."""
    file = () if "row_index" in rows.columns else ("source_file",)
    return first_of(rows, "image", *file, "source")
