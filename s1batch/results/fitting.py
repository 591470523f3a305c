"""Values of a row, made to fit the types of their columns, and their way through JSON.

What is stored must be the same whether a row came from memory, from a journal or from a Parquet file, so every value
is brought into its column's own form once, before it is written anywhere:

- text that UTF-8 does not hold (lone surrogates) is written with backslash escapes, `\\ud800`;
- whole floats fit integer columns, and numbers that are stored in 32 bits are rounded to them at once;
- timestamps are integers of nanoseconds.

JSON holds no NaN, infinity and bytes; they travel as text, which the column's type leads back to the value.
"""

from __future__ import annotations

import base64
import math
import numbers
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from s1batch.errors import JobFileError

Convert = Callable[[Any], Any]
Check = Callable[[Any], bool]

_EARLIEST_NS, _LATEST_NS = -(1 << 63) + 1, (1 << 63) - 1  # the lowest integer is Arrow's "not a time"

_SUPPORTED = (
    "bool, integers, float32, float64, string, binary, timestamp[ns, UTC], and lists and structs of these; "
    "choose one of them"
)


class MisfitError(ValueError):
    """A value does not fit its column's type."""


def fitter(kind: pa.DataType, name: str) -> Convert:
    """Return a function that brings a value into the form of an Arrow type, or raises `MisfitError`.

    Args:
        kind: The column's type.
        name: The column, for the message.

    Raises:
        JobFileError: Results do not hold columns of this type.
    """
    convert = _fitter(kind, name)
    return lambda value: None if value is None else convert(value)


def checker(kind: pa.DataType) -> Check | None:
    """Return a function that tells quickly that a value, not None, is in the form of a type already.

    It may say no to values that are: then the fitter decides. None for types whose values are always looked at.
    """
    if pa.types.is_boolean(kind):
        return lambda value: type(value) is bool
    if pa.types.is_integer(kind):
        low, high = _bounds(kind)
        return lambda value: type(value) is int and low <= value <= high
    if pa.types.is_timestamp(kind):
        return lambda value: type(value) is int and _EARLIEST_NS <= value <= _LATEST_NS
    if pa.types.is_float64(kind):
        return lambda value: type(value) is float
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return lambda value: type(value) is str and (value.isascii() or clean_text(value) is value)
    return None


def json_writer(kind: pa.DataType) -> Convert | None:
    """Return a function that makes a fitted value safe for JSON; None when it is safe already."""
    if pa.types.is_floating(kind):
        return lambda value: value if value is None or math.isfinite(value) else repr(value)
    if _is_binary(kind):
        return lambda value: None if value is None else base64.b64encode(value).decode("ascii")
    return _nested(kind, json_writer)


def json_reader(kind: pa.DataType) -> Convert | None:
    """Return the inverse of `json_writer`; None when there is nothing to do."""
    if pa.types.is_floating(kind):
        return lambda value: None if value is None else float(value)
    if _is_binary(kind):
        return lambda value: None if value is None else base64.b64decode(value)
    return _nested(kind, json_reader)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type with its timestamps as integers, for reading nanoseconds without loss."""
    if pa.types.is_timestamp(kind):
        return pa.int64()
    if _is_list(kind):
        inner = kind.value_field.with_type(plain_type(kind.value_type))
        return pa.large_list(inner) if pa.types.is_large_list(kind) else pa.list_(inner)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(plain_type(field.type)) for field in kind])
    return kind


def clean_text(text: str) -> str:
    """Return text that UTF-8 holds: lone surrogates become backslash escapes."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text


def _fitter(kind: pa.DataType, name: str) -> Convert:
    if pa.types.is_boolean(kind):
        return _fit_bool
    if pa.types.is_integer(kind):
        low, high = _bounds(kind)
        return lambda value: _fit_int(value, low, high)
    if pa.types.is_float64(kind):
        return _fit_float
    if pa.types.is_float32(kind):
        return _fit_float32
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _fit_text
    if _is_binary(kind):
        return _fit_bytes
    if pa.types.is_timestamp(kind) and kind.unit == "ns" and kind.tz == "UTC":
        return lambda value: _fit_int(value, _EARLIEST_NS, _LATEST_NS)
    if _is_list(kind):
        item = fitter(kind.value_type, name)
        return lambda value: _fit_list(value, item)
    if pa.types.is_struct(kind):
        fields = {field.name: fitter(field.type, f"{name}.{field.name}") for field in kind}
        return lambda value: _fit_struct(value, fields)
    raise JobFileError(f"column {name}: results hold no {kind}; they hold {_SUPPORTED}")


def _bounds(kind: pa.DataType) -> tuple[int, int]:
    bits = kind.bit_width
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if pa.types.is_signed_integer(kind) else (0, (1 << bits) - 1)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _nested(kind: pa.DataType, make: Callable[[pa.DataType], Convert | None]) -> Convert | None:
    if _is_list(kind):
        item = make(kind.value_type)
        return None if item is None else lambda value: None if value is None else [item(each) for each in value]
    if pa.types.is_struct(kind):
        fields = {field.name: convert for field in kind if (convert := make(field.type)) is not None}
        if not fields:
            return None
        return lambda value: (
            None
            if value is None
            else {key: fields[key](each) if key in fields else each for key, each in value.items()}
        )
    return None


def _fit_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if type(value).__name__ in ("bool_", "bool") and hasattr(value, "item"):
        return bool(value)
    raise MisfitError(f"{_shown(value)} is not true or false")


def _fit_int(value: Any, low: int, high: int) -> int:
    # Exact types first, here and below: rows are mostly made of them, and every one of them comes by here.
    if type(value) is int:
        number = value
    elif isinstance(value, numbers.Integral) and not isinstance(value, bool):
        number = int(value)
    elif isinstance(value, numbers.Real) and float(value).is_integer() and not isinstance(value, bool):
        number = int(float(value))
    else:
        raise MisfitError(f"{_shown(value)} is no integer")
    if not low <= number <= high:
        raise MisfitError(f"{_shown(value)} lies outside {low} to {high}")
    return number


def _fit_float(value: Any) -> float:
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise MisfitError(f"{_shown(value)} is no number")
    try:
        return float(value)
    except OverflowError as error:
        raise MisfitError(f"{_shown(value)} is too large for a 64-bit number") from error


def _fit_float32(value: Any) -> float:
    number = _fit_float(value)
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError as error:
        raise MisfitError(f"{_shown(value)} is too large for a 32-bit number") from error
    return rounded


def _fit_text(value: Any) -> str:
    if not isinstance(value, str):
        raise MisfitError(f"{_shown(value)} is no text")
    return clean_text(value)


def _fit_bytes(value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise MisfitError(f"{_shown(value)} is no bytes")
    return bytes(value)


def _fit_list(value: Any, item: Convert) -> list[Any]:
    if isinstance(value, (str, bytes)) or not (isinstance(value, Sequence) or hasattr(value, "__array__")):
        raise MisfitError(f"{_shown(value)} is no list")
    return [item(each) for each in value]


def _fit_struct(value: Any, fields: Mapping[str, Convert]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise MisfitError(f"{_shown(value)} is no object")
    unknown = [key for key in value if key not in fields]
    if unknown:
        raise MisfitError(f"{_shown(unknown[0])} is no field of it; the fields are {', '.join(fields)}")
    return {name: convert(value.get(name)) for name, convert in fields.items()}


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
