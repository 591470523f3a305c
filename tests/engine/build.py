"""Small requests for tests."""

from __future__ import annotations

from s1batch.records import Message, ModelIdentity, Request, Sampling, TextPart

MODEL = ModelIdentity(name="nobody", revision="1")


def text_request(text: str, seed: int = 0) -> Request:
    """A request that asks one line of text."""
    return Request(
        messages=(Message(role="user", parts=(TextPart(text=text),)),), sampling=Sampling(), model=MODEL, seed=seed
    )
