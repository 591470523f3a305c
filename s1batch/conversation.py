"""A question whose answer may not be the last one: the model is asked again until it is.

    question -> answer with calls -> tools -> question with their results -> ... -> answer
    question -> answer that does not fit -> question that says what is wrong -> ... -> answer

The number of questions is bounded; in the last one with tools, none may be called. Every answer that is not the last
one is kept as soon as it is there, and again with the results of its tools, so that a run that was killed goes on
behind the last answer it received.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from s1batch.engine.feeder import Fed
from s1batch.engine.tool_text import MOST_CALLS, holds_a_call
from s1batch.jobs.base import Job
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
        answer: What it means.
        shared: Whether another chunk paid for it.
        turns: What went before it.
    """

    response: Response
    answer: Answer
    shared: bool = False
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """All that a conversation about one row needs.

    Attributes:
        job: Has the tools, and says how an answer is mended.
        record: The row in question; with its payload where there are tools.
        runner: Runs the tools.
        ask: Gets the answer to a question.
        admit: Says why a question must not be asked.
        judge: Says what an answer means.
        again: Makes the first question anew; None when that is not possible any more.
        keep: Makes a turn safe; called with its number when its answer is there, and again with its results.
        known: Turns that an earlier run kept.
    """

    job: Job
    record: Record
    runner: ToolRunner
    ask: Callable[[Request], Awaitable[Fed]]
    admit: Callable[[Request], Refusal | None]
    judge: Callable[[Response], Answer]
    again: Callable[[], Awaitable[Request | None]]
    keep: Callable[[int, Turn], Awaitable[None]]
    known: Sequence[Turn] = ()

    async def hold(self, first: list[Request]) -> Conversed:
        """Ask until there is an answer.

        Args:
            first: The first question, adapted and admitted, which is taken out: it can be megabytes, and nobody but
                the engine holds it while its answer is awaited. Tools need it kept; answers that must be mended are
                rare, and their question is made anew.
        """
        toolbox = self.job.toolbox
        turns: list[Turn] = []
        question = first.pop()
        while True:
            number, fingerprint, may_call = len(turns), question.fingerprint, question.may_call
            held: Request | None = question
            turn = self._kept(number, fingerprint)
            is_new = turn is None
            if turn is None:
                asking = self.ask(question)
                if toolbox is None and number == 0:
                    held = None
                    del question
                fed = await asking
                turn = Turn(response=fed.response, shared=fed.shared)
            answer = _verdict(may_call, turn.response)
            if answer is None and toolbox is not None and held is not None and _calls(turn.response):
                if is_new:
                    await self.keep(number, turn)
                turns.append(await self._called(toolbox, turns, turn))
                called = sum(bool(each.results) for each in turns)
                question = _next(held, turns[-1], may_call=called + 1 < toolbox.max_turns)
            else:
                answer = answer or self.judge(turn.response)
                if turn.response.error == "not_found" and turns and turns[-1].wrong:
                    # Stored answers of a run that did not ask for it to be mended.
                    return _ended(turns[:-1], turns[-1], self.judge(turns[-1].response))
                mending = await self._mending(held, fingerprint, turns, turn, answer)
                if mending is None:
                    return _ended(turns, turn, answer)
                turns.append(replace(turn, wrong=answer.detail or str(answer.reason)))
                if is_new:
                    await self.keep(number, turns[-1])
                question = mending
            refusal = await asyncio.to_thread(self.admit, question)
            if refusal is not None:
                return self._refused(question, turns, refusal)

    def _kept(self, number: int, fingerprint: str) -> Turn | None:
        """Return the turn of an earlier run, when it answers this very question."""
        if number < len(self.known) and self.known[number].response.fingerprint == fingerprint:
            return self.known[number]
        return None

    async def _called(self, toolbox: Toolbox, turns: Sequence[Turn], turn: Turn) -> Turn:
        """Return a turn with the results of its calls."""
        if turn.results:
            return turn
        before = sum(len(each.results) for each in turns)
        shown = [_shown(call, before + number) for number, call in enumerate(turn.response.tool_calls)]
        running = [
            self.runner.run(toolbox, call, show, self.record)
            for call, show in zip(turn.response.tool_calls, shown, strict=True)
        ]
        done = replace(turn, results=tuple(await asyncio.gather(*running)))
        await self.keep(len(turns), done)
        return done

    async def _mending(
        self, request: Request | None, fingerprint: str, turns: Sequence[Turn], turn: Turn, answer: Answer
    ) -> Request | None:
        """Return the question that asks to mend an answer; None when it stays as it is."""
        done = sum(bool(each.wrong) for each in turns)
        if answer.outcome != "unparsed" or done >= self.job.repairs:
            return None
        if request is None:
            request = await self.again()
        if request is None or request.fingerprint != fingerprint:
            return None
        return self.job.repair(request, turn.response, answer)

    def _refused(self, request: Request, turns: Sequence[Turn], refusal: Refusal) -> Conversed:
        if turns[-1].wrong:
            answer = self.judge(turns[-1].response)
            detail = f"{answer.detail}; it cannot be sent back: {refusal.detail}"
            return _ended(turns[:-1], turns[-1], replace(answer, detail=detail))
        detail = f"question {len(turns) + 1}, with the results of tools: {refusal.detail}"
        answer = Answer(outcome=refusal.outcome, reason=refusal.reason, detail=detail)
        response = Response(
            fingerprint=request.fingerprint, finish_reason="abort", attempts=0, model=request.model.name
        )
        return Conversed(response=response, answer=answer, turns=tuple(turns))


def _ended(turns: Sequence[Turn], last: Turn, answer: Answer) -> Conversed:
    mended = [f"mended: {turn.wrong}" for turn in turns if turn.wrong]
    if mended and answer.outcome == "ok":
        answer = replace(answer, detail="; ".join([*mended, *([answer.detail] if answer.detail else [])]))
    return Conversed(response=last.response, answer=answer, shared=last.shared, turns=tuple(turns))


def _calls(response: Response) -> bool:
    """Return whether an answer calls tools, all of it."""
    return response.error is None and bool(response.tool_calls) and response.finish_reason != "length"


def _verdict(may_call: bool, response: Response) -> Answer | None:
    """Return what the row is when the answer's calls cannot be followed; None when they can, or there are none."""
    if response.error is not None or response.finish_reason == "length":
        return None
    if len(response.tool_calls) > MOST_CALLS:
        detail = f"{len(response.tool_calls)} calls in one answer; the most is {MOST_CALLS}"
        return Answer(outcome="unparsed", reason="bad_tool_call", detail=detail)
    if response.tool_calls or not holds_a_call(response.text):
        return None
    if may_call:
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
