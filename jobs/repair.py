"""The question that asks a model to mend an answer that does not fit.

The model gets its own answer and what is wrong with it. It does not think again: what it found stands in its answer,
and without thinking every engine that has a grammar can force the schema.
"""

from __future__ import annotations

from dataclasses import replace

from s1batch.records import Message, Reason, Request, Response, TextPart
from s1batch.special_tokens import neutralise

MENDED: frozenset[Reason] = frozenset({"not_json", "not_in_schema", "out_of_range", "no_answer", "quote_not_found"})
"""What is wrong with an answer in a way that can be told; asking again can mend it."""

LONGEST_QUOTE = 20_000
"""Characters of the answer that are sent back: what is longer is no answer with a slip in it."""


def repair_request(request: Request, response: Response, wrong: str, form: str) -> Request:
    """Return the conversation so far, the model's answer, and what it shall do about it.

    Args:
        request: The question.
        response: The answer that does not fit.
        wrong: What is wrong with it, in words.
        form: What the answer must be, where the question does not say so itself; else empty.
    """
    said, _ = neutralise(response.text[:LONGEST_QUOTE].encode("utf-8", errors="replace").decode("utf-8"))
    # Some chat templates take no empty message.
    answer = Message(role="assistant", parts=(TextPart(text=said if said.strip() else "(no answer)"),))
    why, _ = neutralise(wrong.encode("utf-8", errors="replace").decode("utf-8"))
    text = f"That answer does not fit: {why}\n{form}Give the answer again, as one JSON object and nothing else."
    question = Message(role="user", parts=(TextPart(text=text),))
    sampling = request.sampling
    if request.schema is not None:
        sampling = replace(sampling, thinking=False, thinking_budget=None)
    messages = (*request.messages, answer, question)
    return replace(request, messages=messages, sampling=sampling, tool_choice="none" if request.tools else "auto")
