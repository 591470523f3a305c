"""The `source: {kind: results}` block of a job file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from s1batch.config import OneOrSeveral, Texts, placement
from s1batch.readers.spec import ReaderSetting, SourceConfig
from s1batch.records import Outcome

if TYPE_CHECKING:
    from s1batch.readers.base import Reader


class ResultsSource(SourceConfig):
    """The rows of another run: each row is one question, or each group of rows."""

    kind: Literal["results"]
    path: str = placement(description="results folder of the other run, relative to the job file")
    outcomes: Annotated[tuple[Outcome, ...], OneOrSeveral] = Field(
        ("ok",), min_length=1, description="rows with other outcomes are not selected"
    )
    merged: bool = Field(False, description="the answers merged over overlaps, in place of the rows")
    columns: Texts | None = Field(None, min_length=1, description="the columns that the prompt may use; left out: all")
    group_by: Texts = Field(
        (), description="one question for each group of rows with the same values here; left out: one for each row"
    )
    order_by: Texts = Field(
        (), description="order of the rows in a group; a minus before a name turns it round; left out: that of the plan"
    )
    max_rows: int = Field(64, ge=1, le=4096, description="most rows of one question; larger groups are cut")
    partial: bool = Field(False, description="take what is finished of a run that is not complete")

    @model_validator(mode="after")
    def _check(self) -> ResultsSource:
        fields = ResultsSource.model_fields
        if self.merged and self.outcomes != fields["outcomes"].default:
            raise ValueError("outcomes has no meaning with `merged: true`: merged answers have none; leave it out")
        for field in ("order_by", "max_rows"):
            if not self.group_by and getattr(self, field) != fields[field].default:
                raise ValueError(f"{field} has no meaning without group_by; leave it out")
        return self

    def build(self, setting: ReaderSetting) -> Reader:
        """Make the reader of results."""
        from s1batch.readers.results.reader import ResultsReader

        return ResultsReader(self, setting.base_dir)
