"""Prompts in the model's chat format, and answers split from their reasoning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from s1batch.engine.reference.chat import ChatFormat
from s1batch.engine.tokens import series_tokens
from s1batch.errors import EngineError
from s1batch.records import ImagePart, Message, SeriesPart, TextPart
from tests.engine.reference.conftest import picture


def user(*parts: str | SeriesPart | ImagePart) -> Message:
    return Message(role="user", parts=tuple(TextPart(text=p) if isinstance(p, str) else p for p in parts))


def series(steps: int, rate_hz: float = 100.0, declared: float | None = None) -> SeriesPart:
    return SeriesPart(np.zeros((steps, 1), dtype=np.float32), rate_hz, declared)


def test_without_thinking_the_thought_is_given_and_empty(chat: ChatFormat) -> None:
    prompt = chat.prompt([user("Hello")], thinking=False)
    assert prompt.text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n<think></think>\n\n"
    assert not prompt.thinking


def test_with_thinking_the_prompt_ends_inside_the_thought(chat: ChatFormat) -> None:
    prompt = chat.prompt([user("Hello")], thinking=True)
    assert prompt.text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n<think>"
    assert prompt.ids[-1] == chat.token_id("<think>")


def test_the_template_thinks_by_default_and_not_for_an_explicit_none(chat: ChatFormat) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    assert chat.render(messages).endswith("<think>")
    for value in (None, False):
        assert chat.render(messages, enable_thinking=value).endswith("<think></think>\n\n")


def test_there_is_no_default_system_prompt_and_a_given_one_comes_first(chat: ChatFormat) -> None:
    system = Message(role="system", parts=(TextPart(text="Be brief."),))
    answer = Message(role="assistant", parts=(TextPart(text="Yes"),))
    prompt = chat.prompt([system, user("A?"), answer, user("B?")], thinking=False)
    assert prompt.text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nA?<|im_end|>\n"
        "<|im_start|>assistant\nYes<|im_end|>\n<|im_start|>user\nB?<|im_end|>\n<|im_start|>assistant\n<think></think>\n\n"
    )


@pytest.mark.parametrize(
    ("steps", "rate_hz", "declared", "count"),
    [(6000, 100.0, None, 62), (6000, 2000.0, 1660.0, series_tokens(6000, 1660.0))],
)
def test_a_series_is_its_placeholders_between_its_marks(
    chat: ChatFormat, steps: int, rate_hz: float, declared: float | None, count: int
) -> None:
    prompt = chat.prompt([user(series(steps, rate_hz, declared), "What?")], thinking=False)
    assert f"user\n<|ts|>{'<TS_CONTEXT>' * count}<|/ts|>What?<|im_end|>" in prompt.text
    assert prompt.ids.count(chat.place_id) == count


def test_several_series_keep_their_order(chat: ChatFormat) -> None:
    prompt = chat.prompt([user("a", series(6000), "b", series(49), "c")], thinking=False)
    assert prompt.text.startswith(
        f"<|im_start|>user\na<|ts|>{'<TS_CONTEXT>' * 62}<|/ts|>b<|ts|><TS_CONTEXT><|/ts|>c<|im_end|>"
    )


def test_a_literal_placeholder_in_the_text_is_refused(chat: ChatFormat) -> None:
    for message in (
        user("a <TS_CONTEXT> b"),
        user(series(6000), "<TS_CONTEXT>"),
        user("<|image_pad|>"),
        user("<|image_pad|>", series(49)),
        user(picture(64, 64), "<TS_CONTEXT>", series(49), "<|image_pad|>"),
    ):
        with pytest.raises(EngineError, match=r"TS_CONTEXT|image_pad") as caught:
            chat.prompt([message], thinking=False)
        assert caught.value.reason == "prompt_error"


def test_an_image_is_its_placeholders_between_its_marks(chat: ChatFormat) -> None:
    prompt = chat.prompt([user(picture(320, 256), "What?")], thinking=False)
    assert f"user\n<|vision_start|>{'<|image_pad|>' * 80}<|vision_end|>What?<|im_end|>" in prompt.text
    assert prompt.ids.count(chat.image_id) == 80


def test_series_and_images_keep_their_order(chat: ChatFormat) -> None:
    prompt = chat.prompt([user(picture(320, 256), series(49), "b", picture(10, 10), series(6000))], thinking=False)
    places = [id for id in prompt.ids if id in (chat.image_id, chat.place_id)]
    assert places == [chat.image_id] * 80 + [chat.place_id] + [chat.image_id] * 64 + [chat.place_id] * 62


def test_an_image_that_cannot_be_measured_is_refused(chat: ChatFormat) -> None:
    with pytest.raises(EngineError) as caught:
        chat.prompt([user(ImagePart(b"x"))], thinking=False)
    assert caught.value.reason == "preprocess_failed"


def test_markup_and_template_code_in_the_text_stay_text(chat: ChatFormat) -> None:
    text = "{{ 7 * 7 }} {% raw %} <b>&amp; 'x'"
    assert text in chat.prompt([user(text)], thinking=False).text


def test_an_unknown_type_of_content_is_no_silent_gap(chat: ChatFormat) -> None:
    with pytest.raises(EngineError, match="no content of type audio"):
        chat.render([{"role": "user", "content": [{"type": "audio"}]}])


def test_tools_calls_and_responses_are_json_in_tags(chat: ChatFormat) -> None:
    call = {"function": {"name": "pick", "arguments": {"a": "<é>"}}}
    text = chat.render(
        [
            {"role": "system", "content": "S"},
            {"role": "user", "content": "U"},
            {"role": "assistant", "content": "", "tool_calls": [call, call]},
            {"role": "tool", "content": "1"},
            {"role": "tool", "content": "2"},
        ],
        tools=[{"type": "function", "function": {"name": "pick"}}],
        enable_thinking=False,
    )
    one = '<tool_call>\n{"name": "pick", "arguments": {"a": "<é>"}}\n</tool_call>'
    assert text.startswith("<|im_start|>system\nS\n\n# Tools")
    assert '<tools>\n{"type": "function", "function": {"name": "pick"}}\n</tools>' in text
    assert text.count("<|im_start|>system") == 1
    assert text.endswith(
        f"<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n{one}\n{one}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n<think></think>\n\n"
    )


def test_an_answer_is_split_from_its_reasoning(chat: ChatFormat) -> None:
    tokenizer = Tokenizer.from_str(chat.tokenizer_json)

    def ids(text: str) -> list[int]:
        return list(tokenizer.encode(text).ids)

    assert chat.split(ids("yes"), thinking=False) == ("yes", None)
    assert chat.split(ids("\nI see.\n</think>\n\nyes\n"), thinking=True) == ("yes\n", "I see.")
    assert chat.split(ids("I see no end"), thinking=True) == ("", "I see no end")
    assert chat.split(ids("a</think>b</think>c"), thinking=True) == ("b</think>c", "a")
    assert chat.split(ids("x<|im_end|>"), thinking=False) == ("x", None)


def test_tokens_are_counted_exactly(chat: ChatFormat) -> None:
    text = "Is there an earthquake at sample 12345?"
    prompt = chat.prompt([user(text)], thinking=True)
    around = len(chat.prompt([user("")], thinking=True).ids)
    assert len(prompt.ids) == around + chat.count_tokens(text)
    assert chat.count_tokens("12345") == 5


def test_transformers_reads_the_same_files_the_same_way(chat: ChatFormat, nano_folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    template = (nano_folder / "chat_template.jinja").read_text(encoding="utf-8")
    other: Any = PreTrainedTokenizerFast(tokenizer_file=str(nano_folder / "tokenizer.json"), chat_template=template)
    content = [{"type": "time_series"}, {"type": "text", "text": "a 12 <b> é"}]
    messages: list[dict[str, Any]] = [{"role": "system", "content": "S"}, {"role": "user", "content": content}]
    tools = [{"type": "function", "function": {"name": "<é"}}]
    for variables in ({}, {"enable_thinking": False}, {"enable_thinking": None}, {"tools": tools}):
        text = chat.render(messages, **variables)
        assert text == other.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **variables)
        ids = Tokenizer.from_str(chat.tokenizer_json).encode(text, add_special_tokens=False).ids
        assert other(text, add_special_tokens=False).input_ids == ids
