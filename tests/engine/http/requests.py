"""Requests that the tests of the HTTP engine ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s1batch.records import Message, ModelIdentity, Part, Request, Sampling, SeriesPart, TextPart

SCHEMA = {"type": "object", "properties": {"contain": {"type": "boolean"}}, "required": ["contain"]}


def ask(
    text: str = "Is there an event?",
    *parts: Part,
    system: str | None = None,
    schema: Mapping[str, Any] | None = None,
    seed: int = 0,
    sample_index: int = 0,
    **sampling: Any,
) -> Request:
    """Return a request with one user turn: the parts, then the text."""
    turns = [Message(role="system", parts=(TextPart(text=system),))] if system else []
    return Request(
        messages=(*turns, Message(role="user", parts=(*parts, TextPart(text=text)))),
        sampling=Sampling(**sampling),
        model=ModelIdentity(name="mock"),
        seed=seed,
        sample_index=sample_index,
        schema=schema,
    )


def noise(steps: int = 6000, channels: int = 3, seed: int = 1) -> NDArray[np.float32]:
    """Return float32 noise of shape (steps, channels), with extreme and tiny values among it."""
    values = np.random.default_rng(seed).standard_normal((steps, channels)).astype(np.float32)
    values[0, 0], values[-1, -1] = np.float32(3.5e15), np.float32(1e-42)
    return values


def series(steps: int = 6000, channels: int = 3, rate_hz: float = 100.0) -> SeriesPart:
    """Return a series of noise."""
    return SeriesPart(noise(steps, channels), rate_hz)
