"""The `job: {kind: sensor-anomaly}` block of a job file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from s1batch.jobs.question_spec import QuestionConfig
from s1batch.jobs.sent_series import SERIES_NOTE

if TYPE_CHECKING:
    from s1batch.jobs.base import Job

PROMPT = (
    "Please determine whether this series of measurements holds an anomaly: samples that its usual behaviour does not "
    "explain. If so, name each anomalous interval by its first and last sample, counted from 0 at the start of the "
    "series, the channel that shows it (null: all of them), its kind, and the reason in a few words. If not, give no "
    "intervals."
)


class SensorAnomalySpec(QuestionConfig):
    """Whether each window of measurements holds an anomaly, and where."""

    names_places: ClassVar[bool] = True

    kind: Literal["sensor-anomaly"]
    prompt: str = Field(PROMPT, min_length=1, description="Jinja2 template of the question, before the series")
    note: str = Field(SERIES_NOTE, description="Jinja2 template of the text behind the series; empty leaves it out")
    kinds: tuple[str, ...] = Field(
        ("spike", "step", "drift", "dropout", "noise", "pattern", "other"),
        min_length=1,
        description="kinds of anomalies to tell apart",
    )
    max_intervals: int = Field(16, ge=1, le=1000, description="most intervals of one answer")
    merge_gap_s: float = Field(
        0.0,
        ge=0,
        description="intervals of one channel this close, in seconds (in samples where there are no times), are merged",
    )

    def build(self, base_dir: Path) -> Job:
        """Make the job."""
        from s1batch.jobs.sensor_anomaly.job import TAKEN, SensorAnomalyJob, anomaly_schema

        fields = self.further(*TAKEN)
        document = anomaly_schema(self.kinds, self.max_intervals, fields)
        return SensorAnomalyJob(
            question=self.make_question(document, base_dir),
            kinds=self.kinds,
            max_intervals=self.max_intervals,
            fields=fields,
            merge_gap_s=self.merge_gap_s,
        )
