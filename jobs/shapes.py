"""How a JSON Schema becomes Arrow types, and how a valid answer becomes values of those types.

    boolean, integer, number, string    bool, int64, float64, string; nullable by `null` in a type list or an anyOf
    enum, const                         the type that all its values share
    array with `items`                  list
    object with `properties`            struct; properties that the schema does not name are left out
    everything else                     a string that holds the value as JSON text: unions of several types, recursive
                                        references, tuples, maps (`additionalProperties`, `patternProperties`), and
                                        schemas that say nothing

Dates and times stay text. A column can always be null: a missing property and a JSON null look the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import orjson

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["boolean", "integer", "number", "string", "json", "list", "struct"]

_INT64 = range(-(2**63), 2**63)
_EXACT_FLOAT = 2**53


class OutOfRangeError(ValueError):
    """A number that the JSON Schema allows and the column cannot hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The type of one value.

    Attributes:
        kind: What it is; `json` is any value, kept as JSON text.
        item: The type of a list's items.
        fields: The names and types of a struct's fields.
    """

    kind: Kind
    item: Shape | None = None
    fields: tuple[tuple[str, Shape], ...] = ()

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type."""
        import pyarrow as pa

        if self.kind == "list" and self.item is not None:
            return pa.list_(self.item.arrow)
        if self.kind == "struct":
            return pa.struct([(name, shape.arrow) for name, shape in self.fields])
        plain = {"boolean": pa.bool_(), "integer": pa.int64(), "number": pa.float64()}
        return plain.get(self.kind, pa.string())

    def convert(self, value: Any, path: str = "") -> Any:
        """Return a valid answer's value as the Arrow type takes it.

        Args:
            value: Parsed JSON that the schema was found to allow.
            path: Where it stands, for the error.

        Raises:
            OutOfRangeError: An integer does not fit 64 bits.
        """
        if value is None:
            return None
        match self.kind:
            case "integer":
                return _int64(value, path)
            case "number":
                return float(value)
            case "json":
                return orjson.dumps(value).decode()
            case "list" if self.item is not None:
                return [self.item.convert(item, f"{path}[{index}]") for index, item in enumerate(value)]
            case "struct":
                return {name: shape.convert(value.get(name), f"{path}.{name}") for name, shape in self.fields}
        return value


_JSON = Shape(kind="json")


def shape_of(node: Any, resolver: Any, open_refs: frozenset[str] = frozenset()) -> Shape:
    """Return the type of what a schema allows; whatever has no single type is `json`.

    Args:
        node: A schema.
        resolver: A `referencing` resolver of the document that it stands in.
        open_refs: The references that led here, by which recursion is seen.

    Raises:
        referencing.exceptions.Unresolvable: A reference leads nowhere.
    """
    if not isinstance(node, Mapping):
        return _JSON
    if "$ref" in node:
        target = node["$ref"]
        if target in open_refs:
            return _JSON
        found = resolver.lookup(target)
        return shape_of(found.contents, found.resolver, open_refs | {target})
    if "const" in node:
        return _shape_of_values([node["const"]])
    if "enum" in node:
        return _shape_of_values(node["enum"])
    if "type" in node:
        return _shape_of_type(node, resolver, open_refs)
    for union in ("anyOf", "oneOf"):
        if union in node:
            members = [member for member in node[union] if not _is_null(member)]
            return _common([shape_of(member, resolver, open_refs) for member in members])
    if "allOf" in node:
        shapes = [shape_of(member, resolver, open_refs) for member in node["allOf"]]
        return next((shape for shape in shapes if shape.kind != "json"), _JSON)
    return _JSON


def _shape_of_type(node: Mapping[str, Any], resolver: Any, open_refs: frozenset[str]) -> Shape:
    types = node["type"] if isinstance(node["type"], list) else [node["type"]]
    types = sorted(set(types) - {"null"})
    if types == ["integer", "number"]:
        return Shape(kind="number")
    if len(types) != 1:
        return Shape(kind="string") if not types else _JSON
    match types[0]:
        case "boolean" | "integer" | "number" | "string" as plain:
            return Shape(kind=plain)
        case "array" if isinstance(node.get("items"), Mapping) and "prefixItems" not in node:
            return Shape(kind="list", item=shape_of(node["items"], resolver, open_refs))
        case "object" if node.get("properties") and not _is_map(node):
            fields = ((name, shape_of(child, resolver, open_refs)) for name, child in node["properties"].items())
            return Shape(kind="struct", fields=tuple(fields))
    return _JSON


def _is_map(node: Mapping[str, Any]) -> bool:
    return bool(node.get("patternProperties")) or node.get("additionalProperties", False) is not False


def _is_null(node: Any) -> bool:
    if not isinstance(node, Mapping):
        return False
    return node.get("type") in ("null", ["null"]) or node.get("enum") == [None] or node.get("const", 0) is None


def _shape_of_values(values: list[Any]) -> Shape:
    shapes = []
    for value in values:
        match value:
            case None:
                continue
            case bool():
                shapes.append(Shape(kind="boolean"))
            case int():
                shapes.append(Shape(kind="integer"))
            case float():
                shapes.append(Shape(kind="number"))
            case str():
                shapes.append(Shape(kind="string"))
            case _:
                shapes.append(_JSON)
    return _common(shapes) if shapes else Shape(kind="string")


def _common(shapes: list[Shape]) -> Shape:
    distinct = set(shapes)
    if len(distinct) == 1:
        return shapes[0]
    if distinct == {Shape(kind="integer"), Shape(kind="number")}:
        return Shape(kind="number")
    return _JSON


def _int64(value: int | float, path: str) -> int:
    # A float beyond 2^53 no longer tells which integer was written, and the parser turns huge integers into floats.
    if isinstance(value, float) and abs(value) > _EXACT_FLOAT:
        raise OutOfRangeError(f"{path or 'the answer'}: {value!r} is beyond the integers that a column holds")
    if int(value) not in _INT64:
        raise OutOfRangeError(f"{path or 'the answer'}: {value} does not fit 64 bits")
    return int(value)
