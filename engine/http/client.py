"""The engine: one pool of connections, endpoints chosen by least in flight, retries, and an end when all are dead."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Hashable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from s1batch.engine.http.affinity import beginnings
from s1batch.engine.http.discovery import describe, model_error
from s1batch.engine.http.http_client import HttpClient
from s1batch.engine.http.media_files import MediaFolder, MediaLease, within
from s1batch.engine.http.parse import LARGEST_BODY_BYTES, Answered, parse_response, too_large
from s1batch.engine.http.payload import encode_request
from s1batch.engine.http.question import Question, after_thought, is_over, joined, only_thought
from s1batch.engine.http.retry import Backoff, Failure
from s1batch.engine.http.routing import Endpoint, Router
from s1batch.engine.http.spec import Dialect, HttpEngineSpec
from s1batch.engine.http.wire import InvalidResponseError, ResponseTooLargeError, Route
from s1batch.engine.images import image_refusal
from s1batch.engine.rules import RULES, Rules, estimate_text_tokens
from s1batch.errors import EngineError, EngineUnavailable
from s1batch.records import ModelIdentity, Reason, Refusal, Request, Response

_log = logging.getLogger("s1batch.engine.http")

PROBE_TIMEOUT_S = 10.0

LOOK_AGAIN_S = 5.0
"""A request that waits until an endpoint is free of another class looks at least this often; it is woken before."""

STREAK_LIMIT = 20
"""Requests that fail in a row, none answered in between, after which the engine counts as gone."""

_NOTHING = nullcontext()

_DOOR_IS_SHUT: frozenset[Reason] = frozenset({"unauthorized", "not_found"})
"""Refusals that are asked once only, but that say something about the endpoint rather than about the request."""


class HttpEngine:
    """An engine behind one or more endpoints; made by `open_http`.

    Args:
        spec: The block of the job file, with model, dialect and context length resolved.
        client: The connections; closed by `aclose`.
        headers: Sent with every request; they may hold the key.
        router: The endpoints.
        backoff: Waits between attempts.
        media: Where series are put as files; None sends them along.
        rules: What the endpoints take, where more is known than their dialect.
        identity: The model, where it is not what the endpoints call it.
    """

    def __init__(
        self,
        spec: HttpEngineSpec,
        client: HttpClient,
        headers: dict[str, str],
        router: Router,
        backoff: Backoff,
        media: MediaFolder | None = None,
        *,
        rules: Rules | None = None,
        identity: ModelIdentity | None = None,
    ) -> None:
        if spec.dialect == "auto" or spec.model == "auto":
            raise ValueError("open_http resolves model and dialect")
        self.resolved = spec
        self.rules = rules or rules_of(spec, spec.dialect)
        self._identity = identity
        self._dialect: Dialect = spec.dialect
        self._client = client
        self._headers = headers
        self._secret = headers.get("Authorization", "").removeprefix("Bearer ")
        self._router = router
        self._routes = {each.url: Route.of(f"{each.url}/v1/chat/completions") for each in router.endpoints}
        self._heads = {url: route.head("POST", headers) for url, route in self._routes.items()}
        self._backoff = backoff
        self._media = media
        self._random = Random()
        self._slots = asyncio.Semaphore(spec.max_in_flight)
        self._readmitted = asyncio.Event()
        self._probes: set[asyncio.Task[None]] = set()
        self._streak = 0
        self._is_over_budget = False
        self._left: Callable[[], int | None] = _unknown
        self._has_several = len(router.endpoints) > 1
        self._count_prompt: Callable[[Request], int] | None = None

    def __repr__(self) -> str:
        return f"HttpEngine({self.name}, model={self.resolved.model!r}, urls={list(self.resolved.urls)})"

    @property
    def name(self) -> str:
        """`http:` and the dialect."""
        return f"http:{self._dialect}"

    @property
    def model(self) -> ModelIdentity:
        """The model as the endpoints name it, with the revision and formats that the job states."""
        spec = self.resolved
        return self._identity or ModelIdentity(
            name=spec.model, revision=spec.model_revision, dtype=spec.dtype, quantisation=spec.quantisation
        )

    def adapt(self, request: Request) -> Request:
        """Return the request with sampling rates that would break the encoder declared as safe ones."""
        return self.rules.adapt(request)

    def admit(self, request: Request) -> Refusal | None:
        """Return why the endpoints must not be asked, or None."""
        if self._count_prompt is not None:
            # Images first: their tokens follow from their sizes.
            return image_refusal(request) or self._exact_refusal(request, self._count_prompt)
        tokens = estimate_text_tokens(request.text + request.tools_text)
        return self.rules.admit_request(request, tokens) or image_refusal(request)

    def count_by(self, count: Callable[[Request], int]) -> None:
        """Count prompts exactly from now on: by the model's own tokenizer and template."""
        self._count_prompt = count

    def _exact_refusal(self, request: Request, count: Callable[[Request], int]) -> Refusal | None:
        try:
            return self.rules.admit_request(request, 0, count)
        except EngineError as error:  # the template refuses the conversation
            return Refusal(outcome="refused", reason=error.reason, detail=error.detail)

    def batch_class(self, request: Request) -> Hashable | None:
        """Return the class of requests that may be in flight together with this one.

        Of several endpoints each has a class of its own, which the router sees to: then requests need not wait for
        those of other endpoints.
        """
        return None if self._has_several else self.rules.batch_class(request)

    def answer(self, request: Request) -> Coroutine[Any, Any, Response]:
        """Answer an admitted request, asking again and elsewhere where that can help.

        Raises:
            EngineUnavailable: Every endpoint has been dead for `unavailable_after_s`, or `STREAK_LIMIT` requests in a
                row have failed for reasons that lie with the endpoints.
        """
        files = self._media.lease() if self._media is not None else None
        encode = partial(self._encode, files=files)
        # No frame holds the request while its answer is awaited: it can be megabytes.
        prompt = beginnings(request) if self._has_several else ()
        batch_class = self.rules.batch_class(request) if self._has_several else None
        budget = request.sampling.thinking_budget
        if budget is None or self._dialect != "lmdeploy":
            answering = self._answer(Question(request.fingerprint, request, encode, prompt, batch_class))
        else:
            question = Question(request.fingerprint, only_thought(request, budget), encode, prompt, batch_class)
            answering = self._answer_in_two(question, after_thought(request, budget, self.rules))
        return answering if files is None else within(files, answering)

    async def _answer_in_two(self, question: Question, behind: Mapping[str, Any]) -> Response:
        """Ask for the reasoning, and for the answer behind it when the budget cut it."""
        thought = await self._answer(question)
        if thought.error is not None or thought.finish_reason != "length":
            return thought
        question.go_on(thought.reasoning or "", behind)
        return joined(thought, await self._answer(question))

    async def _answer(self, question: Question) -> Response:
        fingerprint, expected, batch_class = question.fingerprint, question.expected, question.batch_class
        deadline = time.monotonic() + self.resolved.total_timeout_s
        failure = Failure(reason="deadline", detail="no endpoint could be asked before the deadline")
        last: Endpoint | None = None
        attempts = 0
        while attempts < self._backoff.max_attempts:
            async with self._slots:
                # Nearly always one is free: then nobody has to be counted as waiting.
                endpoint = self._free_endpoint(last, deadline, question) or await self._next_endpoint(
                    last, deadline, question
                )
                if endpoint is None:
                    break
                body = question.body  # not before its turn
                attempts += 1
                sent = time.monotonic()
                try:
                    with _NOTHING if batch_class is None else self._router.computing(endpoint, batch_class):
                        result = self._clean(await self._attempt(endpoint, body, expected, deadline))
                finally:
                    if self._router.has_room_for_waiting(endpoint):
                        self._wake()
                seconds = time.monotonic() - sent
            self._report(endpoint, result, sent)
            if isinstance(result, Answered):
                self._router.took(endpoint, seconds)
                self._check_budget(endpoint, question.budget, result)
                return self._response(fingerprint, result, attempts, seconds)
            failure, last = result, endpoint
            if not failure.retry or attempts == self._backoff.max_attempts:
                break
            await asyncio.sleep(
                max(min(self._backoff.delay_s(attempts, self._random), deadline - time.monotonic()), 0.0)
            )
        self._count(failure)
        return Response(
            fingerprint=fingerprint,
            finish_reason="error",
            attempts=attempts,
            engine=self.name,
            model=self.resolved.model,
            error=failure.reason,
            detail=failure.detail if last is None else f"{last.url}: {failure.detail}",
        )

    def look_ahead(self, left: Callable[[], int | None]) -> None:
        """Learn how many requests are still to be answered, so that none of the last ones goes to a slow endpoint."""
        self._left = left

    async def aclose(self) -> None:
        """Stop the probes and close every connection."""
        for probe in self._probes:
            probe.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)
        await self._client.aclose()
        if self._media is not None:
            self._media.close()

    def start_probing(self, endpoint: Endpoint) -> None:
        """Ask an ejected endpoint now and then whether it works again, in the background."""
        probe = asyncio.create_task(self._revive(endpoint))
        self._probes.add(probe)
        probe.add_done_callback(self._probes.discard)

    # ------------------------------------------------------------------------------------------------ one attempt

    def _encode(self, request: Request, files: MediaLease | None) -> bytes:
        return encode_request(request, model=self.resolved.model, dialect=self._dialect, rules=self.rules, files=files)

    async def _attempt(
        self, endpoint: Endpoint, body: bytes, expected: Mapping[str, bool], deadline: float
    ) -> Answered | Failure:
        timeout_s = min(self.resolved.timeout_s, deadline - time.monotonic())
        head = b"%bContent-Length: %d\r\n\r\n" % (self._heads[endpoint.url], len(body))
        try:
            with self._router.using(endpoint):
                reply = await self._client.send(
                    self._routes[endpoint.url], head, body, timeout_s=timeout_s, largest=LARGEST_BODY_BYTES
                )
        except TimeoutError:
            return _broken("deadline", f"no answer within {timeout_s:g} s")
        except InvalidResponseError as error:
            return _broken("bad_response", str(error))
        except ResponseTooLargeError:
            return too_large()
        except OSError as error:
            return _broken("connection", str(error))
        received = reply.body
        if self._secret:
            received = received.replace(self._secret.encode(), b"***")
        return parse_response(reply.status, reply.headers, received, **expected)

    def _clean(self, result: Answered | Failure) -> Answered | Failure:
        """Return a failure's detail as one line without the key."""
        if isinstance(result, Answered):
            return result
        return replace(result, detail=" ".join(self._without_key(result.detail).split())[:500])

    def _without_key(self, text: str) -> str:
        return text.replace(self._secret, "***") if self._secret else text

    def _report(self, endpoint: Endpoint, result: Answered | Failure, sent: float) -> None:
        now = time.monotonic()
        if isinstance(result, Failure) and result.retry_after_s is not None:
            self._router.cool(endpoint, now + result.retry_after_s)
        if isinstance(result, Answered) or not result.blames_endpoint:
            passed = endpoint.on_trial
            self._router.succeeded(endpoint)
            if passed:
                self._wake()
        elif self._router.failed(endpoint, result.detail, now, sent):
            _log.warning("%s is left out until it works again: %s", endpoint.url, result.detail)
            self.start_probing(endpoint)

    def _check_budget(self, endpoint: Endpoint, budget: int | None, answered: Answered) -> None:
        """Say once that a server does not end the reasoning: some take the field and do nothing."""
        if not self._is_over_budget and is_over(budget, answered.reasoning, answered.reasoning_tokens):
            self._is_over_budget = True
            _log.warning(
                "%s does not keep job.sampling.thinking_budget: reasoning goes past %s tokens; start it as "
                "docs/servers.md says",
                endpoint.url,
                budget,
            )

    def _response(self, fingerprint: str, answered: Answered, attempts: int, seconds: float) -> Response:
        self._streak = 0
        return Response(
            fingerprint=fingerprint,
            text=answered.text,
            reasoning=answered.reasoning,
            finish_reason=answered.finish_reason,
            prompt_tokens=answered.prompt_tokens,
            cached_tokens=answered.cached_tokens,
            output_tokens=answered.output_tokens,
            seconds=seconds,
            attempts=attempts,
            engine=self.name,
            model=answered.model or self.resolved.model,
            tool_calls=answered.tool_calls,
            logprobs=answered.logprobs,
        )

    def _count(self, failure: Failure) -> None:
        """Raise when so many requests have failed in a row that it is the engine, and not they."""
        if not (failure.retry or failure.blames_endpoint or failure.reason in _DOOR_IS_SHUT):
            self._streak = 0
            return
        self._streak += 1
        if self._streak >= STREAK_LIMIT:
            raise EngineUnavailable(
                "engine_unavailable",
                f"{self._streak} requests in a row have failed, none was answered in between; the last: "
                f"{failure.detail}. Check the endpoints ({', '.join(self.resolved.urls)}), then run again to go on",
            )

    # -------------------------------------------------------------------------------------------------- endpoints

    def _free_endpoint(self, last: Endpoint | None, deadline: float, question: Question) -> Endpoint | None:
        """Return the endpoint to ask now; None when none is free, or it is too late."""
        now = time.monotonic()
        if now >= deadline:
            return None
        return self._router.pick(now, last, self._left(), question.batch_class, question.prompt)

    async def _next_endpoint(self, last: Endpoint | None, deadline: float, question: Question) -> Endpoint | None:
        """Return the endpoint to ask, waiting for one if need be; None when none will be free before the deadline."""
        batch_class = question.batch_class
        with self._router.waiting_for(batch_class) as wait:
            while (now := time.monotonic()) < deadline:
                if (endpoint := self._free_endpoint(last, deadline, question)) is not None:
                    return endpoint
                if batch_class is not None and self._router.is_in_use(now):
                    # Endpoints work, and have other classes.
                    wait()
                    self._router.promise(now, batch_class, self.resolved.max_in_flight)
                    await self._wait(min(LOOK_AGAIN_S, deadline - now))
                    continue
                dead_s, wait_s = self._router.dead_for_s(now), self._router.next_change_s(now)
                patience_s = self.resolved.unavailable_after_s - dead_s
                if patience_s <= 0:
                    raise EngineUnavailable("engine_unavailable", self._obituary(dead_s))
                if wait_s < float("inf") and now + wait_s >= deadline:
                    return None
                await self._wait(min(wait_s, patience_s, deadline - now))
        return None

    async def _wait(self, seconds: float) -> None:
        """Wait until an endpoint is readmitted or has passed its trial, or as long as stated."""
        try:
            async with asyncio.timeout(seconds):
                await self._readmitted.wait()
        except TimeoutError:
            return

    def _obituary(self, dead_s: float) -> str:
        last = "; ".join(f"{each.url}: {each.last_error}" for each in self._router.endpoints)
        return f"no endpoint has worked for {dead_s:.0f} s ({last}); start them, then run again to go on"

    async def _revive(self, endpoint: Endpoint) -> None:
        while True:
            await asyncio.sleep(self._router.probe_delay_s(endpoint))
            found = await describe(self._client, endpoint.url, self._headers, PROBE_TIMEOUT_S)
            error = found.error or model_error(found, self.resolved.model, self._dialect)
            if not error:
                break
            self._router.probe_failed(endpoint, self._without_key(error))
        _log.warning("%s is used again", endpoint.url)
        self._router.readmit(endpoint, time.monotonic())
        self._wake()

    def _wake(self) -> None:
        """Let everybody who waits for an endpoint look again."""
        self._readmitted.set()
        self._readmitted = asyncio.Event()


def rules_of(spec: HttpEngineSpec, dialect: Dialect) -> Rules:
    """Return the rules of a dialect, with what the job file says of the server."""
    name = "lmdeploy_single_prefill" if dialect == "lmdeploy" and spec.single_prefill else dialect
    return replace(RULES[name], context_tokens=spec.context_tokens)


def _unknown() -> None:
    """Say that it is not known how much is left."""


def _broken(reason: Reason, detail: str) -> Failure:
    return Failure(reason=reason, detail=detail, retry=True, blames_endpoint=True)
