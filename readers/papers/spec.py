"""The `source: {kind: papers}` block of a job file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from s1batch.config import Config, Texts, placement
from s1batch.readers.spec import ReaderSetting, SourceConfig

if TYPE_CHECKING:
    from s1batch.readers.base import Reader

Unit = Literal["tokens", "words", "chars"]

PaperFormatName = Literal["jsonl", "json", "parquet", "pdf", "xml", "latex", "markdown", "text"]


def _whole_or_mapping(value: object) -> object:
    return {"whole": True} if value == "whole" else value


class FieldNames(Config):
    """Where a record of a corpus has what, as names with dots between levels; left out: the usual names are tried."""

    id: str | None = Field(None, description="identity of the paper; usual: id, corpusid, paper_id, ...")
    title: str | None = None
    text: Texts | None = Field(
        None, min_length=1, description="the text, or several fields that are joined; usual: text, content.text, ..."
    )
    year: str | None = None
    doi: str | None = None


class PassageSpec(Config):
    """How papers are cut; `passages: whole` is short for `{whole: true}`."""

    whole: bool = Field(False, description="ask about whole papers")
    tokens: int = Field(4000, ge=16, description="longest passage, in `unit`, overlap included")
    overlap: int = Field(200, ge=0, description="how much of the passage before is repeated at most, in `unit`")
    unit: Unit = Field("tokens", description="tokens of the model that answers, words, or chars")
    join_sections: bool = Field(True, description="let a passage hold several short sections; false: never")
    too_long: Literal["refuse", "split"] = Field(
        "refuse", description="whole papers that are longer than the context: refused by the plan, or cut"
    )
    longest: int | None = Field(
        None,
        ge=16,
        description="`too_long: split` cuts papers of more tokens (default: the context less 1,000 and the answer)",
    )

    @model_validator(mode="after")
    def _check(self) -> PassageSpec:
        if self.whole:
            if alien := self._changed("tokens", "unit", "join_sections"):
                raise ValueError(f"passages of whole papers have no {', '.join(alien)}")
            if self.longest is not None and self.too_long != "split":
                raise ValueError("passages.longest is for `too_long: split`")
        elif alien := self._changed("too_long", "longest"):
            raise ValueError(f"passages.{alien[0]} is for `whole: true`")
        elif 2 * self.overlap > self.tokens:
            raise ValueError(f"passages.overlap is {self.overlap}: at most half of passages.tokens ({self.tokens})")
        return self

    def _changed(self, *names: str) -> list[str]:
        """Return which fields differ from their defaults; a run stores all of them, and reads them again."""
        return [name for name in names if getattr(self, name) != type(self).model_fields[name].default]


class PaperSource(SourceConfig):
    """Papers, whole or in passages; exactly one of `paths` and `manifest` says where they are."""

    kind: Literal["papers"]
    paths: Texts | None = Field(None, min_length=1, description="files or globs, relative to the job file")
    manifest: str | None = Field(None, description="CSV or Parquet with a column `path`, relative to its folder")
    root: str | None = placement(
        None, description="what paths are kept relative to (default: the deepest common folder)"
    )
    format: Literal["auto"] | PaperFormatName = Field(
        "auto",
        description="auto goes by the name: .jsonl .ndjson .json (also .gz, .zst), .parquet, .pdf, .xml .nxml .tei, "
        ".tex, .md, .txt",
    )
    fields: FieldNames = Field(FieldNames(), description="names of a corpus's fields, where they are unusual")
    passages: Annotated[PassageSpec, BeforeValidator(_whole_or_mapping)] = Field(
        PassageSpec(), description="how papers are cut, or `whole`"
    )
    figures: bool = Field(False, description="send the images of a PDF with the passages of their pages")
    figure_pixels: int = Field(
        100, ge=1, description="smallest width and height of a figure; below are logos and rules"
    )
    most_figures: int = Field(8, ge=1, le=64, description="most figures of a passage; of more, the largest are sent")
    pdf_timeout_s: float = placement(60.0, gt=0, description="longest that one PDF may take; then it is unreadable")
    pdf_processes: int | None = placement(None, ge=1, le=64, description="processes that read PDF (default: 1 to 4)")
    cache: str | None = placement(
        None,
        description="folder that remembers where papers were cut, or `off` (default: in the user's cache folder)",
    )

    @model_validator(mode="after")
    def _check(self) -> PaperSource:
        if (self.paths is None) == (self.manifest is None):
            raise ValueError("give exactly one of paths and manifest")
        return self

    def build(self, setting: ReaderSetting) -> Reader:
        """Make the reader of papers."""
        from s1batch.readers.papers.reader import PaperReader

        return PaperReader(self, setting)
