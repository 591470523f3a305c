"""Canonical JSON, and the hashes that identify things across processes, machines and Python hash seeds.

Canonical means: keys sorted, no white space, UTF-8, and mappings without their empty fields (None, "", [], {}), so
that a field that is added later, and left empty, changes no old hash. Lists keep their empty items: position matters.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import orjson


def canonical_bytes(value: object) -> bytes:
    """Return the canonical JSON of plain data and (nested) dataclasses.

    Raises:
        TypeError: For values that JSON does not hold, and for NaN and infinity, which it would turn into null.
    """
    return orjson.dumps(_plain(value), option=orjson.OPT_SORT_KEYS)


def digest(value: object) -> str:
    """Return the SHA-256 of `canonical_bytes(value)`, as its first 32 hexadecimal digits (128 bits)."""
    return hashlib.sha256(canonical_bytes(value)).hexdigest()[:32]


def bytes_digest(data: bytes | memoryview) -> str:
    """Return the SHA-256 of raw bytes, as its first 32 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()[:32]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        plain = {str(key): _plain(item) for key, item in value.items()}
        return {key: item for key, item in plain.items() if not _is_empty(item)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(item) for item in value)
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise TypeError(f"canonical JSON does not hold {value!r}")
        return value
    if value is None or isinstance(value, (str, int, bool)):
        return value
    raise TypeError(f"canonical JSON does not hold a {type(value).__name__}")


def _is_empty(value: object) -> bool:
    return value is None or value in ("", [], {}) if not isinstance(value, (bool, int, float)) else False
