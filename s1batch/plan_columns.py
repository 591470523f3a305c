"""How plan entries and inventory items become columns of Parquet, and back, without loss.

Columns are built whole, not entry by entry, because a plan of an archive has millions of lines. The addresses are a
list of structs that polars and DuckDB read as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from s1batch.records import Address, Chunk, InventoryItem, PlanEntry, Refusal, SeriesShape, Slice

PIECE_TEXTS = 1024
"""Texts of a column that become Python objects together."""

_UTC_NS = pa.timestamp("ns", tz="UTC")
_SLICE = pa.struct([("dim", pa.string()), ("start", pa.int64()), ("stop", pa.int64())])
_ADDRESS = pa.struct(
    [
        ("source", pa.string()),
        ("root", pa.string()),
        ("path", pa.string()),
        ("slices", pa.list_(_SLICE)),
        ("rate_hz", pa.float64()),
    ]
)


def _schema(*fields: tuple[str, pa.DataType, str]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, metadata={"doc": doc}) for name, kind, doc in fields])


PLAN = _schema(
    ("chunk_key", pa.string(), "identity of the chunk: a hash of its inputs"),
    ("part", pa.int32(), "part of the plan, which is one file of rows"),
    ("label", pa.string(), "short name for people"),
    ("start", _UTC_NS, "first instant (UTC); null outside time series"),
    ("end", _UTC_NS, "first instant behind (UTC); null outside time series"),
    ("span_start", pa.int64(), "first index in the chunk's own units; null where those are times"),
    ("span_end", pa.int64(), "first index behind; null for time series"),
    ("core_start", pa.int64(), "first value that the chunk alone answers for; null when that is all of it"),
    ("core_end", pa.int64(), "first value behind those"),
    ("steps", pa.int64(), "time steps of the series that will be sent; null when there is none"),
    ("channels", pa.int32(), "channels of that series"),
    ("rate_hz", pa.float64(), "rate of that series in Hz"),
    ("text_chars", pa.int64(), "characters of text that the data add to the prompt"),
    ("images", pa.int32(), "images that will be sent"),
    ("nbytes", pa.int64(), "bytes that are read for it (an estimate)"),
    ("gap_frac", pa.float64(), "share of samples filled because the archive has none, 0 to 1"),
    ("prompt_tokens", pa.int64(), "estimated tokens of the prompt"),
    ("admission", pa.string(), "outcome decided before the run; null when the chunk will be asked"),
    ("reason", pa.string(), "why, as one of a closed set of codes"),
    ("detail", pa.string(), "why, in words"),
    ("inputs", pa.list_(_ADDRESS), "where the data are"),
    ("is_scan", pa.bool_(), "whether it is asked first, at a lower rate, to decide about other chunks of the part"),
    ("condition", pa.string(), "key of the scan whose answer decides whether this is asked; null: it is asked anyway"),
)

INVENTORY = _schema(
    ("root", pa.string(), "name of the root folder"),
    ("path", pa.string(), "file below the root; undecodable bytes are escaped as \\xNN"),
    ("source", pa.string(), "stream, such as a channel; empty for a file that could not be opened"),
    (
        "status",
        pa.string(),
        "selected, duplicate, not_selected, unreadable, or optional: selected where a chunk holds it",
    ),
    ("reason", pa.string(), "why it is not selected"),
    ("unit", pa.string(), "what is counted: samples, bytes, rows, chars, pixels"),
    ("count", pa.int64(), "how many"),
    ("start", pa.int64(), "first value in the stream's dimension (ns since 1970 for time series)"),
    ("stop", pa.int64(), "first value behind"),
    ("rate_hz", pa.float64(), "rate as recorded; null outside time series"),
    ("size", pa.int64(), "size of the file in bytes"),
    ("mtime_ns", pa.int64(), "modification time of the file, ns since 1970"),
    ("sha256", pa.string(), "content hash, when the job asked for it"),
)


def plan_table(entries: Sequence[PlanEntry]) -> pa.Table:
    """Return plan entries as a table with the schema `PLAN`.

    Text that UTF-8 does not hold (lone surrogates in a label or a detail) is kept as backslash escapes.
    """
    chunks = [entry.chunk for entry in entries]
    extents = [chunk.extent for chunk in chunks]
    series = [entry.series for entry in entries]
    refusals = [entry.refusal for entry in entries]
    columns: dict[str, Any] = {
        "chunk_key": [chunk.key for chunk in chunks],
        "part": [entry.part for entry in entries],
        "label": _text([entry.label for entry in entries]),
        "start": [extent[2] for extent in extents],
        "end": [extent[3] for extent in extents],
        "span_start": [extent[0] for extent in extents],
        "span_end": [extent[1] for extent in extents],
        "core_start": [None if chunk.core is None else chunk.core[0] for chunk in chunks],
        "core_end": [None if chunk.core is None else chunk.core[1] for chunk in chunks],
        "steps": [None if shape is None else shape.steps for shape in series],
        "channels": [None if shape is None else shape.channels for shape in series],
        "rate_hz": [None if shape is None else shape.rate_hz for shape in series],
        "text_chars": [entry.text_chars for entry in entries],
        "images": [entry.images for entry in entries],
        "nbytes": [entry.nbytes for entry in entries],
        "gap_frac": [entry.gap_frac for entry in entries],
        "prompt_tokens": [entry.prompt_tokens for entry in entries],
        "admission": [None if refusal is None else refusal.outcome for refusal in refusals],
        "reason": [None if refusal is None else refusal.reason for refusal in refusals],
        "detail": _text([None if refusal is None else refusal.detail for refusal in refusals]),
        "inputs": _addresses(chunks),
        "is_scan": [entry.is_scan for entry in entries],
        "condition": [entry.condition for entry in entries],
    }
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, type=PLAN.field(name).type)
        for name, column in columns.items()
    ]
    return pa.Table.from_arrays(arrays, schema=PLAN)


def plan_entries(table: pa.Table) -> list[PlanEntry]:
    """Return the entries of a table that `plan_table` made."""
    names = [
        "chunk_key",
        "part",
        "label",
        "core_start",
        "core_end",
        "steps",
        "channels",
        "rate_hz",
        "text_chars",
        "images",
        "nbytes",
    ]
    names += ["gap_frac", "prompt_tokens", "admission", "reason", "detail", "inputs", "is_scan", "condition"]
    lists = [_inputs(table.column(name)) if name == "inputs" else table.column(name).to_pylist() for name in names]
    return [
        PlanEntry(
            chunk=Chunk.planned(
                key,
                inputs,
                None if core_start is None else (core_start, core_end),
            ),
            label=label,
            series=None if steps is None else SeriesShape(steps=steps, channels=channels, rate_hz=rate_hz),
            text_chars=text_chars,
            images=images,
            nbytes=nbytes,
            gap_frac=gap_frac,
            refusal=None if admission is None else Refusal(outcome=admission, reason=reason, detail=detail),
            part=part,
            prompt_tokens=prompt_tokens,
            is_scan=is_scan,
            condition=condition,
        )
        for (
            key,
            part,
            label,
            core_start,
            core_end,
            steps,
            channels,
            rate_hz,
            text_chars,
            images,
            nbytes,
            gap_frac,
            prompt_tokens,
            admission,
            reason,
            detail,
            inputs,
            is_scan,
            condition,
        ) in zip(*lists, strict=True)
    ]


def inventory_table(items: Sequence[InventoryItem]) -> pa.Table:
    """Return inventory items as a table with the schema `INVENTORY`."""
    arrays = []
    for field in INVENTORY:
        values: list[Any] = [getattr(item, field.name) for item in items]
        arrays.append(pa.array(_text(values) if pa.types.is_string(field.type) else values, type=field.type))
    return pa.Table.from_arrays(arrays, schema=INVENTORY)


def inventory_items(table: pa.Table) -> list[InventoryItem]:
    """Return the items of a table that `inventory_table` made."""
    return [InventoryItem(**plain) for plain in table.to_pylist()]


def _addresses(chunks: Sequence[Chunk]) -> pa.Array:
    addresses = [address for chunk in chunks for address in chunk.inputs]
    slices = [part for address in addresses for part in address.slices]
    slice_array = pa.StructArray.from_arrays(
        [
            pa.array([part.dim for part in slices], pa.string()),
            pa.array([part.start for part in slices], pa.int64()),
            pa.array([part.stop for part in slices], pa.int64()),
        ],
        fields=list(_SLICE),
    )
    address_array = pa.StructArray.from_arrays(
        [
            pa.array([address.source for address in addresses], pa.string()),
            pa.array([address.root for address in addresses], pa.string()),
            pa.array([address.path for address in addresses], pa.string()),
            pa.ListArray.from_arrays(_offsets(len(address.slices) for address in addresses), slice_array),
            pa.array([address.rate_hz for address in addresses], pa.float64()),
        ],
        fields=list(_ADDRESS),
    )
    return pa.ListArray.from_arrays(_offsets(len(chunk.inputs) for chunk in chunks), address_array)


def _offsets(lengths: Iterable[int]) -> pa.Array:
    offsets = [0]
    for length in lengths:
        offsets.append(offsets[-1] + length)
    return pa.array(offsets, pa.int32())


def _inputs(column: pa.ChunkedArray) -> list[tuple[Address, ...]]:
    """Return the addresses of each chunk.

    Built from flat columns: the dictionaries that Arrow makes of nested ones take several times the memory. Addresses
    share the text that they have in common.
    """
    found: list[tuple[Address, ...]] = []
    for array in column.chunks:
        flat = _items(array)
        slices = flat.field("slices")
        parts = _items(slices)
        ranges = map(_slice, _texts(parts, "dim"), _numbers(parts, "start"), _numbers(parts, "stop"))
        addresses = map(
            _address,
            _texts(flat, "source"),
            _texts(flat, "root"),
            _texts(flat, "path"),
            (tuple(islice(ranges, length)) for length in _lengths(slices)),
            _numbers(flat, "rate_hz"),
        )
        found += [tuple(islice(addresses, length)) for length in _lengths(array)]
    return found


# Neither `flatten` nor `value_lengths` nor `dictionary_encode`: the module behind them takes 30 ms and more to import,
# in which a run would ask nothing yet. No list here is null.


def _items(lists: pa.ListArray) -> pa.Array:
    """Return what all lists hold, one behind the other."""
    first, behind = lists.offsets[0].as_py(), lists.offsets[-1].as_py()
    return lists.values.slice(first, behind - first)


def _lengths(lists: pa.ListArray) -> list[int]:
    lengths: list[int] = np.diff(lists.offsets.to_numpy()).tolist()
    return lengths


def _texts(structs: pa.StructArray, name: str) -> Iterator[str]:
    """Yield texts, equal ones as one object; a piece at a time, so that no more than a piece is there twice."""
    column = structs.field(name)
    known: dict[str, str] = {}
    for start in range(0, len(column), PIECE_TEXTS):
        for text in column.slice(start, PIECE_TEXTS).to_pylist():
            yield known.setdefault(text, text)


def _numbers(structs: pa.StructArray, name: str) -> Iterator[Any]:
    return iter(structs.field(name).to_pylist())


def _slice(dim: str, start: int, stop: int) -> Slice:
    return Slice(dim=dim, start=start, stop=stop)


def _address(source: str, root: str, path: str, slices: tuple[Slice, ...], rate_hz: float | None) -> Address:
    return Address(source=source, root=root, path=path, slices=slices, rate_hz=rate_hz)


def _text(values: list[Any]) -> list[Any]:
    try:
        pa.array(values, pa.string())
    except UnicodeEncodeError:
        return [
            value if value is None else value.encode("utf-8", "backslashreplace").decode("utf-8") for value in values
        ]
    return values
