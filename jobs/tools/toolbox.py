"""The tools of a job, and how they may be used."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s1batch.errors import JobFileError
from s1batch.jobs.imports import import_named
from s1batch.jobs.tools.function import LONGEST_ERROR, ToolError, ToolFunction
from s1batch.records import Record, Tool, ToolCall
from s1batch.special_tokens import neutralise

BUILT_IN = {
    "calculate": "s1batch.jobs.tools.arithmetic:calculate",
    "convert_units": "s1batch.jobs.tools.arithmetic:convert_units",
    "travel_times": "s1batch.jobs.tools.seismology:travel_times",
    "series_statistics": "s1batch.jobs.tools.series:series_statistics",
    "series_spectrum": "s1batch.jobs.tools.series:series_spectrum",
}
"""The tools that a job file can name without a module. They read no data, open no connections, run no code."""

LONGEST_RESULT = 20_000
"""Characters of a result; a longer one is not cut but refused, and the model told so."""

_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class Toolbox:
    """Tools, and the bounds within which the model may call them.

    Attributes:
        functions: The tools; their names differ.
        choice: Whether the first answer must be a call: `auto`, `required`, or the name of a tool. Later answers are
            free, but for the last one.
        max_turns: Most questions of one row; in the last one no tool may be called.
        timeout_s: Longest run of a tool.
    """

    functions: tuple[ToolFunction, ...]
    choice: str = "auto"
    max_turns: int = 4
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        names = [each.name for each in self.functions]
        if len(set(names)) < len(names):
            raise JobFileError(f"job.tools: two tools have one name: {', '.join(sorted(names))}")
        if self.choice not in ("auto", "required", *names):
            raise JobFileError(
                f"job.tool_choice: {self.choice!r} is not valid (valid: auto, required, {', '.join(names)})"
            )
        if self.max_turns < 2:
            raise JobFileError("job.max_turns: a call and the answer after it take 2 turns")

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What the model is told."""
        return tuple(each.tool for each in self.functions)

    @property
    def text(self) -> str:
        """What the model is told, as text."""
        return "\n".join(tool.text for tool in self.tools)

    def run(self, call: ToolCall, record: Record) -> str:
        """Run a tool; what it raises is part of its answer.

        Args:
            call: The model's call, which may name and say anything.
            record: The row in question, with its payload.

        Returns:
            What the model is told, without the model's special tokens.

        Raises:
            ToolError: There is no result; the text is for the model.
        """
        function = next((each for each in self.functions if each.name == call.name), None)
        if function is None:
            names = ", ".join(each.name for each in self.functions)
            raise ToolError(f"there is no tool {call.name[:64]!r}; there are {names}")
        try:
            text = function.run(call.arguments, record)
        except ToolError:
            raise
        except (SystemExit, KeyboardInterrupt, Exception) as error:  # whatever a tool does costs its own call only
            raise ToolError(_excerpt(f"{type(error).__name__}: {error}")) from error
        if len(text) > LONGEST_RESULT:
            raise ToolError(f"the result has {len(text):,} characters, the most is {LONGEST_RESULT:,}: ask for less")
        # Unpaired surrogates are no text that could be sent.
        return neutralise(text.encode("utf-8", errors="replace").decode("utf-8"))[0]


def error_text(detail: str) -> str:
    """Return what the model is told of a call without a result."""
    return neutralise(json.dumps({"error": _excerpt(detail)}, ensure_ascii=False))[0]


def load_tools(names: Sequence[str], base_dir: Path) -> tuple[ToolFunction, ...]:
    """Return the tools that a job file names: built-in ones, and `module:function`.

    Raises:
        JobFileError: There is no such tool, or it cannot be one.
    """
    found = []
    for name in names:
        source = BUILT_IN.get(name, name)
        if _OWN.fullmatch(source) is None:
            raise JobFileError(
                f"job.tools: {name!r} is no tool (built in: {', '.join(BUILT_IN)}; your own: module:function)"
            )
        found.append(ToolFunction(source.rpartition(":")[2], import_named(source, base_dir, "job.tools")))
    return tuple(found)


def _excerpt(text: str) -> str:
    line = " ".join(text.encode("utf-8", errors="replace").decode("utf-8").split())
    return line if len(line) <= LONGEST_ERROR else line[: LONGEST_ERROR - 3] + "..."
