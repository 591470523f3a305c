"""`ReferenceEngine`: the reference model behind the `Engine` seam.

Requests wait in a queue; one thread takes up to `max_batch` of them, prefills each, and lets their answers grow
together until all have ended. What goes wrong with one request becomes that request's response.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from s1batch import __version__
from s1batch.engine.images import image_refusal
from s1batch.engine.reference.cache import KVCache
from s1batch.engine.reference.chat import ChatFormat, Prompt
from s1batch.engine.reference.generate import Generation, Generator
from s1batch.engine.reference.guided import Grammars
from s1batch.engine.reference.model import InternS1Pro
from s1batch.engine.reference.sampler import Sampler
from s1batch.engine.reference.spec import model_rules
from s1batch.engine.rules import Rules
from s1batch.engine.tool_text import take_calls
from s1batch.errors import EngineError, EngineUnavailable
from s1batch.records import ModelIdentity, Reason, Refusal, Request, Response, ToolCall

GATHER_S = 0.005
"""How long the first request of a batch waits for company."""


class ReferenceEngine:
    """Answers requests with a model in this process.

    Args:
        model: The network with its weights.
        chat: Its tokenizer and chat template.
        identity: Which weights these are.
        max_batch: Most answers that grow together.
        threads: Threads that encode series; None means as many as torch would use. The engine's thread sets torch's own
            threads to one, see `generate`.

    Attributes:
        rules: What it takes; the planner refuses by the same ones.
        closing: Whether `aclose` was called.
    """

    def __init__(
        self,
        *,
        model: InternS1Pro,
        chat: ChatFormat,
        identity: ModelIdentity,
        max_batch: int = 16,
        threads: int | None = None,
    ) -> None:
        text = model.config.text
        self.rules: Rules = model_rules(model.config)
        self._text = text
        self._chat = chat
        self._identity = identity
        self._grammars = Grammars(chat, text.vocab_size)
        self._network = model
        self._max_batch = max_batch
        self._threads = threads or torch.get_num_threads()
        self._tickets: queue.SimpleQueue[_Ticket | None] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._lock = threading.Lock()
        self._ended = ""
        self.closing = False

    @property
    def name(self) -> str:
        """Kind and version."""
        return f"reference {__version__}"

    @property
    def model(self) -> ModelIdentity:
        """The weights that answer."""
        return self._identity

    def count_tokens(self, text: str) -> int:
        """Return how many tokens a text becomes, exactly."""
        return self._chat.count_tokens(text)

    def adapt(self, request: Request) -> Request:
        """Return the request as it is: nothing needs a change here."""
        return self.rules.adapt(request)

    def admit(self, request: Request) -> Refusal | None:
        """Return why the request must not be asked: by the rules, its exact tokens, its grammar or its images."""
        try:
            self._prepare(request)
        except EngineError as error:
            return Refusal(outcome="refused", reason=error.reason, detail=error.detail)
        return image_refusal(request)

    def batch_class(self, request: Request) -> Hashable | None:
        """Return None: every request goes with every other."""
        return self.rules.batch_class(request)

    async def answer(self, request: Request) -> Response:
        """Answer a request; a cancelled call frees its place before the next token.

        Raises:
            EngineUnavailable: The engine is closed, or its thread died.
        """
        ticket = _Ticket(request, asyncio.get_running_loop())
        with self._lock:  # a ticket is either refused here, or seen by the thread before it ends
            if self._ended or self.closing:
                raise _gone(self._ended or "closed")
            self._tickets.put(ticket)
            if self._worker is None:
                # A daemon, so that an engine that nobody closed does not keep the process alive.
                self._worker = threading.Thread(target=self._work, name="reference-engine", daemon=True)
                self._worker.start()
        try:
            return await ticket.future
        finally:
            ticket.abandoned = True

    async def aclose(self) -> None:
        """Stop after the running token and join the thread; answers under way end as `EngineUnavailable`."""
        with self._lock:
            self.closing = True
            self._tickets.put(None)
        if self._worker is not None:
            await asyncio.to_thread(self._worker.join)

    # ------------------------------------------------------------------------------------ on the engine's thread

    def _work(self) -> None:
        held: list[_Ticket] = []
        ending = "closed"
        try:
            torch.set_num_threads(1)
            with ThreadPoolExecutor(self._threads, "reference-series", torch.set_num_threads, (1,)) as pool:
                generator = Generator(self._network, pool if self._threads > 1 else None)
                while not self.closing:
                    held.clear()
                    self._gather(held)
                    self._run(generator, held)
        except BaseException as error:
            ending = f"its thread died of {error!r}"
            raise
        finally:
            with self._lock:
                self._ended = ending
                while not self._tickets.empty():
                    if (ticket := self._tickets.get()) is not None:
                        held.append(ticket)
            for ticket in held:
                ticket.settle(_gone(ending))

    def _gather(self, held: list[_Ticket]) -> None:
        """Wait for a request, and a little longer for others; None among them means that the engine closes."""
        ticket = self._tickets.get()
        until = time.monotonic() + GATHER_S
        while ticket is not None:
            held.append(ticket)
            if len(held) == self._max_batch:
                return
            try:
                ticket = self._tickets.get(timeout=max(until - time.monotonic(), 0.0))
            except queue.Empty:
                return

    def _run(self, generator: Generator, held: Sequence[_Ticket]) -> None:
        started = [(ticket, self._begin(generator, ticket)) for ticket in held]
        live = [(ticket, generation) for ticket, generation in started if generation is not None]
        while live and not self.closing:
            for ticket, generation in live:
                if generation.finish_reason is not None:
                    ticket.settle(self._response(ticket, generation))
            live = [pair for pair in live if pair[1].finish_reason is None and not pair[0].abandoned]
            generator.step([generation for _, generation in live])

    def _begin(self, generator: Generator, ticket: _Ticket) -> Generation | None:
        """Return the answer after its first token; None when there is none to go on with."""
        try:
            ticket.check(self)
            generation = self._generation(ticket.request)
            request = ticket.request
            generator.prefill(generation, request.series, request.images, lambda: ticket.check(self))
        except _Abandoned:
            return None
        except EngineError as error:
            ticket.settle(self._failure(ticket, error.reason, error.detail))
            return None
        except (MemoryError, RuntimeError) as error:
            # torch reports a failed allocation as a RuntimeError; either way only this prompt was being worked on.
            ticket.settle(self._failure(ticket, "engine_error", f"the prompt could not be processed: {error}"))
            return None
        return generation

    def _prepare(self, request: Request) -> Prompt:
        """Return the request's prompt, when it is one that may be asked."""
        rules = replace(self.rules, context_tokens=None)  # exact tokens decide below, not the rules' estimate
        if refusal := rules.admit_request(request, text_tokens=0):
            raise EngineError(refusal.reason, refusal.detail)
        self._grammars.of(request)
        prompt = self._chat.prompt(request.messages, thinking=request.sampling.thinking, tools=request.tools)
        context = self._text.max_position_embeddings
        if len(prompt.ids) + request.sampling.max_tokens > context:
            raise EngineError(
                "context_too_long",
                f"{len(prompt.ids):,} tokens of prompt and up to {request.sampling.max_tokens:,} of answer do not fit "
                f"the context of {context:,} tokens",
            )
        return prompt

    def _generation(self, request: Request) -> Generation:
        prompt = self._prepare(request)
        return Generation(
            prompt=prompt,
            sampler=Sampler(request, prompt.ids, self._chat.vocabulary),
            guide=self._grammars.of(request),
            cache=KVCache(self._text),
            max_tokens=request.sampling.max_tokens,
            end_ids=self._chat.end_ids,
        )

    def _response(self, ticket: _Ticket, generation: Generation) -> Response:
        if generation.failure is not None:
            return self._failure(ticket, generation.failure.reason, generation.failure.detail)
        text, reasoning = self._chat.split(generation.output_ids, thinking=generation.prompt.thinking)
        finish_reason = generation.finish_reason or "stop"
        calls: tuple[ToolCall, ...] = ()
        if ticket.request.may_call and finish_reason == "stop":
            text, calls = take_calls(text)
        return Response(
            fingerprint=ticket.request.fingerprint,
            text=text,
            reasoning=reasoning,
            finish_reason="tool_calls" if calls else finish_reason,
            tool_calls=calls,
            prompt_tokens=len(generation.prompt.ids),
            cached_tokens=0,
            output_tokens=generation.generated,
            seconds=time.monotonic() - ticket.started,
            engine=self.name,
            model=self._identity.name,
        )

    def _failure(self, ticket: _Ticket, reason: Reason, detail: str) -> Response:
        return Response(
            fingerprint=ticket.request.fingerprint,
            finish_reason="error",
            seconds=time.monotonic() - ticket.started,
            engine=self.name,
            model=self._identity.name,
            error=reason,
            detail=detail,
        )


class _Abandoned(Exception):
    """Nobody waits for this answer any more."""


class _Ticket:
    """One call of `answer`: its request, and the way back to the event loop that waits for it."""

    def __init__(self, request: Request, loop: asyncio.AbstractEventLoop) -> None:
        self.request = request
        self.started = time.monotonic()
        self.abandoned = False
        self.future: asyncio.Future[Response] = loop.create_future()
        self._loop = loop

    def check(self, engine: ReferenceEngine) -> None:
        """Raise when the answer is not wanted any more."""
        if self.abandoned or engine.closing:
            raise _Abandoned

    def settle(self, result: Response | EngineUnavailable) -> None:
        """Give the result to whoever waits, if anybody still does."""
        if self.abandoned:
            return
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
            self._loop.call_soon_threadsafe(self._deliver, result)

    def _deliver(self, result: Response | EngineUnavailable) -> None:
        if self.future.done():
            return
        if isinstance(result, EngineUnavailable):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


def _gone(why: str) -> EngineUnavailable:
    return EngineUnavailable("engine_unavailable", f"the reference engine gives no more answers: {why}")
