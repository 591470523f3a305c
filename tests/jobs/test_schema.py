"""A JSON Schema becomes typed columns, and every value that it allows fits them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.errors import JobFileError
from s1batch.jobs.answers import AnswerSchema
from s1batch.jobs.schema import answer_columns, load_schema

HERE = Path(__file__).parent


def types_of(properties: dict[str, Any], **more: Any) -> dict[str, pa.DataType]:
    document = load_schema({"type": "object", "properties": properties, **more}, HERE)
    return {column.name: column.type for column in answer_columns(document)}


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"type": "boolean"}, pa.bool_()),
        ({"type": "integer"}, pa.int64()),
        ({"type": "number"}, pa.float64()),
        ({"type": ["integer", "number"]}, pa.float64()),
        ({"type": "string", "format": "date-time"}, pa.string()),
        ({"type": ["integer", "null"]}, pa.int64()),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, pa.int64()),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}, {"const": None}]}, pa.float64()),
        ({"enum": ["P", "S", None]}, pa.string()),
        ({"enum": [1, 2]}, pa.int64()),
        ({"enum": [1, 2.5]}, pa.float64()),
        ({"const": True}, pa.bool_()),
        ({"type": "null"}, pa.string()),
        ({"type": "array", "items": {"type": "integer"}}, pa.list_(pa.int64())),
        (
            {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "string"}}},
            pa.struct([("a", pa.float64()), ("b", pa.string())]),
        ),
        ({"$ref": "#/$defs/phase"}, pa.string()),
        ({"allOf": [{"$ref": "#/$defs/phase"}]}, pa.string()),
    ],
)
def test_a_schema_with_one_type_gives_that_arrow_type(node: dict[str, Any], expected: pa.DataType) -> None:
    assert types_of({"x": node}, **{"$defs": {"phase": {"enum": ["P", "S"]}}}) == {"x": expected}


@pytest.mark.parametrize(
    "node",
    [
        True,
        {},
        {"type": ["string", "integer"]},
        {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": True},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]},
        {"type": "array"},
        {"enum": ["a", 1]},
    ],
)
def test_a_schema_without_one_type_gives_json_text(node: Any) -> None:
    assert types_of({"x": node}) == {"x": pa.string()}


def test_recursion_ends_in_json_text() -> None:
    tree = {"type": "object", "properties": {"name": {"type": "string"}, "child": {"$ref": "#/$defs/tree"}}}
    found = types_of({"root": {"$ref": "#/$defs/tree"}}, **{"$defs": {"tree": tree}})
    assert found == {"root": pa.struct([("name", pa.string()), ("child", pa.string())])}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"type": "array", "items": {"type": "integer"}}, "top level must be an object with properties"),
        ({"type": "object"}, "top level must be an object with properties"),
        ({"type": "object", "properties": {"x": {"type": "intger"}}}, "no valid JSON Schema at properties/x/type"),
        ({"type": "object", "properties": {"P wave": {}}}, "cannot name a column"),
        ({"type": "object", "properties": {"a": {}, "A": {}}}, "differ only in case"),
        ({"type": "object", "properties": {"x": {"$ref": "#/$defs/none"}}}, "leads nowhere"),
        ({"type": "object", "properties": {"x": {"$ref": "https://example.org/x.json"}}}, "leads nowhere"),
        ({"type": "object", "properties": {"x": {"const": float("nan")}}}, "holds what JSON does not"),
        ({"type": "object", "properties": {True: {"type": "string"}}}, "holds what JSON does not"),
        ("missing.json", "cannot read"),
        ("no_such_module:Model", "cannot import"),
        ("json:NoSuchModel", "has no 'NoSuchModel'"),
        ("json:JSONDecoder", "no pydantic model"),
        ("json:loads", "no pydantic model"),
    ],
)
def test_a_wrong_schema_is_refused_with_the_reason(document: Any, says: str) -> None:
    with pytest.raises(JobFileError, match=says):
        load_schema(document, HERE)


def test_a_pydantic_model_beside_the_job_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "my_picks_model.py").write_text(
        "from pydantic import BaseModel, Field\n"
        "class Station(BaseModel):\n    code: str\n"
        "class Pick(BaseModel):\n"
        "    phase: str\n    index: int | None = Field(ge=0)\n    station: Station\n    notes: dict[str, int] = {}\n"
    )
    document = load_schema("my_picks_model:Pick", tmp_path)
    assert {column.name: column.type for column in answer_columns(document)} == {
        "phase": pa.string(),
        "index": pa.int64(),
        "station": pa.struct([("code", pa.string())]),
        "notes": pa.string(),
    }


def test_a_module_that_fails_on_import_is_an_error_of_the_job_file(tmp_path: Path) -> None:
    (tmp_path / "my_broken_model.py").write_text("1 / 0\n")
    with pytest.raises(JobFileError, match="ZeroDivisionError"):
        load_schema("my_broken_model:Pick", tmp_path)


def test_a_schema_file_is_relative_to_the_job_file(tmp_path: Path) -> None:
    document = {"type": "object", "properties": {"x": {"type": "integer"}}}
    (tmp_path / "answer.json").write_bytes(orjson.dumps(document))
    assert load_schema("answer.json", tmp_path) == document
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(JobFileError, match="is no JSON"):
        load_schema("broken.json", tmp_path)


# ------------------------------------------------------------------------- every allowed value lands in its column

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.sampled_from(["a", "b", "c", "größe", "x_1"])


@st.composite
def schema_and_value(draw: st.DrawFn, depth: int = 0) -> tuple[Any, Any]:
    """Draw a schema and a value that it allows."""
    kinds = ["boolean", "integer", "number", "string", "enum", "anything", "union"]
    if depth < 3:
        kinds += ["nullable", "array", "object", "map"]
    match draw(st.sampled_from(kinds)):
        case "boolean":
            return {"type": "boolean"}, draw(st.booleans())
        case "integer":
            value = draw(INT64)
            # Models write 12.0 where 12 is meant.
            return {"type": "integer"}, float(value) if abs(value) < 2**53 and draw(st.booleans()) else value
        case "number":
            return {"type": "number"}, draw(FLOAT | INT64)
        case "string":
            return {"type": "string"}, draw(TEXT)
        case "enum":
            values = draw(st.lists(TEXT | INT64 | st.none(), min_size=1, max_size=3, unique_by=repr))
            return {"enum": values}, draw(st.sampled_from(values))
        case "union":
            return {"type": ["string", "integer"]}, draw(TEXT | INT64)
        case "nullable":
            schema, value = draw(schema_and_value(depth + 1))
            return {"anyOf": [schema, {"type": "null"}]}, draw(st.sampled_from([None, value]))
        case "array":
            schema, value = draw(schema_and_value(depth + 1))
            return {"type": "array", "items": schema}, [value] * draw(st.integers(0, 3))
        case "map":
            schema, value = draw(schema_and_value(depth + 1))
            keys = draw(st.lists(TEXT, max_size=3, unique=True))
            return {"type": "object", "additionalProperties": schema}, dict.fromkeys(keys, value)
        case "object":
            return draw(object_and_value(depth + 1))
    leaf = st.none() | st.booleans() | INT64 | TEXT
    return True, draw(st.recursive(leaf, lambda inner: st.lists(inner, max_size=2), max_leaves=4))


@st.composite
def object_and_value(draw: st.DrawFn, depth: int = 0) -> tuple[Any, Any]:
    pairs = draw(st.dictionaries(NAMES, schema_and_value(depth), min_size=1, max_size=4))
    required = draw(st.lists(st.sampled_from(sorted(pairs)), unique=True))
    present = [name for name in pairs if name in required or draw(st.booleans())]
    schema = {
        "type": "object",
        "properties": {name: schema for name, (schema, _) in pairs.items()},
        "required": required,
        "additionalProperties": False,
    }
    return schema, {name: pairs[name][1] for name in present}


def back(value: Any, schema: Any) -> Any:
    """Undo what the columns do: JSON text becomes values again, absent properties null."""
    if value is None or schema is True:
        return None if value is None else orjson.loads(value)
    if "anyOf" in schema:
        return back(value, schema["anyOf"][0])
    if schema.get("type") == "array":
        # Items of any kind share no column type: the array as a whole is JSON text.
        return orjson.loads(value) if schema["items"] is True else [back(item, schema["items"]) for item in value]
    if "properties" in schema:
        return {name: back(value[name], node) for name, node in schema["properties"].items()}
    is_json = isinstance(schema.get("type"), list) or "additionalProperties" in schema
    mixed = len({type(item) for item in schema.get("enum", []) if item is not None}) > 1
    return orjson.loads(value) if is_json or mixed else value


def filled(value: Any, schema: Any) -> Any:
    """What comes back: absent properties are null, and anything that was null inside JSON text stays as it is."""
    if value is None or schema is True:
        return value
    if "anyOf" in schema:
        return filled(value, schema["anyOf"][0])
    if schema.get("type") == "array":
        return [filled(item, schema["items"]) for item in value]
    if "properties" in schema:
        return {name: filled(value.get(name), node) for name, node in schema["properties"].items()}
    if schema.get("type") == "number":
        return float(value)  # a whole number beyond 2**53 is the nearest float64, as JSON's numbers are elsewhere
    return value


@settings(deadline=None)
@given(object_and_value())
def test_every_value_that_a_schema_allows_validates_and_lands_in_its_arrow_type(pair: tuple[Any, Any]) -> None:
    document, value = pair
    schema = AnswerSchema(load_schema(document, HERE))
    found = schema.validate(json.dumps(value))
    assert found.reason is None, found.detail
    arrow = pa.schema([(column.name, column.type) for column in schema.columns])
    [row] = pa.Table.from_pylist([dict(found.fields)], schema=arrow).to_pylist()
    names = document["properties"]
    assert {name: back(row[name], node) for name, node in names.items()} == {
        name: filled(value.get(name), node) for name, node in names.items()
    }


def test_a_schema_travels_between_processes_after_use() -> None:
    schema = AnswerSchema({"type": "object", "properties": {"x": {"type": "integer"}}})
    assert schema.validate('{"x": 1}').fields == {"x": 1}
    assert pickle.loads(pickle.dumps(schema)).validate('{"x": 2}').fields == {"x": 2}
