"""The fields of a `job:` block that may draw the series it asks about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from s1batch.jobs.spec import TaskConfig

if TYPE_CHECKING:
    from s1batch.jobs.drawing import Drawing

Width = Annotated[int, Field(ge=300, le=4096)]
Height = Annotated[int, Field(ge=200, le=4096)]


class DrawingTask(TaskConfig):
    """A task whose series may be sent as plots."""

    render: Literal["series", "image", "both"] = Field(
        "series",
        description="send time series as they are, as a plot drawn by this program, or as both (where the engine takes "
        "both in one request)",
    )
    plot: Literal["waveform", "spectrogram", "recurrence"] = Field(
        "waveform",
        description="what is drawn: the samples, their spectrogram, or where the series comes back to itself",
    )
    plot_size: tuple[Width, Height] = Field((896, 672), description="width and height of a plot in pixels")

    @model_validator(mode="after")
    def _draws(self) -> DrawingTask:
        for field in ("plot", "plot_size"):
            if self.render == "series" and getattr(self, field) != DrawingTask.model_fields[field].default:
                raise ValueError(f"{field} has no meaning with `render: series`; set render: image or both")
        return self

    @property
    def sends_series(self) -> bool:
        """Whether series are sent as such."""
        return self.render != "image"

    @property
    def drawing(self) -> Drawing:
        """How the job's series are sent."""
        from s1batch.jobs.drawing import Drawing

        return Drawing(render=self.render, plot=self.plot, size_px=self.plot_size)
