"""Each engine's rules: what is admitted, what is refused and why, and that both entrances agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from s1batch.engine.prompt_shape import PromptShape
from s1batch.engine.rules import RULES, estimate_text_tokens
from s1batch.engine.tokens import is_poison_rate, series_tokens, shortest_series
from s1batch.records import (
    ImagePart,
    Message,
    ModelIdentity,
    Part,
    Request,
    Sampling,
    SeriesPart,
    SeriesShape,
    TextPart,
)


def series(steps: int = 6000, channels: int = 3, rate_hz: float = 100.0) -> SeriesShape:
    return SeriesShape(steps=steps, channels=channels, rate_hz=rate_hz)


def request(*parts: Part, sampling: Sampling | None = None, schema: dict[str, str] | None = None) -> Request:
    return Request(
        messages=(Message(role="user", parts=parts),),
        sampling=sampling or Sampling(),
        model=ModelIdentity(name="mock"),
        schema=schema,
    )


def wave(steps: int = 6000, channels: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(steps, channels)).astype(np.float32)


IMAGE = ImagePart(b"png")
TEXT = TextPart(text="When does the P wave arrive?")

SHAPES = [
    ("lmdeploy", PromptShape(), None),
    ("lmdeploy", PromptShape(series=(series(),)), None),
    ("lmdeploy", PromptShape(images=3), None),
    ("lmdeploy", PromptShape(series=(series(steps=240_000),)), None),
    ("lmdeploy", PromptShape(series=(series(steps=240_001),)), "series_too_long"),
    ("lmdeploy", PromptShape(series=(series(steps=1_000_000),)), "series_too_long"),
    ("lmdeploy", PromptShape(series=(series(steps=49),)), None),
    ("lmdeploy", PromptShape(series=(series(steps=48),)), "series_too_short"),
    ("lmdeploy", PromptShape(series=(series(steps=149, rate_hz=200),)), None),
    ("lmdeploy", PromptShape(series=(series(steps=148, rate_hz=200),)), "series_too_short"),
    ("lmdeploy", PromptShape(series=(series(steps=320, rate_hz=16_000),)), "series_too_short"),
    ("lmdeploy", PromptShape(series=(series(), series())), "several_series"),
    ("lmdeploy", PromptShape(series=(series(),), images=1), "series_with_image"),
    ("lmdeploy", PromptShape(series=(series(rate_hz=2000),)), None),
    ("lmdeploy", PromptShape(series=(series(steps=3, channels=6000),)), "wrong_shape"),
    ("lmdeploy", PromptShape(series=(series(steps=0),)), "wrong_shape"),
    ("lmdeploy", PromptShape(series=(series(channels=0),)), "wrong_shape"),
    ("lmdeploy", PromptShape(series=(series(rate_hz=0.0),)), "rate_missing"),
    ("lmdeploy", PromptShape(series=(series(rate_hz=-1.0),)), "rate_missing"),
    ("lmdeploy", PromptShape(series=(series(rate_hz=float("nan")),)), "rate_missing"),
    ("lmdeploy", PromptShape(series=(series(rate_hz=float("inf")),)), "rate_missing"),
    ("lmdeploy", PromptShape(thinking=True, schema=True), None),
    ("transformers", PromptShape(tools=True), "tools_not_supported"),
    ("lmdeploy_single_prefill", PromptShape(series=(series(steps=240_001),)), "series_too_long"),
    ("lmdeploy_single_prefill", PromptShape(series=(series(),), images=1), "series_with_image"),
    ("vllm", PromptShape(series=(series(),)), "series_not_supported"),
    ("sglang", PromptShape(series=(series(),)), "series_not_supported"),
    ("llama_cpp", PromptShape(series=(series(),)), "series_not_supported"),
    ("transformers", PromptShape(series=(series(),)), "series_not_supported"),
    ("transformers", PromptShape(schema=True), "schema_not_supported"),
    ("openai", PromptShape(series=(series(),)), "series_not_supported"),
    ("openai", PromptShape(thinking=True), "thinking_not_supported"),
    ("openai", PromptShape(schema=True, images=2), None),
    ("reference", PromptShape(series=(series(), series(steps=500))), None),
    ("reference", PromptShape(series=(series(steps=1_000_000),)), None),
    ("reference", PromptShape(series=(series(steps=48),)), "series_too_short"),
    ("reference", PromptShape(images=1), None),
    ("reference", PromptShape(series=(series(),), images=2), None),
    ("replay", PromptShape(series=(series(steps=1, channels=9, rate_hz=-1),) * 3, images=2, tools=True), None),
]


@pytest.mark.parametrize(("name", "shape", "reason"), SHAPES)
def test_a_shape_is_admitted_or_refused_for_the_stated_reason(
    name: str, shape: PromptShape, reason: str | None
) -> None:
    refusal = RULES[name].admit_shape(shape)
    assert (refusal.reason if refusal else None) == reason
    assert refusal is None or (refusal.outcome == "refused" and refusal.detail)


def test_every_rule_cites_what_it_was_read_from() -> None:
    assert set(RULES) == {
        "lmdeploy",
        "lmdeploy_single_prefill",
        "vllm",
        "sglang",
        "llama_cpp",
        "transformers",
        "openai",
        "reference",
        "replay",
    }
    assert all(rules.source and rules.name == name for name, rules in RULES.items())


def test_the_context_holds_prompt_and_answer() -> None:
    rules = replace(RULES["reference"], context_tokens=1024)
    shape = PromptShape(text_tokens=100, series=(series(),), max_tokens=512)
    free = 1024 - rules.prompt_tokens(shape) - 512
    assert rules.admit_shape(replace(shape, text_tokens=100 + free)) is None
    refusal = rules.admit_shape(replace(shape, text_tokens=101 + free))
    assert refusal is not None
    assert refusal.reason == "context_too_long"


def test_a_series_counts_its_tokens_at_the_rate_that_the_engine_is_told() -> None:
    shape = PromptShape(series=(series(steps=60_000, rate_hz=3600.0),))
    nudged = PromptShape(series=(series(steps=60_000, rate_hz=3680.0),))
    assert RULES["lmdeploy"].prompt_tokens(shape) == RULES["lmdeploy"].prompt_tokens(nudged)
    plain = RULES["lmdeploy"].prompt_tokens(PromptShape())
    assert RULES["lmdeploy"].prompt_tokens(PromptShape(series=(series(),))) == plain + series_tokens(6000, 100) + 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_refuses_the_series(bad: float) -> None:
    values = wave()
    values[5999, 2] = bad
    for name in ("lmdeploy", "reference"):
        refusal = RULES[name].admit_request(request(SeriesPart(values, 100.0)), 0)
        assert refusal is not None
        assert refusal.reason == "not_finite"
        assert "1 of 18,000" in refusal.detail
    assert RULES["replay"].admit_request(request(SeriesPart(values, 100.0)), 0) is None


def test_values_whose_squares_overflow_float32_are_refused() -> None:
    refusal = RULES["lmdeploy"].admit_request(request(SeriesPart(wave() * np.float32(1e18), 100.0)), 0)
    assert refusal is not None
    assert refusal.reason == "not_finite"
    assert "z-score" in refusal.detail
    assert RULES["lmdeploy"].admit_request(request(SeriesPart(wave() * np.float32(2**31), 100.0)), 0) is None


@pytest.mark.parametrize(
    "values",
    [
        np.ones(6000, np.float32),
        np.ones((6000, 3, 1), np.float32),
        np.ones((3, 6000), np.float32),
        np.ones((6000, 3), np.complex64),
        np.array([["a"]] * 100),
    ],
)
def test_an_array_that_is_not_time_by_channel_is_refused(values: NDArray[np.float32]) -> None:
    refusal = RULES["lmdeploy"].admit_request(request(SeriesPart(values, 100.0)), 0)
    assert refusal is not None
    assert refusal.reason == "wrong_shape"


@pytest.mark.parametrize("text", ["<TS_CONTEXT>", "a <|im_end|> b", "x</think>"])
def test_special_tokens_in_text_are_refused(text: str) -> None:
    refusal = RULES["lmdeploy"].admit_request(request(TextPart(text=text)), 5)
    assert refusal is not None
    assert refusal.reason == "prompt_error"


def test_a_special_token_that_two_parts_form_together_is_refused() -> None:
    refusal = RULES["lmdeploy"].admit_request(request(TextPart(text="<TS_"), TextPart(text="CONTEXT>")), 5)
    assert refusal is not None
    assert refusal.reason == "prompt_error"


def test_poison_rates_are_declared_as_safe_ones_and_nothing_else_changes() -> None:
    asked = request(TEXT, SeriesPart(wave(), 2000.0))
    adapted = RULES["lmdeploy"].adapt(asked)
    assert adapted.series[0].declared_rate_hz == 1660.0
    assert adapted.series[0].rate_hz == 2000.0
    assert adapted.series[0].values_TC is asked.series[0].values_TC
    assert adapted.fingerprint != asked.fingerprint
    assert replace(adapted, messages=asked.messages) == replace(asked)
    assert RULES["lmdeploy"].adapt(adapted) is adapted


@pytest.mark.parametrize("rate_hz", [float("nan"), float("inf"), -1e9, 0.0])
def test_a_rate_that_is_none_is_refused_and_breaks_nothing_on_the_way(rate_hz: float) -> None:
    asked = request(SeriesPart(wave(), rate_hz))
    for rules in RULES.values():
        assert rules.adapt(asked) is asked
        rules.batch_class(asked)
        rules.prompt_tokens(PromptShape(series=(series(rate_hz=rate_hz),)))
    refusal = RULES["lmdeploy"].admit_request(asked, 0)
    assert refusal is not None
    assert refusal.reason == "rate_missing"


@pytest.mark.parametrize("name", ["reference", "replay", "vllm"])
def test_engines_without_poison_rates_change_nothing(name: str) -> None:
    asked = request(SeriesPart(wave(), 2000.0))
    assert RULES[name].adapt(asked) is asked


@given(st.floats(0.01, 20_000))
def test_no_adapted_request_holds_a_poison_rate(rate_hz: float) -> None:
    adapted = RULES["lmdeploy"].adapt(request(SeriesPart(np.ones((400, 1), np.float32), rate_hz)))
    assert not is_poison_rate(adapted.series[0].shape.rate_hz)


def test_only_series_of_one_shape_and_rate_share_a_class_and_images_have_another() -> None:
    rules = RULES["lmdeploy"]
    first = rules.batch_class(request(TEXT, SeriesPart(wave(), 100.0)))
    assert first == rules.batch_class(request(SeriesPart(wave() * np.float32(2), 100.0)))
    others = [
        rules.batch_class(request(SeriesPart(wave(5999), 100.0))),
        rules.batch_class(request(SeriesPart(wave(6000, 1), 100.0))),
        rules.batch_class(request(SeriesPart(wave(), 50.0))),
        rules.batch_class(request(IMAGE)),
    ]
    assert len({first, *others}) == 5
    assert None not in {first, *others}
    assert rules.batch_class(request(TEXT)) is None
    hash(first)


def test_nothing_is_kept_apart_where_prompts_are_never_prefilled_together() -> None:
    for name in ("lmdeploy_single_prefill", "reference", "replay", "vllm"):
        assert RULES[name].batch_class(request(SeriesPart(wave(), 100.0))) is None
        assert RULES[name].batch_class(request(IMAGE)) is None


def test_the_grammar_is_left_out_where_it_would_forbid_thinking() -> None:
    assert RULES["lmdeploy"].guides(schema=True, thinking=False)
    assert not RULES["lmdeploy"].guides(schema=True, thinking=True)
    assert not RULES["lmdeploy"].guides(schema=False, thinking=False)
    assert RULES["reference"].guides(schema=True, thinking=True)
    assert not RULES["transformers"].guides(schema=True, thinking=False)


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("abc", 1), ("abcd", 2), ("地震", 2), ("\ud800", 1)])
def test_text_tokens_are_estimated_as_a_third_of_the_bytes(text: str, tokens: int) -> None:
    assert estimate_text_tokens(text) == tokens


@settings(max_examples=150)
@given(
    name=st.sampled_from(sorted(RULES)),
    shapes=st.lists(
        st.tuples(
            st.integers(0, 700),
            st.integers(0, 4),
            st.sampled_from([-1.0, 0.0, 0.5, 20.0, 100.0, 200.0, 2000.0, 5000.0]),
        ),
        max_size=2,
    ),
    images=st.integers(0, 2),
    thinking=st.booleans(),
    schema=st.booleans(),
    max_tokens=st.integers(1, 4000),
    text_tokens=st.integers(0, 4000),
    context=st.sampled_from([None, 100, 4096]),
)
def test_a_request_of_clean_data_is_judged_as_its_shape_is(
    name: str,
    shapes: list[tuple[int, int, float]],
    images: int,
    thinking: bool,
    schema: bool,
    max_tokens: int,
    text_tokens: int,
    context: int | None,
) -> None:
    rules = replace(RULES[name], context_tokens=context)
    parts = [SeriesPart(np.ones((steps, channels), np.float32), rate) for steps, channels, rate in shapes]
    asked = request(
        TEXT,
        *parts,
        *[IMAGE] * images,
        sampling=Sampling(max_tokens=max_tokens, thinking=thinking),
        schema={"type": "object"} if schema else None,
    )
    shape = PromptShape(
        text_tokens=text_tokens,
        series=tuple(series(*each) for each in shapes),
        images=images,
        max_tokens=max_tokens,
        thinking=thinking,
        schema=schema,
    )
    judged = rules.admit_request(asked, text_tokens)
    assert judged == rules.admit_shape(shape)
    assert PromptShape.of(asked, text_tokens) == shape
    if judged is None and not rules.admits_all:
        adapted = rules.adapt(asked)
        assert rules.admit_request(adapted, text_tokens) is None
        assert rules.batch_class(adapted) == rules.batch_class(asked)
        for part in adapted.series:
            assert part.shape.steps >= shortest_series(part.shape.rate_hz)


def test_images_of_known_size_count_their_own_tokens_and_others_those_of_a_megapixel() -> None:
    rules = RULES["reference"]
    none = rules.prompt_tokens(PromptShape())
    assert rules.prompt_tokens(PromptShape(images=1, image_sizes=((320, 256),))) - none == 80
    assert rules.prompt_tokens(PromptShape(images=2, image_sizes=((320, 256),))) - none == 80 + 1024
