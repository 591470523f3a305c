"""The `job: {kind: image-describe}` block of a job file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from s1batch.jobs.question_spec import QuestionConfig

if TYPE_CHECKING:
    from s1batch.jobs.base import Job

PROMPT = (
    "Please describe this image in one or two sentences, and list the objects in it. Leave out what cannot be seen; "
    "give no objects if there are none."
)

NOTE = (
    "{% if locate == 'none' %}Name each object by a label of one or two words."
    "{% else %}Name each object by a label of one or two words, and its place: "
    "{% if locate == 'box' %}box [left, top, right, bottom]{% else %}point [x, y]{% endif %}, counted from the upper "
    "left corner, where the whole image is {{ scale_width }} wide and {{ scale_height }} high.{% endif %}"
)


class ImageDescribeSpec(QuestionConfig):
    """Each image in a caption, with the objects in it and their places."""

    kind: Literal["image-describe"]
    prompt: str = Field(PROMPT, min_length=1, description="Jinja2 template of the question, before the image")
    note: str = Field(NOTE, description="Jinja2 template of the text behind the image; empty leaves it out")
    locate: Literal["box", "point", "none"] = Field("box", description="how objects are placed")
    coordinates: Literal["pixels", "per_mille"] = Field(
        "pixels",
        description="what the model counts in: pixels of the image as sent, or thousandths of its width and height",
    )
    labels: tuple[str, ...] | None = Field(None, min_length=1, description="labels to choose from; left out: any")
    max_objects: int = Field(50, ge=1, le=1000, description="most objects of one answer")
    merge_iou: float = Field(
        0.5, gt=0, le=1, description="boxes of one label in overlapping tiles that overlap so much (IoU) are one object"
    )

    def build(self, base_dir: Path) -> Job:
        """Make the job."""
        from s1batch.jobs.image_describe.job import TAKEN, ImageDescribeJob, Objects

        objects = Objects(
            locate=self.locate, labels=self.labels, max_objects=self.max_objects, fields=self.further(*TAKEN)
        )
        return ImageDescribeJob(
            question=self.make_question(objects.schema(None), base_dir),
            objects=objects,
            per_mille=self.coordinates == "per_mille",
            merge_iou=self.merge_iou,
        )
