"""The kinds of `source:` and `job:` blocks: what a new kind of data or task is added to."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import Field

from s1batch.jobs.ask_spec import AskSpec
from s1batch.jobs.image_describe.spec import ImageDescribeSpec
from s1batch.jobs.image_qa.spec import ImageQaSpec
from s1batch.jobs.paper_extract.spec import PaperExtractSpec
from s1batch.jobs.seismic_pick_spec import SeismicPickSpec
from s1batch.jobs.sensor_anomaly.spec import SensorAnomalySpec
from s1batch.jobs.sensor_describe.spec import SensorDescribeSpec
from s1batch.readers.images.spec import ImageSource
from s1batch.readers.join.spec import JoinSource
from s1batch.readers.papers.spec import PaperSource
from s1batch.readers.results.spec import ResultsSource
from s1batch.readers.seismic.spec import SeismicSource
from s1batch.readers.sensors.spec import SensorsSource
from s1batch.readers.tables.spec import TableSource

AnySingleSource = SeismicSource | SensorsSource | TableSource | PaperSource | ImageSource | ResultsSource
SingleSource = Annotated[AnySingleSource, Field(discriminator="kind")]
"""What a join may join."""

AnySource = AnySingleSource | JoinSource[SingleSource]
SourceSpec = Annotated[AnySource, Field(discriminator="kind")]

AnyTask = (
    SeismicPickSpec
    | AskSpec
    | SensorAnomalySpec
    | SensorDescribeSpec
    | PaperExtractSpec
    | ImageDescribeSpec
    | ImageQaSpec
)
TaskSpec = Annotated[AnyTask, Field(discriminator="kind")]


def kinds(union: Any) -> str:
    """Return the kinds of a union of blocks, as a message shows them."""
    blocks = get_args(union)
    return ", ".join(repr(tag) for block in blocks for tag in get_args(block.model_fields["kind"].annotation))
