"""Calls of tools that are forced, and answers that may be calls."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pytest

from s1batch.engine.reference.chat import ChatFormat
from s1batch.engine.reference.guided import Grammars, Guide
from s1batch.engine.tool_text import take_calls
from s1batch.errors import EngineError
from s1batch.records import Request, Tool
from tests.engine.reference.conftest import ask

DISTANCE = {
    "type": "object",
    "properties": {"distance_deg": {"type": "number"}, "unit": {"$ref": "#/$defs/unit"}},
    "required": ["distance_deg", "unit"],
    "additionalProperties": False,
    "$defs": {"unit": {"enum": ["s", "min"]}},
}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS = (Tool("travel-time", 'How "long" it takes.', DISTANCE), Tool("now", "The time.", NOTHING))
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def grammars(chat: ChatFormat) -> Grammars:
    return Grammars(chat, 1024)


def calling(**changes: Any) -> Request:
    return replace(ask(), tools=TOOLS, **changes)


def written(guide: Guide, seed: int, chat: ChatFormat, limit: int = 400) -> str:
    """An answer of random tokens among those that are allowed."""
    random = np.random.default_rng(seed)
    ids: list[int] = []
    while not guide.finished and len(ids) < limit:
        allowed = np.flatnonzero(guide.allowed().numpy())
        token = int(random.choice(allowed))
        if token in chat.end_ids:
            break
        ids.append(token)
        guide.accept(token)
    return chat.split(ids, thinking=False)[0]


def takes(guide: Guide, text: str, chat: ChatFormat) -> bool:
    """Whether the guide admits a text, and its end after it."""
    for token in chat.encode(text):
        if not guide.allowed()[token]:
            return False
        guide.accept(token)
    return guide.finished or bool(guide.allowed()[list(chat.end_ids)].any())


@pytest.mark.parametrize("choice", ["required", "travel-time", "now"])
def test_a_required_answer_is_one_call_that_fits_the_tools_schema(
    choice: str, grammars: Grammars, chat: ChatFormat
) -> None:
    names = set()
    for seed in range(12):
        guide = grammars.of(calling(tool_choice=choice, schema=SCHEMA if seed % 2 else None))
        assert guide is not None
        text = written(guide, seed, chat)
        rest, calls = take_calls(text)
        assert (rest, len(calls)) == ("", 1), text
        names.add(calls[0].name)
        parameters = DISTANCE if calls[0].name == "travel-time" else NOTHING
        jsonschema.validate(json.loads(calls[0].arguments), parameters)
    assert names == ({tool.name for tool in TOOLS} if choice == "required" else {choice})


def test_the_tags_are_their_own_tokens(grammars: Grammars, chat: ChatFormat) -> None:
    guide = grammars.of(calling(tool_choice="now"))
    assert guide is not None
    assert np.flatnonzero(guide.allowed().numpy()).tolist() == [chat.token_id("<tool_call>")]


def test_with_a_schema_an_answer_is_either_calls_or_the_schemas(grammars: Grammars, chat: ChatFormat) -> None:
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    for text, fits in (
        ('{"ok": true}', True),
        (call, True),
        (f"{call}\n{call}", True),
        (f'{call}\n{{"ok": true}}', False),
        ("free text", False),
        (call.replace("now", "later"), False),
    ):
        guide = grammars.of(calling(schema=SCHEMA))
        assert guide is not None
        assert takes(guide, text, chat) == fits, text


def test_without_a_schema_or_without_calls_the_guide_is_the_one_without_tools(
    grammars: Grammars, chat: ChatFormat
) -> None:
    assert grammars.of(calling()) is None
    assert grammars.of(calling(tool_choice="none")) is None
    guide = grammars.of(calling(tool_choice="none", schema=SCHEMA))
    assert guide is not None
    assert takes(guide, '{"ok": true}', chat)


def test_a_thought_comes_before_the_call(grammars: Grammars, chat: ChatFormat) -> None:
    request = calling(tool_choice="now")
    guide = grammars.of(replace(request, sampling=replace(request.sampling, thinking=True)))
    assert guide is not None
    assert takes(guide, 'Hm.</think>\n\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>', chat)


def test_parameters_without_a_grammar_are_a_reason(grammars: Grammars) -> None:
    odd = Tool("odd", "", {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}})
    with pytest.raises(EngineError) as caught:
        grammars.of(replace(ask(), tools=(odd,), tool_choice="required"))
    assert caught.value.reason == "schema_not_supported"
