"""A digest of the content of a table, the same however the table is cut into chunks, compressed or encoded.

For every column: name, type, which values are there, and the values, with nothing in the place of nulls. Lists and
structs are taken apart into their lengths and children. Rows count in their order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from blake3 import blake3

DIGEST_BYTES = 16
"""Two tables that differ have one digest with a probability of 2**-64 for four billion tables."""


def content_digest(table: pa.Table) -> bytes:
    """Return the digest of a table's columns and rows, of `DIGEST_BYTES` bytes."""
    hasher = blake3()
    for field, column in zip(table.schema, table.columns, strict=True):
        hasher.update(f"{field.name}\0".encode())
        chunks = column.chunks
        _add(hasher, pa.concat_arrays(chunks) if chunks else pa.array([], field.type))
    return bytes(hasher.digest(length=DIGEST_BYTES))


def _add(hasher: Any, array: pa.Array) -> None:
    import pyarrow.compute as pc  # 8 MB, which runs that compact nothing do without

    hasher.update(len(array).to_bytes(8, "little"))
    # Parquet gives the children of lists another name, so a nested type is told by its id and its children's.
    name = str(array.type.id) if pa.types.is_nested(array.type) else str(array.type)
    hasher.update(f"{name}\0".encode())
    if array.null_count:
        hasher.update(b"\1" + _bits(array.is_valid()))
    else:
        hasher.update(b"\0")
    if array.null_count == len(array):
        return
    kind = array.type
    if pa.types.is_struct(kind):
        for field, child in zip(kind, array.flatten(), strict=True):
            hasher.update(f"{field.name}\0".encode())
            _add(hasher, child)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        hasher.update(_numbers(pc.list_value_length(array)))
        _add(hasher, array.flatten())
    elif pa.types.is_boolean(kind):
        hasher.update(_bits(array.fill_null(False) if array.null_count else array))
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        hasher.update(_numbers(pc.binary_length(array)))
        hasher.update(_text(array))
    elif pa.types.is_primitive(kind):
        hasher.update(_numbers(array.view(f"int{kind.bit_width}")))
    else:
        hasher.update(repr(array.to_pylist()).encode())


def _bits(array: pa.Array) -> bytes:
    return np.packbits(array.to_numpy(zero_copy_only=False)).tobytes()


def _numbers(array: pa.Array) -> bytes:
    filled = array.fill_null(0) if array.null_count else array
    return bytes(filled.to_numpy(zero_copy_only=False).tobytes())


def _text(array: pa.Array) -> memoryview:
    filled = array.fill_null("" if pa.types.is_string(array.type) else b"") if array.null_count else array
    _, offsets, data = filled.buffers()
    if data is None or not len(filled):
        return memoryview(b"")
    ends = np.frombuffer(offsets, np.int32, len(filled) + 1, offset=4 * filled.offset)
    return memoryview(data)[int(ends[0]) : int(ends[-1])]
