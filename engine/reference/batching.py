"""Continuous batching: requests join as soon as there is room and leave with their last token.

One `turn` lets requests in, prefills some of what they ask, and gives every answer under way one more token. Requests
come in by order of arrival; one that finds no memory waits until others have left, and those behind it wait too, so
that none waits forever.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from s1batch.engine.reference.generate import Generation, Generator
from s1batch.engine.reference.kv_pool import KVPool
from s1batch.errors import EngineError
from s1batch.records import Reason, Request

TURN_TOKENS = 1024
"""Prompt tokens that a turn prefills before it goes on with the answers under way. More of them fill the batch sooner,
fewer keep answers flowing."""


class Abandoned(Exception):
    """Nobody waits for this answer any more."""


class Asked(Protocol):
    """A request in the batch, and whoever waits for its answer."""

    @property
    def request(self) -> Request:
        """What is asked."""

    def check(self) -> None:
        """Raise `Abandoned` when the answer is not wanted any more."""

    def prepare(self) -> Generation:
        """Return its generation, the same one every time.

        Raises:
            EngineError: There is none to begin with.
        """

    def answered(self, generation: Generation) -> None:
        """Give the answer."""

    def failed(self, reason: Reason, detail: str) -> None:
        """Say why there is none."""


class Batch:
    """The requests that are answered together; all calls come from one thread.

    Args:
        generator: Does the work.
        pool: Memory of the sequences.
        most: Most answers that grow together.
        prefills: Prompts that are prefilled at once, each on a thread of its own.
    """

    def __init__(self, generator: Generator, pool: KVPool, *, most: int, prefills: int) -> None:
        self._generator = generator
        self._pool = pool
        self._most = most
        self._prefills = prefills
        self._waiting: deque[Asked] = deque()
        self._joining: list[tuple[Asked, Generation]] = []
        self._growing: list[tuple[Asked, Generation]] = []

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._waiting or self._joining or self._growing)

    def add(self, asked: Asked) -> None:
        """Take a request in."""
        self._waiting.append(asked)

    def turn(self) -> None:
        """Go on with everything by about one token."""
        self._joining = [pair for pair in self._joining if self._wanted(*pair)]
        self._growing = [pair for pair in self._growing if self._wanted(*pair)]
        self._let_in()
        done = 0
        while self._joining and done < TURN_TOKENS:
            done += self._prefill(self._joining[: self._prefills])
        if self._growing:
            # Rows that are neighbours in memory share a block, so that attention reads one slice.
            self._growing.sort(key=lambda pair: (pair[1].row.arena.capacity, pair[1].row.index))
            self._generator.step([generation for _, generation in self._growing])
            self._growing = [pair for pair in self._growing if self._goes_on(*pair)]

    def _let_in(self) -> None:
        """Let requests join; of those with series or images one per turn, for encoding takes long."""
        while self._waiting and len(self._joining) + len(self._growing) < self._most:
            asked = self._waiting[0]
            if not self._join(asked):
                return
            self._waiting.popleft()
            if asked.request.series or asked.request.images:
                return

    def _join(self, asked: Asked) -> bool:
        """Return whether a request joined or failed; False when it must wait for memory."""
        try:
            asked.check()
            generation = asked.prepare()
            row = self._pool.take(generation.most_tokens)
        except Abandoned:
            return True
        except EngineError as error:
            asked.failed(error.reason, error.detail)
            return True
        except (MemoryError, RuntimeError) as error:
            # torch reports a failed allocation as a RuntimeError.
            asked.failed("engine_error", f"the prompt could not be processed: {error}")
            return True
        if row is None:
            return False
        request = asked.request
        try:
            embedded_TH = self._generator.embed(generation.prompt, request.series, request.images, asked.check)
        except (Abandoned, EngineError, MemoryError, RuntimeError) as error:
            self._pool.give_back(row)
            if isinstance(error, EngineError):
                asked.failed(error.reason, error.detail)
            elif not isinstance(error, Abandoned):
                asked.failed("engine_error", f"the prompt could not be processed: {error}")
            return True
        generation.begin(row, embedded_TH)
        self._joining.append((asked, generation))
        return True

    def _prefill(self, pairs: list[tuple[Asked, Generation]]) -> int:
        done = self._generator.prefill([generation for _, generation in pairs])
        self._joining = [pair for pair in self._joining if not pair[1].prefilled]
        self._growing += [pair for pair in pairs if pair[1].prefilled and self._goes_on(*pair)]
        return done

    def _goes_on(self, asked: Asked, generation: Generation) -> bool:
        if generation.finish_reason is None:
            return True
        self._pool.give_back(generation.row)
        asked.answered(generation)
        return False

    def _wanted(self, asked: Asked, generation: Generation) -> bool:
        try:
            asked.check()
        except Abandoned:
            self._pool.give_back(generation.row)
            return False
        return True
