"""The messages of a question: what is asked, the note behind it, and the system message before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from s1batch.jobs.template import PromptTemplate
from s1batch.records import Message, Part, TextPart


def messages_of(
    parts: Sequence[Part], *, note: PromptTemplate | None, system: PromptTemplate | None, names: Mapping[str, Any]
) -> tuple[tuple[Message, ...], int]:
    """Return the messages, and how often text of the note or the system message was neutralised.

    Args:
        parts: What is asked.
        note: Stands behind it, on a line of its own.
        system: The message before.
        names: What the templates may name.

    Raises:
        SourceError: A template fails on these names.
    """
    neutralised = 0
    if note is not None:
        rendered = note.render(names)
        parts = [*parts, TextPart(text="\n" + rendered.text)]
        neutralised += rendered.neutralised
    messages = [Message(role="user", parts=tuple(parts))]
    if system is not None:
        rendered = system.render(names)
        messages.insert(0, Message(role="system", parts=(TextPart(text=rendered.text),)))
        neutralised += rendered.neutralised
    return tuple(messages), neutralised
