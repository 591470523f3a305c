"""The `job: {kind: seismic-pick}` block of a job file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from s1batch.jobs.seismic_pick import NOTE, PROMPT
from s1batch.jobs.spec import TaskConfig

if TYPE_CHECKING:
    from s1batch.jobs.base import Job


class SeismicPickSpec(TaskConfig):
    """Whether each window holds an earthquake, and where its P and S waves begin."""

    needs_waveforms: ClassVar[bool] = True
    names_places: ClassVar[bool] = True

    kind: Literal["seismic-pick"]
    prompt: str = Field(PROMPT, min_length=1, description="Jinja2 template of the text before the series")
    note: str = Field(NOTE, description="Jinja2 template of the text behind the series; empty leaves it out")
    merge_tolerance_s: float = Field(
        0.5, ge=0, le=60, description="picks of one phase at one station this close, in seconds, are merged"
    )

    def build(self, base_dir: Path) -> Job:
        """Make the job."""
        from s1batch.jobs.seismic_pick import SeismicPickJob
        from s1batch.jobs.template import PromptTemplate

        return SeismicPickJob(
            prompt=PromptTemplate(self.prompt, "job.prompt"),
            note=PromptTemplate(self.note, "job.note") if self.note else None,
            system=PromptTemplate(self.system, "job.system") if self.system else None,
            guided=self.guided,
            repairs=self.repair,
            merge_tolerance_s=self.merge_tolerance_s,
        )
