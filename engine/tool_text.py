"""Tool calls as Intern-S1-Pro writes them into its answer: JSON between tags.

<tool_call>
{"name": "travel_times", "arguments": {"distance_deg": 30}}
</tool_call>
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from s1batch.records import ToolCall

CALL_BEGIN, CALL_END = "<tool_call>", "</tool_call>"

MOST_CALLS = 16
"""Calls in one answer."""

_CALL = re.compile(f"{re.escape(CALL_BEGIN)}(.*?)(?:{re.escape(CALL_END)}|$)", re.DOTALL)


def take_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Return the text of an answer without its calls, and the calls in their order.

    When one of them cannot be read, there are none and the text stays as it is, tags included: half of what the model
    wanted must not be done in its place.
    """
    if CALL_BEGIN not in text:
        return text, ()
    try:
        calls = tuple(_call(body) for body in _CALL.findall(text))
    except (ValueError, RecursionError):
        return text, ()
    return _CALL.sub("", text).strip(), calls


def holds_a_call(text: str) -> bool:
    """Return whether a text holds the tag of a call."""
    return CALL_BEGIN in text


def _call(body: str) -> ToolCall:
    found = json.loads(body, parse_constant=_no_constant)
    if not isinstance(found, dict) or not isinstance(found.get("name"), str) or not found["name"]:
        raise ValueError("a call is an object with a name")
    return ToolCall(name=_text(found["name"]), arguments=_text(arguments_text(found.get("arguments", {}))))


def _text(value: str) -> str:
    """Return what UTF-8 holds of a text: JSON can spell half a pair of surrogates."""
    return value.encode("utf-8", errors="replace").decode("utf-8")


def arguments_text(arguments: Any) -> str:
    """Return the arguments of a call as text; a text, which some servers and models write, stays as it is."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
