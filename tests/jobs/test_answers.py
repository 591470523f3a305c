"""What a model writes is read strictly, repaired in one stated way, and never believed beyond its schema."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.jobs.answers import LONGEST_ANSWER, LONGEST_DETAIL, AnswerSchema, interpret_json, interpret_text
from s1batch.jobs.schema import load_schema
from s1batch.records import REASONS, Response
from tests.jobs.test_schema import HERE

SCHEMA = AnswerSchema(
    load_schema(
        {
            "type": "object",
            "properties": {
                "n": {"anyOf": [{"type": "integer", "maximum": 10**19}, {"type": "null"}]},
                "note": {"type": "string"},
                "deep": {},
            },
            "required": ["n"],
            "additionalProperties": False,
        },
        HERE,
    )
)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('{"n": 12}', {"n": 12, "note": None, "deep": None}),
        (' \n{"n": 12.0}\n', {"n": 12, "note": None, "deep": None}),
        ('{"n": null, "note": "a }{ \\" b"}', {"n": None, "note": 'a }{ " b', "deep": None}),
        ('{"n": 9223372036854775807, "deep": {"b": [1]}}', {"n": 2**63 - 1, "note": None, "deep": '{"b":[1]}'}),
    ],
)
def test_json_in_the_schema_is_taken_as_it_is(text: str, fields: dict[str, object]) -> None:
    found = SCHEMA.validate(text)
    assert (found.reason, found.detail, found.repaired) == (None, "", False)
    assert found.fields == fields


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"n": 12}\n```',
        'Sure! Here is "the answer": {"n": 12} I hope it helps.',
        '<answer>{"n": 12}</answer>',
        '\ufeff{"n": 12}',
        'Take the set {1, 2}. {"n": 12}',
    ],
)
def test_one_object_in_other_text_is_taken_out_and_told(text: str) -> None:
    found = SCHEMA.validate(text)
    assert found.fields["n"] == 12
    assert found.repaired
    assert "JSON taken out of" in found.detail


@pytest.mark.parametrize(
    ("text", "reason", "says"),
    [
        ("", "no_answer", "empty"),
        (" \n\t", "no_answer", "empty"),
        ("I cannot see the series.", "not_json", "it begins 'I cannot see"),
        ('{"n": 1', "not_json", "no JSON"),
        ("{'n': 1}", "not_json", "no JSON"),
        ('{"n": 1,}', "not_json", "no JSON"),
        ('{"n": NaN}', "not_json", "no JSON"),
        ('{"n": Infinity}', "not_json", "no JSON"),
        ('{"n": 1e999}', "not_json", "no JSON"),
        ('{"n": 1, "n": 2}', "not_json", "'n' stands twice"),
        ('{"n": 1, "deep": {"a": 1, "a": 1}}', "not_json", "'a' stands twice"),
        ('{"n": 1, "note": "a\x01b"}', "not_json", "control character"),
        ('{"n": 1, "note": "\\ud800"}', "not_json", "surrogate"),
        ('{"n": 1} {"n": 2}', "not_json", "several JSON objects"),
        ('{"n": 1, "deep": ' + "[" * 5000 + "]" * 5000 + "}", "not_json", "depth"),
        ("[1]", "not_in_schema", "not of type 'object'"),
        ("12", "not_in_schema", "not of type 'object'"),
        ("{}", "not_in_schema", "'n' is a required property"),
        ('{"n": "1"}', "not_in_schema", "n: '1' is not valid"),
        ('{"n": true}', "not_in_schema", "n: True is not valid"),
        ('{"n": 1.5}', "not_in_schema", "n: 1.5 is not valid"),
        ('{"n": 1, "extra": 2}', "not_in_schema", "'extra' was unexpected"),
        ('{"n": 9223372036854775808}', "out_of_range", "does not fit 64 bits"),
        ('{"n": -9223372036854775809}', "out_of_range", "beyond the integers"),
        ('{"n": 1e300}', "out_of_range", "greater than the maximum"),
        ('{"n": ' + "9" * 500 + "}", "not_json", "no JSON"),
    ],
)
def test_a_nasty_answer_has_a_typed_reason(text: str, reason: str, says: str) -> None:
    found = SCHEMA.validate(text)
    assert found.reason == reason
    assert says in found.detail
    assert found.fields == {}
    assert len(found.detail) <= LONGEST_DETAIL


@pytest.mark.parametrize(
    "text",
    [
        "{" * 1_900_000,
        '{"' + '\\"' * 900_000,
        "{}" * 900_000,
        '{"n": "' + "x" * 1_900_000 + '"}',
        '{"n": [' + "1," * 900_000 + "1]}",
        "x" * 10_000_000,
        '{"n": 1, "note": "' + "y" * 10_000_000 + '"}',
    ],
)
def test_a_huge_answer_ends_in_linear_time_and_with_a_short_detail(text: str) -> None:
    # Quadratic work on these would run into the timeout of every test.
    found = SCHEMA.validate(text)
    assert found.reason in ("not_json", "not_in_schema", "out_of_range")
    assert len(found.detail) <= LONGEST_DETAIL
    assert (len(text) > LONGEST_ANSWER) == (found.detail.startswith("the answer has"))


@settings(deadline=None)
@given(st.text(alphabet='{}[]",:\\`n1.e-tfu \n', max_size=60) | st.text(max_size=30))
def test_no_text_raises(text: str) -> None:
    found = SCHEMA.validate(text)
    assert (found.reason is None) == bool(found.fields)
    assert found.reason is None or found.reason in REASONS


@pytest.mark.parametrize(
    ("text", "finish", "outcome"),
    [
        ('{"n": 1}', "stop", "ok"),
        ('{"n": 1}', "length", "ok"),
        ('{"n": 1', "length", "length"),
        ("", "length", "length"),
        ('{"n": 1} and furthermore', "length", "length"),
        ('{"n": 1} and furthermore', "stop", "ok"),
        ('{"n": "x"}', "stop", "unparsed"),
    ],
)
def test_a_cut_answer_counts_only_when_it_is_complete(text: str, finish: str, outcome: str) -> None:
    response = Response(fingerprint="f", text=text, finish_reason=finish, output_tokens=64)  # type: ignore[arg-type]
    answer = interpret_json(response, SCHEMA)
    assert answer.outcome == outcome
    if outcome == "length":
        assert answer.reason == "output_limit"
        assert "64 tokens" in answer.detail


def test_free_text_is_ok_unless_empty_or_cut() -> None:
    assert interpret_text(Response(fingerprint="f", text="yes")).outcome == "ok"
    assert interpret_text(Response(fingerprint="f", text=" ")).reason == "no_answer"
    assert interpret_text(Response(fingerprint="f", text="ye", finish_reason="length")).outcome == "length"
