"""A question whose answer may be a call of tools: they are run, and the model asked again, until it answers.

    question -> answer with calls -> tools -> question with their results -> ... -> answer

The number of questions is bounded; in the last one no tool may be called. Every answer is kept as soon as it is there,
and again with the results of its tools, so that a run that was killed goes on behind the last answer it received.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from s1batch.engine.feeder import Fed
from s1batch.engine.tool_text import MOST_CALLS, holds_a_call
from s1batch.jobs.tools.toolbox import Toolbox
from s1batch.records import (
    TOOL_NAME,
    Answer,
    Message,
    Record,
    Refusal,
    Request,
    Response,
    TextPart,
    ToolCall,
    Turn,
)
from s1batch.special_tokens import neutralise
from s1batch.tool_runner import ToolRunner

NO_NAME = "unknown"
"""Stands in the conversation for a tool's name that no server would take back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversed:
    """How a conversation ended.

    Attributes:
        response: The last answer.
        shared: Whether another chunk paid for it.
        turns: What went before it.
        verdict: What the row is, where that does not depend on what the job makes of the answer.
    """

    response: Response
    shared: bool = False
    turns: tuple[Turn, ...] = ()
    verdict: Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """All that a conversation about one row needs.

    Attributes:
        toolbox: The tools and their bounds.
        record: The row in question, with its payload.
        runner: Runs the tools.
        ask: Gets the answer to a question.
        admit: Says why a question must not be asked.
        keep: Makes a turn safe; called with its number when its answer is there, and again with its results.
        known: Turns that an earlier run kept.
    """

    toolbox: Toolbox
    record: Record
    runner: ToolRunner
    ask: Callable[[Request], Awaitable[Fed]]
    admit: Callable[[Request], Refusal | None]
    keep: Callable[[int, Turn], None]
    known: Sequence[Turn] = ()

    async def hold(self, request: Request) -> Conversed:
        """Ask until there is an answer.

        Args:
            request: The first question, adapted and admitted.
        """
        turns: list[Turn] = []
        while True:
            turn = self._kept(len(turns), request)
            if turn is None:
                fed = await self.ask(request)
                verdict = _verdict(request, fed.response)
                if verdict is not None or not fed.response.tool_calls or fed.response.finish_reason == "length":
                    return Conversed(response=fed.response, shared=fed.shared, turns=tuple(turns), verdict=verdict)
                turn = Turn(response=fed.response, shared=fed.shared)
                self.keep(len(turns), turn)
            if not turn.results:
                turn = await self._with_results(turn, sum(len(each.results) for each in turns))
                self.keep(len(turns), turn)
            turns.append(turn)
            request = _next(request, turn, may_call=len(turns) + 1 < self.toolbox.max_turns)
            refusal = await asyncio.to_thread(self.admit, request)
            if refusal is not None:
                detail = f"question {len(turns) + 1}, with the results of tools: {refusal.detail}"
                verdict = Answer(outcome=refusal.outcome, reason=refusal.reason, detail=detail)
                response = Response(
                    fingerprint=request.fingerprint, finish_reason="abort", attempts=0, model=request.model.name
                )
                return Conversed(response=response, turns=tuple(turns), verdict=verdict)

    def _kept(self, number: int, request: Request) -> Turn | None:
        """Return the turn of an earlier run, when it answers this very question."""
        if number < len(self.known) and self.known[number].response.fingerprint == request.fingerprint:
            return self.known[number]
        return None

    async def _with_results(self, turn: Turn, before: int) -> Turn:
        calls = turn.response.tool_calls
        shown = [_shown(call, before + number) for number, call in enumerate(calls)]
        running = [
            self.runner.run(self.toolbox, call, show, self.record) for call, show in zip(calls, shown, strict=True)
        ]
        return replace(turn, results=tuple(await asyncio.gather(*running)))


def _verdict(request: Request, response: Response) -> Answer | None:
    """Return what the row is when the answer's calls cannot be followed; None when they can, or there are none."""
    if response.error is not None or response.finish_reason == "length":
        return None
    if len(response.tool_calls) > MOST_CALLS:
        detail = f"{len(response.tool_calls)} calls in one answer; the most is {MOST_CALLS}"
        return Answer(outcome="unparsed", reason="bad_tool_call", detail=detail)
    if response.tool_calls or not holds_a_call(response.text):
        return None
    if request.may_call:
        detail = f"a call that cannot be read: {response.text[:200]!r}"
        return Answer(outcome="unparsed", reason="bad_tool_call", detail=detail)
    detail = "the model still calls tools in its last answer; raise job.max_turns"
    return Answer(outcome="unparsed", reason="too_many_turns", detail=detail)


def _next(request: Request, turn: Turn, *, may_call: bool) -> Request:
    """Return the question after a turn: the conversation so far, the calls, their results."""
    text = _sendable(turn.response.text)
    calls = Message(
        role="assistant",
        parts=(TextPart(text=text),) if text else (),
        tool_calls=tuple(result.call for result in turn.results),
    )
    results = [
        Message(role="tool", parts=(TextPart(text=result.text),), tool_call_id=result.call.id)
        for result in turn.results
    ]
    messages = (*request.messages, calls, *results)
    return replace(request, messages=messages, tool_choice="auto" if may_call else "none")


def _shown(call: ToolCall, number: int) -> ToolCall:
    """Return a call as it stands in the conversation: what any server takes back, and no special token.

    The id counts the calls of the conversation; nine letters and digits, the form that the strictest templates want.
    """
    name = call.name if re.fullmatch(TOOL_NAME, call.name) else NO_NAME
    arguments = call.arguments if _is_object(call.arguments) else "{}"
    return ToolCall(id=f"call{number:05d}", name=name, arguments=_sendable(arguments))


def _sendable(text: str) -> str:
    return neutralise(text.encode("utf-8", errors="replace").decode("utf-8"))[0]


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
