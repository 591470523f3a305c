"""The one way to an engine: bounds, groups, shares, cancels and drains the requests of one worker.

Engines are fed by many coroutines of one event loop at once, one per chunk. What must hold across all of them lives
here, so that no engine has to care: how many requests are in flight, which may be in flight together, that a question
is asked once however often it is put, and that everybody gets an outcome when the engine dies or the run is stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType

from s1batch.engine.base import Engine
from s1batch.engine.feeder_stats import FeederStats
from s1batch.engine.response_cache import ResponseCache
from s1batch.engine.turns import Turns
from s1batch.errors import EngineError, EngineUnavailable, Interrupted
from s1batch.records import Request, Response

UNWIND_S = 5.0
"""How long `drain` waits for an engine to let go of calls that were cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fed:
    """A response and whether it came at no cost.

    Attributes:
        response: The engine's; `attempts` is 0 when `shared`.
        shared: True when another request paid for it: its tokens must not be counted again.
    """

    response: Response
    shared: bool


class _Call:
    """One question on its way, and everybody who waits for its answer."""

    __slots__ = ("batch_class", "claimed", "key", "request", "task", "waiters")

    def __init__(self, key: str, request: Request, batch_class: Hashable | None) -> None:
        self.key = key
        self.request: Request | None = request  # until the engine has it: it can be megabytes
        self.batch_class = batch_class
        self.waiters: dict[asyncio.Future[Response], None] = {}  # in order of arrival
        self.task: asyncio.Task[Response] | None = None  # None while it waits for a slot
        self.claimed = False  # whether somebody took the response that is not `shared`


class Feeder:
    """Feeds one engine from many coroutines of one event loop; leaving it as a context manager stops it at once.

    Args:
        engine: Who answers. It stays open: whoever opened it closes it.
        max_in_flight: Most calls at a time.
        cache_entries: Most responses kept for requests that come again; 0 keeps none.
        cache_bytes: Most memory that they take.
        switch_after_requests: Most requests of one batching class in a row while another one waits; by default 8 times
            `max_in_flight`, so that running empty before a change costs little.
        switch_after_s: How long a class may wait for its turn before the current turn closes; see `Turns`.
        budget_tokens: Tokens of prompts and answers, as the engine reports them, at which the feeder stops itself; what
            is in flight then still comes. None: no limit.
        on_spent: Called when that happens.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_in_flight: int,
        cache_entries: int,
        cache_bytes: int,
        switch_after_requests: int | None = None,
        switch_after_s: float = 30.0,
        budget_tokens: int | None = None,
        on_spent: Callable[[], None] | None = None,
    ) -> None:
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight is {max_in_flight}; at least one call must be allowed")
        if switch_after_requests is not None and switch_after_requests < 1:
            raise ValueError(f"switch_after_requests is {switch_after_requests}; a turn takes at least one request")
        self._engine = engine
        self._max_in_flight = max_in_flight
        self._turns: Turns[_Call] = Turns(
            slots=max_in_flight,
            switch_after_requests=switch_after_requests or 8 * max_in_flight,
            switch_after_s=switch_after_s,
        )
        self._budget_tokens = budget_tokens
        self._on_spent = on_spent
        self._cache = ResponseCache(entries=cache_entries, bytes_=cache_bytes)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: dict[str, _Call] = {}  # waiting or in flight, and wanted
        self._tasks: dict[asyncio.Task[Response], _Call] = {}  # in flight, wanted or not
        self._closed: Interrupted | EngineUnavailable | None = None
        self._pump_is_due = False
        self._sent = self._answered = self._failed = self._cancelled = self._shared = 0
        self._prompt_tokens = self._cached_tokens = self._output_tokens = 0
        self._busy_seconds = self._slot_seconds = self._last_change = 0.0

    @property
    def stats(self) -> FeederStats:
        """A snapshot of the counters."""
        self._account_time()
        return FeederStats(
            in_flight=len(self._tasks),
            waiting=len(self._turns),
            sent=self._sent,
            answered=self._answered,
            failed=self._failed,
            cancelled=self._cancelled,
            shared=self._shared,
            switches=self._turns.switches,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            output_tokens=self._output_tokens,
            busy_seconds=self._busy_seconds,
            slot_seconds=self._slot_seconds,
        )

    async def answer(self, request: Request) -> Fed:
        """Return the engine's response to an admitted request, when its turn has come.

        Cancelling the caller cancels the call only when nobody else waits for the same answer.

        Raises:
            Interrupted: The feeder was stopped before this was answered.
            EngineUnavailable: The engine is gone for every request.
            EngineError: The engine broke its contract on this request; whatever else it raised comes through as well.
        """
        loop = self._own_loop()
        if self._closed is not None:
            raise _again(self._closed)
        key = request.fingerprint
        kept = self._cache.get(key)
        if kept is not None:
            self._shared += 1
            return Fed(response=replace(kept, attempts=0), shared=True)
        call = self._calls.get(key)
        if call is None:
            call = _Call(key, request, self._engine.batch_class(request))
            self._turns.add(key, call, call.batch_class, loop.time())
            self._calls[key] = call
            self._pump_soon()
        del request
        future: asyncio.Future[Response] = loop.create_future()
        call.waiters[future] = None
        try:
            response = await future
        except asyncio.CancelledError:
            self._leave(call, future)
            raise
        if call.claimed:
            self._shared += 1
            return Fed(response=replace(response, attempts=0), shared=True)
        call.claimed = True
        return Fed(response=response, shared=False)

    def remember(self, responses: Iterable[Response]) -> None:
        """Take in responses of earlier runs, the most useful last: what they answer is not sent again.

        As many are kept as the cache holds.
        """
        for response in responses:
            self._cache.put(response)

    def resize(self, max_in_flight: int) -> None:
        """Change how many calls there may be at a time; what is in flight goes on."""
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight is {max_in_flight}; at least one call must be allowed")
        self._max_in_flight = max_in_flight
        self._turns.resize(max_in_flight)
        self._pump_soon()

    def stop(self) -> None:
        """Take no more requests; those that wait for a slot end now, those in flight go on.

        New and waiting requests raise `Interrupted`.
        """
        self._close(Interrupted("the run was stopped before this request was sent; run again to go on"))

    async def drain(self, grace_s: float) -> int:
        """Stop, wait for what is in flight, and after `grace_s` seconds cancel the rest.

        Returns within `grace_s + UNWIND_S`, even when the engine holds on to cancelled calls. When `drain` itself is
        cancelled, what is in flight is cancelled too.

        Returns:
            How many calls were cut off; their callers got `Interrupted`.
        """
        self._own_loop()
        self.stop()
        try:
            if self._tasks and grace_s > 0:
                await asyncio.wait(tuple(self._tasks), timeout=grace_s)
        finally:
            reason = Interrupted(f"not answered within the {grace_s:g} s after the run was stopped; run again to go on")
            cut = self._cut_off(reason)
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=UNWIND_S)
        return cut

    async def __aenter__(self) -> Feeder:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain(0.0)

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise RuntimeError("a feeder serves one event loop; this is another one")
            self._loop = loop
            self._last_change = loop.time()
        return loop

    def _pump_soon(self) -> None:
        """Fill the slots once this round of the event loop is over: what arrives in it is grouped together."""
        if not self._pump_is_due and self._loop is not None:
            self._pump_is_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_is_due = False
        if self._loop is None or not len(self._turns):
            return
        self._account_time()
        now = self._loop.time()
        while len(self._tasks) < self._max_in_flight:
            call = self._turns.take(now)
            if call is None:
                return
            if call.request is None:
                raise RuntimeError("a request had its turn twice")
            task = call.task = self._loop.create_task(self._engine.answer(call.request))
            call.request = None
            self._tasks[task] = call
            self._sent += 1
            task.add_done_callback(partial(self._finish, call))

    def _finish(self, call: _Call, task: asyncio.Task[Response]) -> None:
        self._account_time()
        del self._tasks[task]
        self._turns.ended(call.batch_class)
        wanted = self._calls.get(call.key) is call
        if wanted:
            del self._calls[call.key]
        if task.cancelled():
            self._fail(call, EngineError("engine_error", "the engine dropped the request without an answer"), wanted)
        elif (error := task.exception()) is not None:
            self._fail(call, error, wanted)
            if isinstance(error, EngineUnavailable):
                self._close(error)
                self._cut_off(error)
        else:
            self._deliver(call, _checked(task.result(), call.key))
        self._pump_soon()

    def _deliver(self, call: _Call, response: Response) -> None:
        self._prompt_tokens += response.prompt_tokens or 0
        self._cached_tokens += response.cached_tokens or 0
        self._output_tokens += response.output_tokens or 0
        if response.error is None and response.finish_reason not in ("error", "abort"):
            self._answered += 1
            self._cache.put(response)
        else:
            self._failed += 1
        for future in call.waiters:
            if not future.done():
                future.set_result(response)
        call.waiters.clear()
        if self._budget_tokens is not None and self._prompt_tokens + self._output_tokens >= self._budget_tokens:
            self._budget_tokens = None
            self.stop()
            if self._on_spent is not None:
                self._on_spent()

    def _fail(self, call: _Call, error: BaseException, wanted: bool) -> None:
        if wanted:
            self._failed += 1
        else:
            self._cancelled += 1
        for future in call.waiters:
            if not future.done():
                future.set_exception(error)
        call.waiters.clear()

    def _leave(self, call: _Call, future: asyncio.Future[Response]) -> None:
        """Take a cancelled waiter off its call, and the call off the engine when it was the last one."""
        if future.done() and not future.cancelled():
            future.exception()  # seen: nobody else will ask for it
        call.waiters.pop(future, None)
        if call.waiters or self._calls.get(call.key) is not call:
            return
        del self._calls[call.key]
        if call.task is not None:
            call.task.cancel()
            return
        self._cancelled += 1
        self._turns.remove(call.key, call.batch_class)
        self._pump_soon()

    def _close(self, error: Interrupted | EngineUnavailable) -> None:
        if self._closed is not None and not isinstance(error, EngineUnavailable):
            return
        self._closed = error
        for call in self._turns.clear():
            del self._calls[call.key]
            self._fail(call, _again(error), wanted=False)

    def _cut_off(self, error: Interrupted | EngineUnavailable) -> int:
        """Cancel what is in flight; a call that has ended, but was not yet delivered, still is."""
        cut = 0
        for task, call in self._tasks.items():
            if task.done():
                continue
            if self._calls.get(call.key) is call:
                cut += 1
                del self._calls[call.key]
                for future in call.waiters:
                    if not future.done():
                        future.set_exception(_again(error))
                call.waiters.clear()
            task.cancel()
        return cut

    def _account_time(self) -> None:
        """Add the time since the last change; called before the number of calls in flight changes."""
        if self._loop is None:
            return
        now = self._loop.time()
        if self._tasks:
            self._busy_seconds += now - self._last_change
            self._slot_seconds += len(self._tasks) * (now - self._last_change)
        self._last_change = now


def _checked(response: Response, fingerprint: str) -> Response:
    """Return the response, or an error in its place when it answers another request."""
    if response.fingerprint == fingerprint:
        return response
    return replace(
        response,
        fingerprint=fingerprint,
        text="",
        reasoning=None,
        finish_reason="error",
        error="bad_response",
        detail=f"the engine answered request {response.fingerprint or '(none)'} in place of {fingerprint}",
    )


def _again(error: Interrupted | EngineUnavailable) -> Interrupted | EngineUnavailable:
    """Return an error of its own for each caller: one that is raised many times grows a traceback without end."""
    if isinstance(error, EngineUnavailable):
        copy: Interrupted | EngineUnavailable = EngineUnavailable(error.reason, error.detail)
    else:
        copy = Interrupted(*error.args)
    copy.__cause__ = error.__cause__
    return copy
