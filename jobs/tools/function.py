"""A Python function as a tool: what the model is told of it, and what its arguments must be.

    def travel_times(distance_deg: Annotated[float, Field(ge=0, le=180)], phases: list[str] = ["P", "S"]) -> list[dict]:
        '''Arrival times of seismic phases.

        Args:
            distance_deg: Epicentral distance in degrees.
        '''

Name, docstring and annotations become the definition. A parameter that is annotated with `s1batch.records.Series` is
the time series of the row in question; the model is not told of it.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_type_hints

from s1batch.errors import JobFileError
from s1batch.records import TOOL_NAME, Record, Series, Tool

if TYPE_CHECKING:
    from pydantic import BaseModel

LONGEST_ERROR = 300

_ARGUMENT = re.compile(r"^    (\w+):\s*(.*)$")
_NOT_SCHEMAS = frozenset({"default", "enum", "const", "examples"})


class ToolError(Exception):
    """A tool cannot do what it was asked; the text is for the model."""


@dataclass(frozen=True)
class ToolFunction:
    """A function, checked when it is made.

    Attributes:
        name: What the model calls it.
        function: What runs.

    Raises:
        JobFileError: It cannot be a tool: no function, a parameter without a usable annotation, an awkward name.
    """

    name: str
    function: Callable[..., Any]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise JobFileError(f"job.tools: {self.name!r} is no function but a {type(self.function).__name__}")
        if re.fullmatch(TOOL_NAME, self.name) is None:
            raise JobFileError(f"job.tools: {self.name!r} is no name of a tool: letters, digits, _ and -, at most 64")
        if inspect.iscoroutinefunction(self.function) or inspect.isasyncgenfunction(self.function):
            raise JobFileError(f"job.tools: {self.name} is asynchronous; a tool is a plain function")
        _ = self.tool

    @cached_property
    def tool(self) -> Tool:
        """What the model is told."""
        description, arguments = _documentation(self.function)
        schema = _without_titles(self._model.model_json_schema())
        schema.pop("description", None)
        schema.setdefault("properties", {})
        for name, text in arguments.items():
            if name in schema["properties"]:
                schema["properties"][name].setdefault("description", text)
        return Tool(name=self.name, description=description, parameters=schema)

    def run(self, arguments: str, record: Record) -> str:
        """Run the function on the arguments of a call and return what the model is told.

        Raises:
            ToolError: The arguments do not fit, the function failed, or its result is no JSON.
        """
        given = self._checked(arguments)
        if self._series_name is not None:
            if not isinstance(record.payload, Series):
                raise ToolError("there is no time series here")
            # A view that cannot be written: the samples are sent again with the next question.
            values_TC = record.payload.values_TC.view()
            values_TC.flags.writeable = False
            given[self._series_name] = replace(record.payload, values_TC=values_TC)
        return _text(self.function(**given))

    def _checked(self, arguments: str) -> dict[str, Any]:
        from pydantic import ValidationError

        try:
            found = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError) as error:
            raise ToolError(f"the arguments are no JSON: {error}") from error
        try:
            checked = self._model.model_validate(found)
        except ValidationError as error:
            said = "; ".join(
                f"{'.'.join(map(str, each['loc'])) or 'the arguments'}: {each['msg']}"
                for each in error.errors(include_url=False)[:5]
            )
            raise ToolError(said) from error
        return {name: getattr(checked, name) for name in type(checked).model_fields}

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            hints = get_type_hints(self.function, include_extras=True)
        except Exception as error:  # annotations are code, which may fail in any way
            raise JobFileError(f"job.tools: {self.name}: its annotations cannot be read: {error}") from error
        hints.pop("return", None)
        return hints

    @cached_property
    def _series_name(self) -> str | None:
        return next((name for name, hint in self._hints.items() if hint is Series), None)

    @cached_property
    def _model(self) -> type[BaseModel]:
        from pydantic import ConfigDict, create_model

        fields: dict[str, Any] = {}
        for name, parameter in inspect.signature(self.function).parameters.items():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise JobFileError(f"job.tools: {self.name}: {parameter} cannot be given by name")
            if name not in self._hints:
                raise JobFileError(f"job.tools: {self.name}: the parameter {name} has no annotation")
            if name != self._series_name:
                default = ... if parameter.default is parameter.empty else parameter.default
                fields[name] = (self._hints[name], default)
        try:
            model = create_model(self.name, __config__=ConfigDict(extra="forbid"), **fields)
            model.model_json_schema()
        except Exception as error:  # of many kinds: what pydantic cannot take as a type, name or default
            raise JobFileError(f"job.tools: {self.name}: no arguments for a model: {_short(error)}") from error
        return model

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "function": self.function}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise ToolError(f"its result is no JSON: {_short(error)}") from error


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} stands in it")


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= LONGEST_ERROR else text[: LONGEST_ERROR - 3] + "..."


def _documentation(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Return what the docstring says of a function, and of each argument (Google style)."""
    text = inspect.getdoc(function) or ""
    description, *sections = re.split(r"^(?:Args|Returns|Raises|Example|Examples|Note|Notes):\n", text, flags=re.M)
    arguments: dict[str, str] = {}
    if sections and re.search(r"^Args:\n", text, flags=re.M):
        name = ""
        for line in sections[0].splitlines():
            if match := _ARGUMENT.match(line):
                name = match[1]
                arguments[name] = match[2].strip()
            elif name and line.strip():
                arguments[name] += " " + line.strip()
    return " ".join(description.split()), arguments


def _without_titles(schema: Any) -> Any:
    """Return a schema without the titles that pydantic makes of names: they cost tokens and say nothing."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value if key in _NOT_SCHEMAS else _without_titles(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }
