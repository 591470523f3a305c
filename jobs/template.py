"""Prompt templates: Jinja2 in a sandbox, strict about names, over the metadata of one record.

A template sees the reader's lineage and, for a row of a table, its fields, each by its name; `fields["P wave"]` and
`lineage["station"]` reach names that are no identifiers or that stand for both. It reads no files and imports nothing.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from s1batch.errors import JobFileError, SourceError, UnknownName
from s1batch.records import Fields, Record, Series
from s1batch.special_tokens import neutralise
from s1batch.times import format_ns

if TYPE_CHECKING:
    from jinja2 import Template

LONGEST_PROMPT = 1_000_000
"""Characters of one rendered prompt; a longer one is an error of the template."""

_MOST_NAMES_SHOWN = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A prompt that is ready to be sent.

    Attributes:
        text: The text, with the model's special tokens made harmless.
        neutralised: How many of those there were.
    """

    text: str
    neutralised: int


@dataclass(frozen=True)
class PromptTemplate:
    """A template, checked when it is made.

    Attributes:
        source: The template's text.
        field: The job file's field that it comes from, for messages.

    Raises:
        JobFileError: The source is no template, or includes or imports another one.
    """

    source: str
    field: str

    def __post_init__(self) -> None:
        from jinja2 import nodes
        from jinja2.exceptions import TemplateSyntaxError

        try:
            tree = _environment().parse(self.source)
            _ = self._template
        except TemplateSyntaxError as error:
            raise JobFileError(f"{self.field}: line {error.lineno}: {error.message}") from error
        except RecursionError as error:
            raise JobFileError(f"{self.field}: the template is nested too deeply") from error
        outside = tree.find((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends))
        if outside is not None:
            kind = type(outside).__name__.lower()
            raise JobFileError(f"{self.field}: line {outside.lineno}: a prompt reads no other files ({kind})")

    @cached_property
    def names(self) -> frozenset[str]:
        """The names that the template uses and does not define itself."""
        from jinja2 import meta

        return frozenset(meta.find_undeclared_variables(_environment().parse(self.source)))

    @cached_property
    def pieces(self) -> tuple[str | None, ...]:
        """The template's own text in order; None stands for each part that differs from record to record."""
        from jinja2 import nodes

        found: list[str | None] = []
        for node in _environment().parse(self.source).body:
            inner = node.nodes if isinstance(node, nodes.Output) else [node]
            found += [each.data if isinstance(each, nodes.TemplateData) else None for each in inner]
        return tuple(found)

    def render(self, names: Mapping[str, Any]) -> Rendered:
        """Fill in one record's values.

        Raises:
            UnknownName: `prompt_error`: an unknown name, with the valid ones.
            SourceError: `prompt_error`: an error inside the template; an empty prompt; or one of more than
                `LONGEST_PROMPT` characters.
        """
        from jinja2.exceptions import UndefinedError

        pieces: list[str] = []
        length = 0
        try:
            for piece in self._template.generate(names):
                pieces.append(piece)
                length += len(piece)
                if length > LONGEST_PROMPT:
                    raise SourceError("prompt_error", f"{self.field}: more than {LONGEST_PROMPT} characters")
        except SourceError:
            raise
        except UndefinedError as error:
            kind = SourceError if self.names <= names.keys() else UnknownName
            raise kind("prompt_error", f"{self.field}: {error.message}; {_valid_names(names)}") from error
        except Exception as error:  # an expression may raise anything, and costs only this record
            detail = f"{self.field}: {type(error).__name__}: {str(error)[:200]}"
            raise SourceError("prompt_error", detail) from error
        text, neutralised = neutralise("".join(pieces))
        if not text.strip():
            raise SourceError("prompt_error", f"{self.field}: the prompt is empty")
        return Rendered(text=text, neutralised=neutralised)

    @cached_property
    def _template(self) -> Template:
        template: Template = _environment().from_string(self.source)
        # Every rendering copies them, and the chain of mappings that Jinja gives is slow to walk.
        template.globals = dict(template.globals)
        return template

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source, "field": self.field}


def names_of(record: Record, wanted: Collection[str] = ()) -> dict[str, Any]:
    """Return what a template may use for a record.

    The reader's lineage and, for a row of a table, its fields, which go first; `start` and `end` of a window (UTC);
    `series`, the shape of each series that comes with it (`steps`, `channels`, `rate_hz`, `units`); `peak` and `rms` of
    a series by channel (largest absolute value and root mean square about the mean, in the unit of the series), because
    an engine normalises the series and the model never sees its amplitude. Where several series come with a record,
    `peak` and `rms` are lists in their order.

    Args:
        record: The record, with its payload.
        wanted: The names that are used; `peak` and `rms` are computed only when they are among them.
    """
    fields = dict(record.payload.values) if isinstance(record.payload, Fields) else {}
    series = series_of(record)
    names: dict[str, Any] = {"series": [_shape(each) for each in series]} if "series" in wanted else {}
    names |= {**_window(record), **record.lineage, **fields, "lineage": dict(record.lineage)}
    if isinstance(record.payload, Fields):
        names["fields"] = fields
    if series and not {"peak", "rms"}.isdisjoint(wanted):
        found = [_amplitude(each) for each in series]
        # A column of the user's own keeps its name.
        names |= {
            name: found[0][name] if len(found) == 1 else [each[name] for each in found]
            for name in ("peak", "rms")
            if name not in fields
        }
    return names


def series_of(record: Record) -> tuple[Series, ...]:
    """Return the time series that come with a record, in the order in which they are sent."""
    payload = record.payload
    if isinstance(payload, Series):
        return (payload,)
    return payload.series if isinstance(payload, Fields) else ()


def _shape(series: Series) -> dict[str, Any]:
    steps = series.values_TC.shape[0]
    return {
        "steps": steps,
        "channels": list(series.channels),
        "rate_hz": series.rate_hz,
        "units": series.units,
        "seconds": steps / series.rate_hz,
    }


def _window(record: Record) -> dict[str, str]:
    times = record.chunk.times_ns
    return {} if times is None else {"start": format_ns(times[0]), "end": format_ns(times[1])}


def _amplitude(series: Series) -> dict[str, dict[str, float]]:
    import numpy as np

    centred_TC = series.values_TC - series.values_TC.mean(axis=0, dtype=np.float64)
    peak, rms = np.abs(series.values_TC).max(axis=0), np.sqrt(np.mean(centred_TC**2, axis=0))
    return {
        name: {channel: float(f"{value:.6g}") for channel, value in zip(series.channels, values, strict=True)}
        for name, values in (("peak", peak), ("rms", rms))
    }


def render_value(value: Any) -> Any:
    """Return how a value stands in a prompt.

    Text and numbers as they are; None as `null`, booleans, lists and structs as JSON; dates and times in ISO 8601
    (UTC as Z); decimals without exponent; bytes as their UTF-8 text, or `<12 bytes>`.
    """
    from jinja2 import Undefined

    match value:
        case str() | Undefined():
            return value
        case None | bool() | Mapping() | list() | tuple() | set() | frozenset():
            return _as_json(value)
        case dt.datetime() | dt.date() | dt.time():
            text = value.isoformat()
            return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text
        case Decimal():
            return format(value, "f")
        case bytes() | bytearray() | memoryview():
            try:
                return bytes(value).decode("utf-8")
            except UnicodeDecodeError:
                return f"<{len(value)} bytes>"
    if callable(value):
        raise TypeError("a function stands where a value is needed; call it, or use fields['NAME']")
    return str(value)


def _as_json(value: Any) -> str:
    return json.dumps(_jsonable(value), ensure_ascii=False)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(render_value(key)): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((_jsonable(item) for item in value), key=str)
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else render_value(value)


def _valid_names(names: Mapping[str, Any]) -> str:
    if not names:
        return "there are no names to use"
    shown = sorted(names)[:_MOST_NAMES_SHOWN]
    return "the names are " + ", ".join(shown) + (", ..." if len(names) > len(shown) else "")


def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        """Bounds what one operator can make of small operands."""

        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" and isinstance(right, (int, float)) and abs(right) > 1000:
                raise OverflowError("an exponent above 1000")
            if operator == "*":
                for sequence, times in ((left, right), (right, left)):
                    if hasattr(sequence, "__len__") and isinstance(times, int) and len(sequence) * times > 1e6:
                        raise OverflowError("a repetition of more than a million items")
            if operator == "%" and isinstance(left, (str, bytes)):
                raise TypeError("use ~ or the round and string filters instead of % on text")
            return super().call_binop(context, operator, left, right)

    environment = Sandbox(
        undefined=StrictUndefined,
        autoescape=False,
        finalize=render_value,
        keep_trailing_newline=True,
    )
    del environment.globals["lipsum"]
    # Jinja's own tojson escapes for HTML.
    environment.filters["tojson"] = _as_json
    return environment
