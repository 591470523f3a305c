"""An engine that does what a script says, on a virtual clock, and notes what it met."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from s1batch.engine.feeder import Feeder
from s1batch.engine.replay import ReplayEngine
from s1batch.errors import EngineUnavailable
from s1batch.records import Request, Response
from tests.engine.build import MODEL


class LetterEngine(ReplayEngine):
    """The batching class is the text's first letter; a dash goes with everybody."""

    def batch_class(self, request: Request) -> Hashable | None:
        letter = request.text[0]
        return None if letter == "-" else letter


@dataclass(frozen=True)
class Fate:
    """How a call ends, and how long that takes."""

    seconds: float = 1.0
    end: str = "ok"  # ok, error, bug, gone, stubborn (ok, and does not let itself be cancelled)


class Script:
    """An engine's function that does what the fates say and watches what is in flight."""

    def __init__(self, fates: dict[str, Fate], most: int) -> None:
        self.fates = fates
        self.most = most
        self.live: Counter[str] = Counter()  # texts of calls in the engine
        self.wanted: Counter[str] = Counter()  # of those, not cancelled
        self.started: list[str] = []
        self.answered: set[str] = set()
        self.faults: list[str] = []

    async def __call__(self, request: Request) -> Response:
        text = request.text
        if self.wanted[text] or text in self.answered:
            self.faults.append(f"{text} asked again while alive or cached")
        self.live[text] += 1
        self.wanted[text] += 1
        self.started.append(text)
        classes = {each[0] for each, count in self.live.items() if count and each[0] != "-"}
        if len(classes) > 1:
            self.faults.append(f"classes {classes} met")
        if self.live.total() > self.most:
            self.faults.append(f"{self.live.total()} in flight")
        fate = self.fates.get(text, Fate())
        try:
            await asyncio.sleep(fate.seconds)
            self.wanted[text] -= 1
        except asyncio.CancelledError:
            self.wanted[text] -= 1
            if fate.end != "stubborn":
                raise
            await asyncio.sleep(fate.seconds)
        finally:
            self.live[text] -= 1
        if fate.end == "error":
            return Response(
                fingerprint=request.fingerprint, finish_reason="error", error="server_error", detail="as told"
            )
        if fate.end == "bug":
            raise ZeroDivisionError("as told")
        if fate.end == "gone":
            raise EngineUnavailable("connection", "as told")
        self.answered.add(text)
        return Response(fingerprint=request.fingerprint, text=text, prompt_tokens=10, output_tokens=3)


def feeder_of(script: Script, *, switch_after_requests: int | None = None, cache_entries: int = 1000) -> Feeder:
    return Feeder(
        LetterEngine(script, model=MODEL),
        max_in_flight=script.most,
        cache_entries=cache_entries,
        cache_bytes=1 << 20,
        switch_after_requests=switch_after_requests,
        switch_after_s=20.0,
    )
