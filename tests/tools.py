"""Tools and answers that call them, for tests."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any, Literal

from s1batch.errors import EngineError
from s1batch.records import Request, Response, Series, ToolCall
from tests.answers import note

HOLD = threading.Event()
"""What `hang` waits for."""


def depth(station: Literal["RJOB", "ALTN"], unit: Literal["km", "m"] = "km") -> dict[str, Any]:
    """How deep events at a station are.

    Args:
        station: Code of the station.
    """
    return {"station": station, "depth": {"RJOB": 8.5, "ALTN": 11.0}[station] * (1000 if unit == "m" else 1)}


def steps(series: Series) -> int:
    """How many samples there are."""
    return len(series.values_TC)


def fail() -> None:
    """Fail."""
    raise ValueError("no such event")


def hang() -> None:
    """Hang."""
    HOLD.wait(600)


def large() -> str:
    """Say too much."""
    return "x" * 10_000_000


def no_json() -> object:
    """Give something else."""
    return {1, 2}


def die_once() -> str:
    """End the process, the first time."""
    mark = Path(os.environ["DIED"])
    if not mark.exists():
        mark.touch()
        os._exit(9)
    return "alive"


def calling(*calls: tuple[str, Any], text: str = "") -> Response:
    """An answer with calls."""
    return Response(
        fingerprint="",
        text=text,
        finish_reason="tool_calls",
        prompt_tokens=10,
        output_tokens=5,
        tool_calls=tuple(
            ToolCall(name=name, arguments=given if isinstance(given, str) else json.dumps(given))
            for name, given in calls
        ),
    )


def told(request: Request) -> list[str]:
    """What tools have told so far."""
    return [message.text for message in request.messages if message.role == "tool"]


def by_name(request: Request) -> Response:
    """Call the tool that the question names, then answer with what it told."""
    if not told(request):
        name = request.messages[-1].text.split()[-1]
        return calling((name, {"station": "RJOB"} if name == "depth" else {}))
    return Response(fingerprint="", text=json.dumps({"told": told(request)}), prompt_tokens=20, output_tokens=7)


def noted(request: Request) -> Response:
    """The same; every question is noted in the file that ASKED names."""
    note(request.fingerprint)
    return by_name(request)


def dies_at_the_second(request: Request) -> Response:
    """The same, but the process ends when the tool's result comes, the first time."""
    note(request.fingerprint)
    mark = Path(os.environ["DIED"])
    if told(request) and not mark.exists():
        mark.touch()
        os._exit(9)
    return by_name(request)


def fails_at_the_second(request: Request) -> Response:
    """The same, but the question with the tool's result fails until the file that DIED names exists."""
    note(request.fingerprint)
    if told(request) and not Path(os.environ["DIED"]).exists():
        raise EngineError("server_error", "out of order")
    return by_name(request)


def untiring(request: Request) -> Response:
    """Call a tool as long as it may, then try in the text."""
    if request.may_call:
        return calling(("depth", {"station": "ALTN"}), text="Let me see. <|im_end|>")
    return Response(fingerprint="", text='<tool_call>\n{"name": "depth", "arguments": {}}\n</tool_call>')


def garbled(request: Request) -> Response:
    """Write a call that nobody can read."""
    return Response(fingerprint="", text='<tool_call>\n{"name": "depth", "arguments": {"station"\n</tool_call>')


def clumsy(request: Request) -> Response:
    """Call wrongly first, then rightly, then answer."""
    wrong = [("depth", '{"station": '), ("depth", {"station": "XXXX"}), ("<|im_end|> no", {}), ("depth", "[]")]
    match len(told(request)):
        case 0:
            return calling(*wrong)
        case 4:
            return calling(("depth", '{"station": "RJOB", "unit": "m"}'))
    return Response(fingerprint="", text=json.dumps({"told": told(request)}))


def strange(request: Request) -> Response:
    """Say what UTF-8 does not hold, and the model's special tokens, in every place."""
    odd = "\ud800 <|im_end|>"
    if not told(request):
        return calling((odd, json.dumps({"station": odd})), ("depth", json.dumps({odd: odd})), text=odd)
    return Response(fingerprint="", text=json.dumps({"told": ["done"]}))


def greedy_for_calls(request: Request) -> Response:
    """Call far too often."""
    return calling(*[("depth", {"station": "RJOB"})] * 100)
