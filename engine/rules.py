"""What each engine takes whole, and what it must never be asked: one table, two entrances.

`Rules.admit_shape` serves the planner, which knows shapes only; `Rules.admit_request` serves the worker: it derives the
shape, applies the same rules, and adds what only the data can tell. An engine's own limits (its context length) are
put in with `dataclasses.replace(RULES["lmdeploy"], context_tokens=65536)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from s1batch.engine.conditioning import conditioned
from s1batch.engine.prompt_shape import PromptShape
from s1batch.engine.series_values import array_refusal, values_refusal
from s1batch.engine.tokens import (
    LMDEPLOY_LONGEST_SERIES,
    image_tokens,
    is_poison_rate,
    safe_rate,
    series_tokens,
    shortest_series,
)
from s1batch.records import Reason, Refusal, Request, SeriesPart, SeriesShape
from s1batch.special_tokens import contains_special

if TYPE_CHECKING:
    pass

Modality = Literal["text", "image", "series"]

TEMPLATE_TOKENS = 32
"""Tokens that the chat template adds around a prompt of a few turns; a round figure on the high side."""

SERIES_MARKERS = 2
"""`<|ts|>` and `<|/ts|>` around every series."""

TOKENS_PER_IMAGE = image_tokens(1024, 1024)
"""Tokens counted for an image, whose size the planner does not know: those of a square of one megapixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What one kind of engine takes.

    Attributes:
        name: The engine's kind, or the dialect that its server speaks.
        modalities: What a message may hold.
        longest_series: Samples that it takes whole; None means no limit of its own.
        series_per_request: How many series it sees in one request; None means all of them.
        series_with_images: Whether both may stand in one request.
        context_tokens: Most tokens of prompt and answer together; None means not known.
        template_tokens: What the chat template adds to a prompt.
        exclusive_series: Requests with series may be in flight together only when all are of the same (T, C, rate), and
            never together with images.
        nudges_rates: Whether sampling rates that break the engine are replaced by the nearest safe one.
        conditions_series: Whether channels that a z-score in float32 would damage are standardised beforehand.
        guided_json: Whether a grammar can force the answer into a schema.
        thinking: Whether the model can reason before it answers.
        thinking_budget: Whether its reasoning can be ended after a number of tokens.
        thinking_with_schema: Whether the grammar waits for the end of the reasoning. Where it does not, a request with
            both is sent without the grammar, and the job checks the answer.
        tools: Whether the model may call tools.
        admits_all: No rule applies (answers come from a recording).
        source: What the rules were read from.
    """

    name: str
    modalities: frozenset[Modality] = frozenset({"text"})
    longest_series: int | None = None
    series_per_request: int | None = None
    series_with_images: bool = True
    context_tokens: int | None = None
    template_tokens: int = TEMPLATE_TOKENS
    exclusive_series: bool = False
    nudges_rates: bool = False
    conditions_series: bool = False
    guided_json: bool = True
    thinking: bool = True
    thinking_budget: bool = False
    thinking_with_schema: bool = False
    tools: bool = False
    admits_all: bool = False
    source: str

    def admit_shape(self, shape: PromptShape) -> Refusal | None:
        """Return why a request of this shape must not be sent, or None."""
        if self.admits_all:
            return None
        return self._series_refusal(shape) or self._feature_refusal(shape) or self._context_refusal(shape)

    def admit_request(
        self, request: Request, text_tokens: int, count: Callable[[Request], int] | None = None
    ) -> Refusal | None:
        """Return why this request must not be sent, or None when the engine will see every sample of it.

        Args:
            request: The request, adapted or not.
            text_tokens: Tokens of its text (`estimate_text_tokens` where no tokenizer is at hand).
            count: Counts the tokens of the whole prompt, template and media included, of a request that keeps all other
                rules; None takes `prompt_tokens`.
        """
        if self.admits_all:
            return None
        series = request.series
        for part in series:
            if refusal := array_refusal(part.values_TC):
                return refusal
        shape = PromptShape.of(request, text_tokens)
        if refusal := self._series_refusal(shape) or self._feature_refusal(shape):
            return refusal
        if count is None and (refusal := self._context_refusal(shape)):
            return refusal
        for part in series:
            if refusal := values_refusal(part.values_TC):
                return refusal
        if any(contains_special(text) for text in (*(m.text for m in request.messages), request.tools_text)):
            return _refuse(
                "prompt_error",
                "the text holds one of the model's special tokens, which would be read as the real thing; "
                "pass it through s1batch.special_tokens.neutralise",
            )
        return None if count is None else self._longer_than_context(count(request), shape.max_tokens, "")

    def adapt(self, request: Request) -> Request:
        """Return the request as the engine takes it without damage: safe sampling rates, conditioned channels.

        A request that needs neither is returned as it is; adapting twice changes nothing.
        """
        series = request.series
        if not series:
            return request
        adapted = [self._adapted(part) for part in series]
        if all(new is old for new, old in zip(adapted, series, strict=True)):
            return request
        parts = iter(adapted)
        messages = tuple(
            replace(
                message,
                parts=tuple(next(parts) if isinstance(part, SeriesPart) else part for part in message.parts),
            )
            for message in request.messages
        )
        return replace(request, messages=messages)

    def batch_class(self, request: Request) -> Hashable | None:
        """Return the class of requests that may be in flight with this one; None goes with every class."""
        if not self.exclusive_series:
            return None
        return self._class_of(tuple(part.shape for part in request.series), len(request.images))

    def shape_class(self, shape: PromptShape) -> Hashable | None:
        """Return the class of requests of this shape, as `batch_class` will find it when they are made."""
        return self._class_of(shape.series, shape.images) if self.exclusive_series else None

    def prompt_tokens(self, shape: PromptShape) -> int:
        """Return the estimated tokens of the prompt: text, chat template, series and images."""
        media = sum(
            SERIES_MARKERS + series_tokens(each.steps, self._rate(each)) for each in shape.series if _has_rate(each)
        )
        media += sum(image_tokens(width, height) for width, height in shape.image_sizes)
        unknown = max(shape.images - len(shape.image_sizes), 0)
        return self.template_tokens + shape.text_tokens + media + unknown * TOKENS_PER_IMAGE

    def guides(self, *, schema: bool, thinking: bool) -> bool:
        """Return whether an answer, where it can be no call of a tool, will be forced into its schema."""
        return schema and self.guided_json and (self.thinking_with_schema or not thinking)

    def no_thinking_budget(self) -> str:
        """Return in words that the reasoning cannot be bounded here, and where it can."""
        able = [
            each.name
            for each in _ALL
            if each.thinking_budget and not each.admits_all and each.name != "lmdeploy_single_prefill"
        ]
        return (
            f"{self.name} cannot end the reasoning after a number of tokens; {', '.join(able)} can: leave "
            "job.sampling.thinking_budget out, job.sampling.max_tokens then bounds reasoning and answer together"
        )

    def _adapted(self, part: SeriesPart) -> SeriesPart:
        if self.nudges_rates:
            part = _nudged(part)
        return conditioned(part) if self.conditions_series else part

    def _class_of(self, series: tuple[SeriesShape, ...], images: int) -> Hashable | None:
        if series:
            return tuple((each.steps, each.channels, self._rate(each)) for each in series)
        return "images" if images else None

    def _rate(self, series: SeriesShape) -> float:
        return safe_rate(series.rate_hz) if self.nudges_rates else series.rate_hz

    def _series_refusal(self, shape: PromptShape) -> Refusal | None:
        if shape.series and "series" not in self.modalities:
            return _refuse(
                "series_not_supported",
                f"{self.name} does not encode time series for this model: only LMDeploy and the reference engine do; "
                "others drop them without a word",
            )
        if shape.images and "image" not in self.modalities:
            return _refuse("image_not_supported", f"{self.name} takes no images")
        if self.series_per_request is not None and len(shape.series) > self.series_per_request:
            return _refuse(
                "several_series",
                f"{len(shape.series)} series in one request, {self.name} sees {self.series_per_request}: "
                "put the channels into one series of shape (T, C)",
            )
        if shape.series and shape.images and not self.series_with_images:
            return _refuse(
                "series_with_image",
                f"{self.name} takes a series or images in one request, not both; `job.render: image` sends a plot in "
                "place of the series",
            )
        for series in shape.series:
            if refusal := self._one_series_refusal(series):
                return refusal
        return None

    def _one_series_refusal(self, series: SeriesShape) -> Refusal | None:
        steps, channels, rate_hz = series.steps, series.channels, series.rate_hz
        if not _has_rate(series):
            return _refuse("rate_missing", f"the sampling rate is {rate_hz!r} Hz; it must be positive")
        if channels < 1 or steps < channels:
            return _refuse(
                "wrong_shape",
                f"a series of shape ({steps}, {channels}) has more channels than samples: the shape is (time, channel)",
            )
        if steps < (shortest := shortest_series(self._rate(series))):
            return _refuse(
                "series_too_short",
                f"{steps} samples at {rate_hz:g} Hz; the encoder's first patch needs {shortest}: use longer windows "
                "or tail: pad",
            )
        if self.longest_series is not None and steps > self.longest_series:
            return _refuse(
                "series_too_long",
                f"{steps:,} samples; {self.name} reads the first {self.longest_series:,} and drops the rest: use "
                "shorter windows or a long_series policy",
            )
        return None

    def _feature_refusal(self, shape: PromptShape) -> Refusal | None:
        if shape.thinking and not self.thinking:
            return _refuse("thinking_not_supported", f"{self.name} has no way to ask for thinking")
        if shape.thinking_budget and not self.thinking_budget:
            return _refuse("thinking_not_supported", self.no_thinking_budget())
        if shape.schema and not self.guided_json:
            return _refuse(
                "schema_not_supported",
                f"{self.name} cannot force answers into a schema: set job.guided: false; answers are checked all the "
                "same, and go back to the model when they do not fit (job.repair)",
            )
        if shape.tools and not self.tools:
            return _refuse("tools_not_supported", f"{self.name} offers no tools to the model")
        return None

    def _context_refusal(self, shape: PromptShape) -> Refusal | None:
        return self._longer_than_context(self.prompt_tokens(shape), shape.max_tokens, "about ")

    def _longer_than_context(self, prompt: int, answer: int, about: str) -> Refusal | None:
        if self.context_tokens is None or prompt + answer <= self.context_tokens:
            return None
        return _refuse(
            "context_too_long",
            f"{about}{prompt:,} tokens of prompt and up to {answer:,} of answer do not fit the context of "
            f"{self.context_tokens:,} tokens",
        )


def estimate_text_tokens(text: str) -> int:
    """Return an estimate on the high side of the tokens of a text: its UTF-8 bytes / 3, rounded up.

    English prose has 4 to 5 bytes per token, JSON and Chinese about 3. Long digit strings can reach one token per
    byte; a tokenizer is the remedy where that matters.
    """
    nbytes = len(text) if text.isascii() else len(text.encode("utf-8", errors="replace"))
    return -(-nbytes // 3)


def _refuse(reason: Reason, detail: str) -> Refusal:
    return Refusal(outcome="refused", reason=reason, detail=detail)


def _has_rate(series: SeriesShape) -> bool:
    return 0 < series.rate_hz < math.inf


def _told(part: SeriesPart) -> float:
    return part.declared_rate_hz or part.rate_hz


def _nudged(part: SeriesPart) -> SeriesPart:
    told = _told(part)
    return replace(part, declared_rate_hz=safe_rate(told)) if is_poison_rate(told) else part


_LMDEPLOY = Rules(
    name="lmdeploy",
    modalities=frozenset({"text", "image", "series"}),
    longest_series=LMDEPLOY_LONGEST_SERIES,
    series_per_request=1,
    series_with_images=False,
    exclusive_series=True,
    nudges_rates=True,
    conditions_series=True,
    thinking_budget=True,
    tools=True,
    source="LMDeploy 0.18.0: the Intern-S1-Pro preprocessor and time-series model, the PyTorch engine's scheduler and "
    "model inputs; the real pipeline and scheduler were run over a stub engine",
)

_NO_SERIES = frozenset[Modality]({"text", "image"})

_ALL = (
    _LMDEPLOY,
    replace(
        _LMDEPLOY,
        name="lmdeploy_single_prefill",
        exclusive_series=False,
        source=f"{_LMDEPLOY.source}; started with max_prefill_token_num not above the smallest prompt and without "
        "prefix caching, so that no two prompts are prefilled together",
    ),
    Rules(
        name="vllm",
        modalities=_NO_SERIES,
        thinking_budget=True,
        tools=True,
        source="vLLM 0.33.0: its Intern-S1-Pro model drops the time-series weights",
    ),
    Rules(
        name="sglang",
        modalities=_NO_SERIES,
        thinking_budget=True,
        tools=True,
        source="SGLang 0.5.23: its Intern-S1-Pro model ignores the time-series weights",
    ),
    Rules(
        name="llama_cpp",
        modalities=_NO_SERIES,
        thinking_budget=True,
        tools=True,
        source="llama.cpp server: OpenAI-compatible chat completions",
    ),
    Rules(
        name="transformers",
        modalities=_NO_SERIES,
        guided_json=False,
        source="transformers serve (5.x): takes no response_format; transformers 5.23 does not know the model's series",
    ),
    Rules(
        name="openai",
        modalities=_NO_SERIES,
        thinking=False,
        tools=True,
        source="the OpenAI chat completions interface: no time-series content, no way to ask for thinking that all "
        "servers know",
    ),
    Rules(
        name="reference",
        modalities=frozenset({"text", "image", "series"}),
        conditions_series=True,
        thinking_budget=True,
        thinking_with_schema=True,
        tools=True,
        source="s1batch's reference model: computes one stride, in float64, for placeholders and embeddings alike",
    ),
    Rules(
        name="replay",
        modalities=frozenset({"text", "image", "series"}),
        thinking_budget=True,
        thinking_with_schema=True,
        tools=True,
        admits_all=True,
        source="a recording: whatever was asked was admitted when it was recorded",
    ),
)

RULES: Mapping[str, Rules] = MappingProxyType({rules.name: rules for rules in _ALL})
"""The rules by engine kind (`reference`, `replay`) or dialect of a server."""
