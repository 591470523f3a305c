"""A Python function as a tool: its definition comes from its signature, and its arguments are checked."""

from __future__ import annotations

import json
import pickle
from typing import Annotated, Any

import numpy as np
import pytest
from pydantic import Field

from s1batch.errors import JobFileError
from s1batch.jobs.tools.function import ToolError, ToolFunction
from s1batch.records import Chunk, Fields, Record, Series

NOWHERE = Record(chunk=Chunk(inputs=()), payload=Fields(values={}))


def wave() -> Record:
    values_TC = np.arange(20, dtype=np.float32).reshape(10, 2)
    return Record(chunk=Chunk(inputs=()), payload=Series(values_TC=values_TC, rate_hz=10.0, channels=("Z", "N")))


def distance(
    lat: Annotated[float, Field(ge=-90, le=90)], lon: float = 0.0, title: str | None = None
) -> dict[str, float]:
    """How far a place is.

    It is measured along a great circle.

    Args:
        lat: Latitude in degrees,
            north positive.
        lon: Longitude.

    Returns:
        Not for the model.
    """
    return {"km": lat + lon}


def loudest(series: Series, channel: int = 0) -> int:
    """The largest sample."""
    return int(series.values_TC[:, channel].argmax())


def test_the_definition_is_what_the_signature_and_the_docstring_say() -> None:
    tool = ToolFunction("distance", distance).tool
    assert tool.document == {
        "type": "function",
        "function": {
            "name": "distance",
            "description": "How far a place is. It is measured along a great circle.",
            "parameters": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "lat": {
                        "type": "number",
                        "minimum": -90,
                        "maximum": 90,
                        "description": "Latitude in degrees, north positive.",
                    },
                    "lon": {"type": "number", "default": 0.0, "description": "Longitude."},
                    "title": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                },
                "required": ["lat"],
            },
        },
    }


def test_the_series_of_the_row_is_given_and_not_shown_to_the_model_nor_open_to_change() -> None:
    function = ToolFunction("loudest", loudest)
    assert list(function.tool.parameters["properties"]) == ["channel"]
    assert function.run('{"channel": 1}', wave()) == "9"
    with pytest.raises(ToolError, match="no time series"):
        function.run("{}", NOWHERE)

    def spoil(series: Series) -> None:
        series.values_TC[:] = 0

    with pytest.raises(ValueError, match="read-only"):
        ToolFunction("spoil", spoil).run("{}", wave())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("{", "no JSON"),
        ("[1]", "dictionary"),
        ("{}", "lat: Field required"),
        ('{"lat": 91}', "less than or equal to 90"),
        ('{"lat": 1, "height": 2}', "height: Extra inputs"),
        ('{"lat": "north"}', "lat: Input should be a valid number"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_arguments_that_do_not_fit_are_told_to_the_model(arguments: str, said: str) -> None:
    with pytest.raises(ToolError, match=said):
        ToolFunction("distance", distance).run(arguments, NOWHERE)


def test_numbers_that_stand_as_text_are_taken() -> None:
    assert ToolFunction("distance", distance).run('{"lat": "3"}', NOWHERE) == '{"km": 3.0}'


def returning(value: Any) -> ToolFunction:
    def tool() -> Any:
        return value

    return ToolFunction("tool", tool)


def test_results_are_text_or_json() -> None:
    assert returning("a <b>").run("", NOWHERE) == "a <b>"
    assert returning({"é": np.float32(0.5), "x": np.arange(2)}).run("{}", NOWHERE) == '{"é": 0.5, "x": [0, 1]}'
    assert returning(None).run("{}", NOWHERE) == "null"


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object(), {(1, 2): 3}, {"a": b"x"}])
def test_a_result_that_is_no_json_is_told_to_the_model(value: Any) -> None:
    with pytest.raises(ToolError, match="no JSON"):
        returning(value).run("{}", NOWHERE)


async def asynchronous() -> int:
    return 1


def without_annotation(x) -> int:
    return int(x)


def many(*values: float) -> float:
    return sum(values)


def odd(x: np.ndarray) -> int:
    return x.size


def unknown(x: NoSuchType) -> int:  # type: ignore[name-defined] # noqa: F821
    return 1


@pytest.mark.parametrize(
    ("name", "function", "said"),
    [
        ("a", asynchronous, "asynchronous"),
        ("a", without_annotation, "no annotation"),
        ("a", many, "cannot be given by name"),
        ("a", odd, "no arguments for a model"),
        ("a", unknown, "annotations"),
        ("a", 3, "no function"),
        ("a b", distance, "no name"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_when_the_job_is_loaded(name: str, function: Any, said: str) -> None:
    with pytest.raises(JobFileError, match=said):
        ToolFunction(name, function)


def test_a_tool_survives_a_pickle() -> None:
    function = pickle.loads(pickle.dumps(ToolFunction("distance", distance)))
    assert function.tool.text == ToolFunction("distance", distance).tool.text
    assert json.loads(function.run('{"lat": 1}', NOWHERE)) == {"km": 1.0}
