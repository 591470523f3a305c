"""The form of an answer, from a JSON Schema or a pydantic model to the columns of the results."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from s1batch.canonical import canonical_bytes
from s1batch.columns import Column
from s1batch.errors import JobFileError
from s1batch.jobs.imports import import_named
from s1batch.jobs.shapes import Shape, shape_of

_MODEL = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_LONGEST_NAME = 64


def load_schema(source: Mapping[str, Any] | str, base_dir: Path) -> dict[str, Any]:
    """Return the JSON Schema that a job file gives, checked.

    Args:
        source: The schema itself, the path of a JSON file that holds it, or `module:PydanticModel`.
        base_dir: Folder of the job file: paths are relative to it, and modules beside the job file are found.

    Raises:
        JobFileError: It cannot be loaded, is no JSON Schema, or its top level is no object with properties.
    """
    if isinstance(source, str):
        is_model = _MODEL.fullmatch(source) is not None and not (base_dir / source).exists()
        document = _from_model(source, base_dir) if is_model else _from_file(base_dir / source)
    else:
        document = source
    plain = _plain_json(document)
    try:
        _check_schema(plain)
        _check_names(_top_level(plain)[0])
        answer_shape(plain)
    except RecursionError as error:
        raise JobFileError("schema: it is nested too deeply") from error
    return plain


def answer_shape(document: Mapping[str, Any]) -> Shape:
    """Return the type of the whole answer: a struct with one field for each property of the top level."""
    properties, resolver = _top_level(document)
    return Shape(kind="struct", fields=tuple((name, shape_of(node, resolver)) for name, node in properties.items()))


def answer_columns(document: Mapping[str, Any]) -> tuple[Column, ...]:
    """Return one column for each property of the top level, in the schema's order."""
    properties, _ = _top_level(document)
    shape = answer_shape(document)
    return tuple(Column(name=name, type=field.arrow, doc=_doc(properties[name], field)) for name, field in shape.fields)


def _doc(node: Any, shape: Shape) -> str:
    described = node.get("description", "") if isinstance(node, Mapping) else ""
    text = " ".join(str(described).split()) or "from the answer"
    return f"{text} (JSON text)" if shape.kind == "json" else text


def _resolver(document: Mapping[str, Any]) -> Any:
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012

    # The registry is empty and fetches nothing: a schema never leads to the network or to other files.
    resource = Resource.from_contents(document, default_specification=DRAFT202012)
    return Registry().with_resource("", resource).resolver()


def _top_level(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], Any]:
    """Return the properties of the top level and the resolver of the references in them."""
    resolver = _resolver(document)
    node: Any = document
    seen: set[str] = set()
    while "$ref" in node and node["$ref"] not in seen:
        seen.add(node["$ref"])
        found = resolver.lookup(node["$ref"])
        node, resolver = found.contents, found.resolver
    if not node.get("properties") or node.get("type") != "object":
        raise JobFileError(
            "schema: the top level must be an object with properties (type: object, properties: {...}): "
            "each property becomes a column"
        )
    return node["properties"], resolver


def _check_names(names: Mapping[str, Any]) -> None:
    folded: dict[str, str] = {}
    for name in names:
        if not name.isidentifier() or len(name) > _LONGEST_NAME:
            raise JobFileError(
                f"schema: the property {name!r} cannot name a column; use letters, digits and _, "
                f"at most {_LONGEST_NAME}, not beginning with a digit"
            )
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise JobFileError(f"schema: the properties {other!r} and {name!r} differ only in case; rename one")


def _check_schema(document: Mapping[str, Any]) -> None:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing.exceptions import Unresolvable

    try:
        validator_for(document, default=Draft202012Validator).check_schema(document)
    except SchemaError as error:
        where = "/".join(str(step) for step in error.absolute_path) or "top level"
        raise JobFileError(f"schema: no valid JSON Schema at {where}: {error.message[:300]}") from error
    resolver = _resolver(document)
    for where, reference in _references(document, ""):
        try:
            resolver.lookup(reference)
        except Unresolvable as error:
            raise JobFileError(
                f"schema: {where}: the reference {reference!r} leads nowhere; only references within the schema are "
                "followed (#/$defs/NAME)"
            ) from error


def _references(node: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        for key, child in node.items():
            if key in ("$ref", "$dynamicRef") and isinstance(child, str):
                yield f"{where}/{key}", child
            elif key not in ("const", "enum", "default", "examples"):
                yield from _references(child, f"{where}/{key}")
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _references(child, f"{where}/{index}")


def _plain_json(document: Any) -> dict[str, Any]:
    if not isinstance(document, Mapping):
        raise JobFileError(f"schema: a mapping is needed, not a {type(document).__name__}")
    try:
        canonical_bytes(document)
        plain: dict[str, Any] = orjson.loads(orjson.dumps(dict(document), option=orjson.OPT_PASSTHROUGH_DATETIME))
    except (TypeError, orjson.JSONDecodeError) as error:
        raise JobFileError(
            f"schema: it holds what JSON does not ({error}); put dates, and keys that YAML reads as numbers or "
            "booleans, in quotes"
        ) from error
    return plain


def _from_file(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except OSError as error:
        raise JobFileError(
            f"schema: cannot read {path}: {error.strerror or error}; give a mapping, the path of a JSON file, "
            "or module:Model"
        ) from error
    except orjson.JSONDecodeError as error:
        raise JobFileError(f"schema: {path} is no JSON: {error}") from error


def _from_model(source: str, base_dir: Path) -> Any:
    from pydantic import BaseModel
    from pydantic.errors import PydanticUserError

    model = import_named(source, base_dir, "schema")
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise JobFileError(f"schema: {source!r} is no pydantic model (a class derived from pydantic.BaseModel)")
    try:
        return model.model_json_schema()
    except PydanticUserError as error:
        raise JobFileError(f"schema: {source!r} has no JSON Schema: {error.message.splitlines()[0]}") from error
