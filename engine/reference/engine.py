"""`ReferenceEngine`: the reference model behind the `Engine` seam.

Requests wait in a queue; one thread takes them into a batch (`batching`), which they join and leave token by token.
What goes wrong with one request becomes that request's response.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from s1batch import __version__
from s1batch.engine.images import image_refusal
from s1batch.engine.reference.batching import Abandoned, Batch
from s1batch.engine.reference.chat import ChatFormat, Prompt
from s1batch.engine.reference.generate import Generation, Generator
from s1batch.engine.reference.guided import Grammars
from s1batch.engine.reference.kv_pool import KVPool
from s1batch.engine.reference.model import InternS1Pro
from s1batch.engine.reference.sampler import Sampler
from s1batch.engine.reference.spec import KV_MB, model_rules
from s1batch.engine.rules import Rules
from s1batch.engine.tool_text import take_calls
from s1batch.errors import EngineError, EngineUnavailable
from s1batch.records import ModelIdentity, Reason, Refusal, Request, Response, TokenLogprob, ToolCall


class ReferenceEngine:
    """Answers requests with a model in this process.

    Args:
        model: The network with its weights.
        chat: Its tokenizer and chat template.
        identity: Which weights these are.
        max_batch: Most answers that grow together.
        threads: Threads that share the work; None means as many as torch would use. Each sets torch's own threads to
            one, see `generate`.
        kv_mb: Most memory for keys and values, in MB of 2**20 bytes.

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
        kv_mb: int = KV_MB,
    ) -> None:
        text = model.config.text
        self.rules: Rules = model_rules(model.config)
        self._text = text
        self._chat = chat
        self._identity = identity
        self._grammars = Grammars(chat, text.vocab_size)
        self._network = model
        self._generator = Generator(model)
        self._pool = KVPool(text, kv_mb << 20, model.lm_head.weight.dtype)
        self._kv_mb = kv_mb
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

    @property
    def expert_groups(self) -> int:
        """Groups that the experts of a layer are divided into."""
        return self._text.router_n_groups

    def expert_tokens(self) -> list[list[int]]:
        """Return how many tokens each expert worked on since the engine was opened, by layer and expert."""
        return self._generator.use.counts()

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
        ticket = _Ticket(self, request, asyncio.get_running_loop())
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
        held: set[_Ticket] = set()
        ending = "closed"
        try:
            torch.set_num_threads(1)
            with ThreadPoolExecutor(self._threads, "reference-work", torch.set_num_threads, (1,)) as threads:
                if self._threads > 1:
                    self._generator.pool = threads
                batch = Batch(self._generator, self._pool, most=self._max_batch, prefills=self._threads)
                while not self.closing:
                    self._take_in(batch, held)
                    batch.turn()
        except BaseException as error:
            ending = f"its thread died of {error!r}"
            raise
        finally:
            with self._lock:
                self._ended = ending
                while not self._tickets.empty():
                    if (ticket := self._tickets.get()) is not None:
                        held.add(ticket)
            for ticket in list(held):
                ticket.settle(_gone(ending))

    def _take_in(self, batch: Batch, held: set[_Ticket]) -> None:
        """Take in the requests that came meanwhile; wait for one when there is nothing else to do."""
        while batch.idle or not self._tickets.empty():
            ticket = self._tickets.get()
            if ticket is None:
                return  # the engine closes
            held.add(ticket)
            ticket.ended = held.discard
            batch.add(ticket)

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
        needed = self._pool.row_bytes(len(prompt.ids) + request.sampling.max_tokens)
        if needed > self._kv_mb << 20:
            raise EngineError(
                "context_too_long",
                f"{len(prompt.ids):,} tokens of prompt and up to {request.sampling.max_tokens:,} of answer need "
                f"{needed / 2**20:,.1f} MB of keys and values, and engine.kv_mb allows {self._kv_mb:,}",
            )
        return prompt

    def _generation(self, request: Request) -> Generation:
        prompt = self._prepare(request)
        return Generation(
            prompt=prompt,
            sampler=Sampler(request, prompt.ids, self._chat.vocabulary),
            guide=self._grammars.of(request),
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
            logprobs=self._logprobs(ticket.request, generation),
        )

    def _logprobs(self, request: Request, generation: Generation) -> tuple[TokenLogprob, ...] | None:
        if request.sampling.logprobs is None:
            return None
        shown = self._chat.token_text
        return tuple(
            TokenLogprob(shown(each.token), each.logprob, tuple((shown(token), value) for token, value in each.top))
            for each in generation.chosen
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


class _Ticket:
    """One call of `answer`: its request, and the way back to the event loop that waits for it; see `batching.Asked`."""

    def __init__(self, engine: ReferenceEngine, request: Request, loop: asyncio.AbstractEventLoop) -> None:
        self.request = request
        self.started = time.monotonic()
        self.abandoned = False
        self.future: asyncio.Future[Response] = loop.create_future()
        self.ended: Callable[[_Ticket], None] | None = None
        self._engine = engine
        self._loop = loop
        self._generation: Generation | None = None

    def check(self) -> None:
        """Raise when the answer is not wanted any more."""
        if self.abandoned:
            self._forget()
        if self.abandoned or self._engine.closing:
            raise Abandoned

    def prepare(self) -> Generation:
        """Return the request's generation."""
        if self._generation is None:
            self._generation = self._engine._generation(self.request)
        return self._generation

    def answered(self, generation: Generation) -> None:
        """Give the answer."""
        self.settle(self._engine._response(self, generation))

    def failed(self, reason: Reason, detail: str) -> None:
        """Say why there is none."""
        self.settle(self._engine._failure(self, reason, detail))

    def settle(self, result: Response | EngineUnavailable) -> None:
        """Give the result to whoever waits, if anybody still does."""
        self._forget()
        if self.abandoned:
            return
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
            self._loop.call_soon_threadsafe(self._deliver, result)

    def _forget(self) -> None:
        if self.ended is not None:
            self.ended(self)
            self.ended = None

    def _deliver(self, result: Response | EngineUnavailable) -> None:
        if self.future.done():
            return
        if isinstance(result, EngineUnavailable):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


def _gone(why: str) -> EngineUnavailable:
    return EngineUnavailable("engine_unavailable", f"the reference engine gives no more answers: {why}")
