"""The real LMDeploy 0.18.0 (pipeline, chat template, tokenizer, preprocessing) over a stub engine, driven as in a run.

Every sample of an admitted request reaches the engine; what the rules refuse does break there, is cut or dropped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from s1batch.engine.lmdeploy.question import encode_question
from s1batch.engine.reference.chat import ChatFormat
from s1batch.engine.tokens import image_tokens, is_poison_rate, safe_rate, series_tokens, shortest_series
from s1batch.records import Message, Request, Sampling, SeriesPart, TextPart, Tool, ToolCall
from tests.engine.lmdeploy.conftest import Real
from tests.engine.lmdeploy.requests import checksum, question, told, wave
from tests.engine.reference.conftest import picture

pytestmark = pytest.mark.slow

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOL = Tool("depth", "How deep.", {"type": "object", "properties": {"station": {"type": "string"}}})


@pytest.fixture(scope="module")
def chat(checkpoint: Path) -> ChatFormat:
    return ChatFormat(checkpoint)


def test_of_200_mixed_requests_every_answer_belongs_to_its_request(real: Real, chat: ChatFormat) -> None:
    random = np.random.default_rng(7)
    kinds = [(6000, 3, 100.0), (6000, 3, 50.0), (2500, 1, 100.0), (800, 2, 2000.0)]
    sizes = [(320, 256), (64, 64), (333, 777)]
    requests, peaks, images = [], {}, {}
    for number in range(200):
        text = f"Question <<{number}>>: is there an earthquake?"
        if (kind := number % 8) < 4:
            steps, channels, rate_hz = kinds[kind]
            peaks[number] = int(random.integers(steps))
            requests.append(question(wave(steps, channels, rate_hz, peaks[number], seed=number), text=text))
        elif kind == 4:
            images[number] = sizes[number // 8 % 3]
            requests.append(question(picture(*images[number], seed=number), text=text))
        else:
            requests.append(question(text=text * (1 + number % 5), sampling={"thinking": number % 2 == 0}))
    assert [real.engine.admit(real.engine.adapt(request)) for request in requests] == [None] * 200
    before = len(real.seen())
    responses = real.feed(requests)
    for number, (request, response) in enumerate(zip(requests, responses, strict=True)):
        found = told(response) if not request.sampling.thinking else json.loads(response.reasoning or response.text)
        assert response.fingerprint == real.engine.adapt(request).fingerprint
        assert (found["tokens"], found["checksum"]) == checksum(chat, request), number
        assert response.prompt_tokens == found["tokens"]
        if number in peaks:
            (part,) = request.series
            safe_hz = safe_rate(part.rate_hz)
            assert found["peak"] == [peaks[number], 0], number
            assert found["shape"] == list(part.values_TC.shape)
            assert found["rate"] == pytest.approx(safe_hz)
            assert found["placeholders"] == series_tokens(len(part.values_TC), safe_hz)
        elif number in images:
            assert found["image_tokens"] == image_tokens(*images[number])
    seen = real.seen()[before:]
    marks = [line["marks"][0] for line in seen]
    assert sorted(marks, key=int) == [str(number) for number in range(200)], "each was asked once"
    assert {line["kinds"] for line in seen} <= {0, 1}, "series of different classes, and images, were never together"
    assert max(line["live"] for line in seen) > 4


@pytest.mark.parametrize("steps", [240_000, 239_999, shortest_series(100.0)])
def test_an_admitted_series_reaches_the_engine_whole(real: Real, steps: int) -> None:
    request = question(wave(steps, 3, 100.0, peak=steps - 1))
    assert real.engine.admit(request) is None
    found = told(real.ask(request))
    assert (found["shape"], found["peak"]) == ([steps, 3], [steps - 1, 0])
    assert found["placeholders"] == series_tokens(steps, 100.0)


REFUSED: dict[str, tuple[Request, str]] = {
    "too long": (question(wave(240_001, peak=240_000)), "series_too_long"),
    "two series": (question(wave(600), wave(700)), "several_series"),
    "series and image": (question(wave(600), picture(320, 256)), "series_with_image"),
    "too short": (question(wave(48)), "series_too_short"),
    "channels first": (question(SeriesPart(wave(6000, 3).values_TC.T.copy(), 100.0)), "wrong_shape"),
    "not finite": (question(SeriesPart(np.where(np.arange(900) == 7, np.nan, 1.0)[:, None], 100.0)), "not_finite"),
    "special token of a series": (question(wave(600), text="What is <TS_CONTEXT>?"), "prompt_error"),
    "special token of an image": (question(picture(64, 64), text="What is <|image_pad|>?"), "prompt_error"),
    "special token of a turn": (question(text="a<|im_end|>b"), "prompt_error"),
    "context": (question(text="one two three four " * 12_000), "context_too_long"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_does_break_there_or_is_cut_or_dropped(real: Real, chat: ChatFormat, name: str) -> None:
    request, reason = REFUSED[name]
    refusal = real.engine.admit(request)
    assert refusal is not None
    assert refusal.reason == reason
    response = real.ask(request)
    if name in ("series and image", "too short", "channels first"):
        assert response.error == "preprocess_failed"
        return
    if name in ("special token of an image", "context"):
        assert response.error in ("invalid_request", "context_length_exceeded")
        return
    found = told(response)  # answered, as if nothing were wrong
    match name:
        case "too long":
            assert found["shape"] == [240_000, 1]
            assert found["peak"] != [240_000, 0]
        case "two series" | "special token of a series":
            assert found["items"] == 0
        case "not finite":
            assert not found["finite"]
        case "special token of a turn":
            harmless, _ = checksum(chat, question(text="a<|im_end |>b"))
            assert found["tokens"] < harmless, "read as the end of the turn"


def test_a_torn_image_is_refused_where_lmdeploy_answers_about_grey(real: Real) -> None:
    whole = BytesIO()
    Image.effect_noise((320, 256), 80).convert("RGB").save(whole, "JPEG")
    torn = replace_data(whole.getvalue()[: len(whole.getvalue()) // 2])
    refusal = real.engine.admit(question(torn))
    assert refusal is not None
    response = real.ask(question(torn))
    assert response.error == "preprocess_failed" or told(response)["image_tokens"] == image_tokens(320, 256)


def replace_data(data: bytes) -> Any:
    return replace(picture(64, 64, kind="JPEG"), data=data)


def test_a_poison_rate_is_never_sent_and_its_neighbour_agrees(real: Real) -> None:
    assert is_poison_rate(2000.0)
    request = question(wave(40_000, 1, 2000.0))
    with pytest.raises(ValueError, match="breaks the encoder"):
        encode_question(request, real.engine.rules, generation={}, extras={})
    found = told(real.ask(request))
    assert found["rate"] == safe_rate(2000.0) == 1660.0
    assert found["placeholders"] == series_tokens(40_000, 1660.0)


def test_channels_that_a_z_score_in_float32_would_damage_arrive_standardised(real: Real) -> None:
    quiet = wave(6000, 2, peak=1234)
    offset = SeriesPart((quiet.values_TC * 1e-3 + 1e6).astype(np.float64), 100.0)
    request = real.engine.adapt(question(offset))
    assert request.series[0].conditioned
    assert told(real.ask(request))["peak"] == [1234, 0]


def test_tools_and_several_turns_become_the_prompt_that_is_counted(real: Real, chat: ChatFormat) -> None:
    call = ToolCall(id="call00000", name="depth", arguments='{"station": "é"}')
    turns = (
        Message(role="system", parts=(TextPart(text="Be "), TextPart(text="brief."))),
        Message(role="user", parts=(TextPart(text="How deep?"),)),
        Message(role="assistant", parts=(), tool_calls=(call,)),
        Message(role="tool", parts=(TextPart(text="8 km"),), tool_call_id="call00000"),
    )
    request = replace(question(), messages=turns, tools=(TOOL,))
    found = told(real.ask(request))
    assert (found["tokens"], found["checksum"]) == checksum(chat, request)


def test_a_call_in_the_answer_is_read(real: Real) -> None:
    text = '[[say <tool_call>\n{"name": "depth", "arguments": {"station": "A"}}\n</tool_call>]]'
    response = real.ask(replace(question(text=text), tools=(TOOL,), tool_choice="required"))
    assert response.finish_reason == "tool_calls"
    assert response.tool_calls == (ToolCall(name="depth", arguments='{"station": "A"}'),)


def test_thinking_is_split_off_and_a_schema_may_follow_it(real: Real) -> None:
    thinking = Sampling(max_tokens=400, thinking=True)
    request = replace(question(text='[[say I think.</think>\n\n{"a": 1}]]'), sampling=thinking, schema=SCHEMA)
    response = real.ask(request)
    assert (response.reasoning, response.text, response.finish_reason) == ("I think.", '{"a": 1}', "stop")
    cut = real.ask(replace(request, sampling=replace(thinking, max_tokens=2)))
    assert (cut.text, cut.finish_reason, cut.output_tokens) == ("", "length", 2)
    assert cut.reasoning


def test_a_schema_that_lmdeploys_grammar_cannot_follow_fails_its_own_request_only(real: Real) -> None:
    bad = {"type": "object", "properties": {"a": {"type": "nonsense"}}}
    found = real.feed([replace(question(text="x"), schema=bad), replace(question(text="y"), schema=SCHEMA)])
    assert [each.error for each in found] == ["invalid_request", None]


def test_probabilities_and_counts_reach_the_response(real: Real) -> None:
    response = real.ask(question(sampling={"logprobs": 2}, max_tokens=4))
    assert response.logprobs is not None
    assert [each.token for each in response.logprobs] == ['{"', "t", "ok", "ens"]
    assert [each.logprob for each in response.logprobs] == [-0.5] * 4
    assert [len(each.top) for each in response.logprobs] == [2] * 4
    assert (response.cached_tokens, response.output_tokens, response.finish_reason) == (7, 4, "length")
    none = real.ask(question(sampling={"temperature": 5.0}))
    assert none.error == "invalid_request"


def test_a_request_that_fails_in_the_engine_is_its_own(real: Real) -> None:
    pid = {line["pid"] for line in real.seen()}
    found = real.feed([question(text="[[raise]]"), question(text="[[raise-once]]"), question(text="fine")])
    assert [(each.error, each.attempts) for each in found] == [("internal_error", 3), (None, 2), (None, 1)]
    assert {line["pid"] for line in real.seen()} == pid, "the engine process goes on"


def test_longer_series_reach_the_engine_whole_where_that_is_asked_for(start: Callable[..., Real], real: Real) -> None:
    longer = start(longest_series=400_000)
    request = question(wave(400_000, 2, 100.0, peak=399_999))
    assert longer.engine.admit(request) is None
    found = told(longer.ask(request))
    assert (found["shape"], found["peak"]) == ([400_000, 2], [399_999, 0])
    assert found["placeholders"] == series_tokens(400_000, 100.0)
    over = longer.engine.admit(question(wave(400_001)))
    assert over is not None
    assert over.reason == "series_too_long"
    for steps, channels, rate_hz in ((49, 1, 100.0), (6000, 3, 100.0), (777, 1, 47.3), (240_000, 1, 1660.0)):
        shorter = question(wave(steps, channels, rate_hz))
        assert told(longer.ask(shorter)) == told(real.ask(shorter)), "below LMDeploy's limit nothing is different"


def test_expert_counts_are_those_of_every_token(real: Real) -> None:
    """The stub says experts 0, 1 and 5 in two layers for each token."""
    real.ask(question())  # so that there are counts of both layers
    while not (before := real.engine.expert_tokens()):
        time.sleep(0.05)
    response = real.ask(question())
    expected = (response.prompt_tokens or 0) + (response.output_tokens or 0)
    while (after := real.engine.expert_tokens())[0][0] < before[0][0] + expected:
        time.sleep(0.05)
    assert after[0] == after[1]
    assert [expert for expert, count in enumerate(after[0]) if count] == [0, 1, 5]
