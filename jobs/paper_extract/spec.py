"""The `job: {kind: paper-extract}` block of a job file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from s1batch.jobs.question_spec import QuestionConfig

if TYPE_CHECKING:
    from s1batch.jobs.base import Job

PROMPT = (
    "Please extract the claims of this passage of a scientific paper: what it says was found, measured, done or known. "
    "Give with each claim the quote that supports it, copied letter by letter from the passage, without any words left "
    "out; the claim in one sentence of its own, with every number as it stands in the quote; its kind; and the value "
    "and unit that it is about (null if there is none). Extract nothing that the passage does not say."
)

NOTE = (
    "{% if title is defined and title %}Title: {{ title }}\n{% endif %}"
    "{% if section is defined and section %}Section: {{ section }}\n{% endif %}"
    "Passage:\n{{ text }}"
)


class PaperExtractSpec(QuestionConfig):
    """The claims of each passage of a paper, with quotes that are checked against it."""

    kind: Literal["paper-extract"]
    prompt: str = Field(PROMPT, min_length=1, description="Jinja2 template of the question, before the passage")
    note: str = Field(NOTE, description="Jinja2 template of the passage; `text` is what quotes are checked against")
    text_field: str = Field("text", min_length=1, description="field that holds the passage")
    kinds: tuple[str, ...] = Field(
        ("result", "method", "background", "hypothesis", "limitation", "other"),
        min_length=1,
        description="kinds of claims to tell apart",
    )
    max_claims: int = Field(20, ge=1, le=1000, description="most claims of one answer")
    require_quotes: bool = Field(
        False, description="send answers back whose quotes are not in the passage (`repair` says how often)"
    )

    def build(self, base_dir: Path) -> Job:
        """Make the job."""
        from s1batch.jobs.paper_extract.job import TAKEN, PaperExtractJob, claims_schema

        document = claims_schema(self.kinds, self.max_claims, self.further(*TAKEN))
        return PaperExtractJob(
            question=self.make_question(document, base_dir),
            text_field=self.text_field,
            require_quotes=self.require_quotes,
        )
