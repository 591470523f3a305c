"""Engines in front of engines: something is looked at before each question is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

from s1batch.engine.base import Engine
from s1batch.errors import Interrupted
from s1batch.records import ModelIdentity, Refusal, Request, Response
from s1batch.results.patience import Patience

_LOOK_EVERY_S = 0.2


class EngineInFront:
    """Does what the engine behind it does.

    Args:
        engine: That engine.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def name(self) -> str:
        """Kind and version."""
        return self._engine.name

    @property
    def model(self) -> ModelIdentity:
        """The weights that answer."""
        return self._engine.model

    def adapt(self, request: Request) -> Request:
        """Return the request as the engine wants it."""
        return self._engine.adapt(request)

    def admit(self, request: Request) -> Refusal | None:
        """Return why the engine does not take it; None when it does."""
        return self._engine.admit(request)

    def batch_class(self, request: Request) -> Hashable | None:
        """Return the class whose requests may be in flight together."""
        return self._engine.batch_class(request)

    async def answer(self, request: Request) -> Response:
        """Return the engine's answer."""
        return await self._engine.answer(request)

    async def aclose(self) -> None:
        """Close the engine."""
        await self._engine.aclose()


class StorableEngine(EngineInFront):
    """An engine that is asked when answers can be stored: what comes while the disk is away is only what was asked.

    Args:
        engine: The engine.
        patience: Knows whether the disk is away.
        stopped: Whether nothing new shall be asked.
    """

    def __init__(self, engine: Engine, patience: Patience, stopped: Callable[[], bool]) -> None:
        super().__init__(engine)
        self._patience = patience
        self._stopped = stopped

    async def answer(self, request: Request) -> Response:
        """Return the engine's answer.

        Raises:
            Interrupted: The run is being stopped while the disk is away; nothing was asked.
        """
        while self._patience.is_away:
            if self._stopped():
                raise Interrupted("stopped while the results could not be written; run again to go on")
            await asyncio.sleep(_LOOK_EVERY_S)
        return await self._engine.answer(request)
