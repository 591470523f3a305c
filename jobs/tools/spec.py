"""The fields of `job:` blocks whose model may call tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from s1batch.errors import JobFileError
from s1batch.jobs.spec import TaskConfig

if TYPE_CHECKING:
    from s1batch.jobs.tools.toolbox import Toolbox


class ToolsConfig(TaskConfig):
    """A `job:` block with tools."""

    tools: tuple[str, ...] = Field(
        (),
        max_length=64,
        description="functions that the model may call before it answers: calculate, convert_units, travel_times, "
        "series_statistics, series_spectrum, or your own as module:function; they run on this machine",
    )
    tool_choice: str = Field(
        "auto",
        min_length=1,
        description="whether the first answer must be a call: auto, required, or the name of a tool; others are free",
    )
    max_turns: int = Field(
        4, ge=2, le=64, description="most questions of one row when tools are called; in the last one none may be"
    )
    tool_timeout_s: float = Field(30.0, gt=0, le=3600, description="longest run of a tool; the model is then told so")

    def toolbox(self, base_dir: Path) -> Toolbox | None:
        """Load the tools; None when none are named.

        Raises:
            JobFileError: One of them cannot be loaded, or a choice is made among none.
        """
        from s1batch.jobs.tools.toolbox import Toolbox, load_tools

        if not self.tools:
            if self.tool_choice != "auto":
                raise JobFileError(
                    f"job.tool_choice: {self.tool_choice!r} without job.tools: name the tools, or leave it out"
                )
            return None
        return Toolbox(
            functions=load_tools(self.tools, base_dir),
            choice=self.tool_choice,
            max_turns=self.max_turns,
            timeout_s=self.tool_timeout_s,
        )
