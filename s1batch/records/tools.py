"""Tools that a model may call, its calls, and what came of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TOOL_NAME = r"[A-Za-z_][A-Za-z0-9_-]{0,63}"
"""What the name of a tool looks like, as a regular expression: what all servers take."""


@dataclass(frozen=True)
class Tool:
    """A tool as the model is told of it.

    Attributes:
        name: Matches `TOOL_NAME`.
        description: What it does and when to use it, for the model.
        parameters: JSON Schema of its arguments, an object.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]

    @property
    def document(self) -> dict[str, Any]:
        """The form that the OpenAI interface and the chat template of Intern-S1-Pro share."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}

    @property
    def text(self) -> str:
        """The document as JSON, the parameters in their own order, which steers guided decoding."""
        return json.dumps(self.document, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """The model's wish to have a tool run.

    Attributes:
        id: Ties the result to the call. Given by s1batch, so that it does not differ from run to run.
        name: The tool.
        arguments: A JSON object as text; as the model wrote it, it may be anything.
    """

    id: str = ""
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What came of a call.

    Attributes:
        call: The call, as it stands in the conversation.
        text: What the model is told: the result as JSON or text, or `{"error": ...}`.
        failed: Whether the text is an error.
        seconds: How long the tool ran.
    """

    call: ToolCall
    text: str
    failed: bool = False
    seconds: float = 0.0
