"""An engine without a model: answers come from a function or from the stored answers of another run.

With stored answers a changed interpretation, schema of the table, or score costs no GPU: the same requests are built
again, and what was answered then is interpreted anew. With a function, tests and dry runs have an engine that does
exactly what they say.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from pydantic import Field, model_validator

from s1batch import __version__
from s1batch.config import Config, placement
from s1batch.engine.rules import RULES, Rules, estimate_text_tokens
from s1batch.engine.stored_answers import StoredAnswers
from s1batch.errors import EngineError, EngineUnavailable, UsageError
from s1batch.records import ModelIdentity, Refusal, Request, Response

Answers = Callable[[Request], Response | str | Awaitable[Response | str]]
"""A function that answers a request, plain or async; a plain one must be quick, for nothing else runs meanwhile."""


_WHO_ADAPTS = (RULES["reference"], RULES["lmdeploy"])
"""The rules of the engines whose answers may have been stored for an adapted request."""


class ReplayEngine:
    """Answers from a function or from stored answers.

    An unknown fingerprint is answered with the error `not_found`, which becomes a row `failed`. A function may return
    a text or a whole `Response`, and raise `EngineError` (this request fails) or `EngineUnavailable` (the engine is
    gone); whatever else it raises is a bug in it and comes through.

    Args:
        answers: The function, or the stored answers.
        model: Who is said to answer; for stored answers the model that did, or no fingerprint will be found.
        rules: Refuses and groups requests like another engine; by default everything is admitted and goes together.
        latency_s: Seconds before each answer, or a function of the request that gives them.
    """

    def __init__(
        self,
        answers: Answers | StoredAnswers,
        *,
        model: ModelIdentity,
        rules: Rules | None = None,
        latency_s: float | Callable[[Request], float] = 0.0,
    ) -> None:
        self._answers = answers
        self._model = model
        self._rules = rules
        self._latency_s = latency_s

    @property
    def name(self) -> str:
        """Kind and version."""
        return f"replay {__version__}"

    @property
    def model(self) -> ModelIdentity:
        """Who is said to answer."""
        return self._model

    def adapt(self, request: Request) -> Request:
        """Return the request as it was asked when its answer was stored.

        An engine may have been told a neighbouring sampling rate in place of one that would have broken it, or been
        sent a channel standardised, and that is part of the fingerprint: those forms are tried when the request itself
        is not known.
        """
        if self._rules is not None:
            request = self._rules.adapt(request)
        if isinstance(self._answers, StoredAnswers) and self._answers.get(request.fingerprint) is None:
            for rules in _WHO_ADAPTS:
                adapted = rules.adapt(request)
                if adapted is not request and self._answers.get(adapted.fingerprint) is not None:
                    return adapted
        return request

    def admit(self, request: Request) -> Refusal | None:
        """Return the refusal of the rules, if there are any."""
        if self._rules is None:
            return None
        return self._rules.admit_request(request, estimate_text_tokens(request.text + request.tools_text))

    def batch_class(self, request: Request) -> Hashable | None:
        """Return the class that the rules give, if there are any."""
        return None if self._rules is None else self._rules.batch_class(request)

    async def answer(self, request: Request) -> Response:
        """Return the stored answer, or the function's."""
        started = perf_counter()
        latency_s = self._latency_s(request) if callable(self._latency_s) else self._latency_s
        if latency_s > 0:
            await asyncio.sleep(latency_s)
        if isinstance(self._answers, StoredAnswers):
            return self._stored(self._answers, request)
        try:
            found = self._answers(request)
            answer = await found if inspect.isawaitable(found) else found
        except EngineUnavailable:
            raise
        except EngineError as error:
            return self._failed(request, error)
        if isinstance(answer, str):
            seconds = perf_counter() - started
            return self._signed(Response(fingerprint=request.fingerprint, text=answer, seconds=seconds))
        if isinstance(answer, Response):
            return self._signed(answer if answer.fingerprint else replace(answer, fingerprint=request.fingerprint))
        raise TypeError(f"the function of the replay engine returned {type(answer).__name__}, not a text or a Response")

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _stored(self, answers: StoredAnswers, request: Request) -> Response:
        found = answers.get(request.fingerprint)
        if found is None:
            detail = (
                f"no stored answer in {answers.path} has the fingerprint {request.fingerprint}: "
                "the prompt, sampling, seed, schema, data or model differ from what was asked then"
            )
            return self._failed(request, EngineError("not_found", detail))
        return replace(found, engine=f"{self.name} of {found.engine}" if found.engine else self.name)

    def _failed(self, request: Request, error: EngineError) -> Response:
        failed = Response(
            fingerprint=request.fingerprint, finish_reason="error", error=error.reason, detail=error.detail, attempts=0
        )
        return self._signed(failed)

    def _signed(self, response: Response) -> Response:
        return replace(response, engine=response.engine or self.name, model=response.model or self._model.name)


class ReplayEngineSpec(Config):
    """The block `engine: {kind: replay, ...}` of a job file.

    The model's identity is part of every fingerprint. It is taken from `run.json` in the stored run's directory
    (`{"model": {"name", "revision", "dtype", "quantisation"}}`); answers without a `run.json` need it here.
    """

    kind: Literal["replay"] = "replay"
    path: str | None = Field(None, description="results directory, .parquet or .jsonl file with stored answers")
    function: str | None = Field(None, description="module:callable that takes a Request and returns its answer")
    model: str | None = Field(None, description="who is said to answer; read from the stored run's run.json")
    revision: str | None = Field(None, description="revision of the model, likewise")
    dtype: str | None = Field(None, description="type of its weights, likewise")
    quantisation: str | None = Field(None, description="quantisation of its weights, likewise")
    latency_s: float = placement(0.0, ge=0, description="seconds before each answer")

    @model_validator(mode="after")
    def _check(self) -> ReplayEngineSpec:
        if (self.path is None) == (self.function is None):
            raise ValueError("engine: a replay engine needs either path or function")
        return self

    def identity(self) -> ModelIdentity:
        """Return the model that the answers are of.

        Raises:
            UsageError: It is told nowhere, or the job and `run.json` disagree.
        """
        given = {
            name: value
            for name, value in (
                ("name", self.model),
                ("revision", self.revision),
                ("dtype", self.dtype),
                ("quantisation", self.quantisation),
            )
            if value is not None
        }
        if self.path is None:
            return ModelIdentity(**{"name": str(self.function), **given})
        stored = _stored_identity(Path(self.path))
        if stored is None:
            if self.model is None:
                raise UsageError(f"no run.json beside {self.path}: give engine.model, whose answers these are")
            return ModelIdentity(**given)
        for name, value in given.items():
            if getattr(stored, name) != value:
                raise UsageError(
                    f"engine: {name} is {value!r}, but the answers in {self.path} are of {getattr(stored, name)!r}; "
                    "leave it out to replay them"
                )
        return stored

    def open(self, rules: Rules | None = None) -> ReplayEngine:
        """Index the stored answers, or import the function.

        Raises:
            UsageError: The path or the function cannot be used; the text says why.
        """
        model = self.identity()
        answers = StoredAnswers(Path(self.path)) if self.path is not None else _imported(str(self.function))
        return ReplayEngine(answers, model=model, rules=rules, latency_s=self.latency_s)


def _stored_identity(path: Path) -> ModelIdentity | None:
    """Read the model from the `run.json` of the results directory that `path` is, or lies in."""
    import orjson

    for folder in (path, path.parent, path.parent.parent):
        file = folder / "run.json"
        if not file.is_file():
            continue
        try:
            run = orjson.loads(file.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise UsageError(f"{file} cannot be read: {error}") from error
        model = run.get("model") if isinstance(run, dict) else None
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            raise UsageError(f'{file} does not say which model answered: it has no "model": {{"name": ...}}')
        parts = ("name", "revision", "dtype", "quantisation")
        return ModelIdentity(**{part: str(model.get(part) or "") for part in parts})
    return None


def _imported(function: str) -> Answers:
    module, _, name = function.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"engine.function {function!r} cannot be imported as module:callable: {error}") from error
    if not callable(found):
        raise UsageError(f"engine.function {function!r} is no function")
    answers: Answers = found
    return answers
