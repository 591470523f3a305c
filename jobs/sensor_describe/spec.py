"""The `job: {kind: sensor-describe}` block of a job file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from s1batch.jobs.question_spec import QuestionConfig
from s1batch.jobs.sent_series import SERIES_NOTE

if TYPE_CHECKING:
    from s1batch.jobs.base import Job

PROMPT = (
    "Please describe this series of measurements in one short sentence, and say how it behaves: its trend, whether it "
    "repeats itself and with which period in seconds (null if it does not), and its level."
)


class SensorDescribeSpec(QuestionConfig):
    """Each window of measurements in one sentence and typed fields."""

    kind: Literal["sensor-describe"]
    prompt: str = Field(PROMPT, min_length=1, description="Jinja2 template of the question, before the series")
    note: str = Field(SERIES_NOTE, description="Jinja2 template of the text behind the series; empty leaves it out")
    levels: tuple[str, ...] = Field(
        ("low", "normal", "high", "varying"), min_length=1, description="words for the level of the values"
    )

    def build(self, base_dir: Path) -> Job:
        """Make the job."""
        from s1batch.jobs.sensor_describe.job import TAKEN, SensorDescribeJob, description_schema

        document = description_schema(self.levels, self.further(*TAKEN))
        return SensorDescribeJob(question=self.make_question(document, base_dir))
