"""Which entries of an array's dimensions are channels of a series, and what they are called."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from s1batch.errors import SourceError
from s1batch.readers.sensors.spec import IndexRange, Label, Selection, SensorsSource
from s1batch.readers.sensors.stores import ArrayInfo, ArrayStore, coordinate_of, nearby
from s1batch.records import Slice

MOST_CHANNELS = 10_000
"""Channels of one series; more are refused before anything is read."""

_MOST_COORDINATES = 64
"""Values of one coordinate that a row shows."""

TIME = "time_ns"
OFFSET = "offset_ns"
GRID = "grid"
_RESERVED = (TIME, OFFSET, GRID, "bytes")

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """The channels of one series.

    Attributes:
        source: Name of the stream: the variable, and its channel where each is a series by itself.
        kept: For each dimension but time, in the array's order, the entries as half-open ranges.
        names: Name of each channel, in the order in which they are sent.
    """

    source: str
    kept: tuple[tuple[str, Ranges], ...]
    names: tuple[str, ...]

    def slices(self) -> tuple[Slice, ...]:
        """Return the ranges as they stand in an address, behind that of time."""
        return tuple(
            Slice(dim=slice_name(dim), start=start, stop=stop) for dim, ranges in self.kept for start, stop in ranges
        )


def slice_name(dim: str) -> str:
    """Return what a dimension is called in an address: names that mean something else there are told apart."""
    return f"{dim} (index)" if dim in _RESERVED else dim


def channels_of(store: ArrayStore, info: ArrayInfo, time_dim: str, spec: SensorsSource) -> Iterator[Channels]:
    """Yield the series that an array gives.

    Raises:
        SourceError: `no_match`: a label is not there. `wrong_shape`: several entries of a dimension are left that is no
            channel, or there are too many channels.
    """
    others = [dim for dim in info.dims if dim != time_dim]
    entries: dict[str, tuple[int, ...]] = {}
    for dim in others:
        size = info.shape[info.dims.index(dim)]
        wanted = spec.select.get(dim)
        entries[dim] = tuple(range(size)) if wanted is None else _chosen(store, info, dim, wanted)
        is_channel = spec.channels is None or dim in spec.channels
        if not is_channel and len(entries[dim]) != 1:
            raise SourceError(
                "wrong_shape",
                f"{info.name}: {len(entries[dim])} entries of {dim} are left: name it in source.channels, or choose "
                "one in source.select",
            )
    count = math.prod(len(kept) for kept in entries.values())
    names = [_labels(store, info, dim, entries[dim]) for dim in others if _is_named(info, dim, spec)]
    if spec.group == "each":
        for places in itertools.product(*(range(len(entries[dim])) for dim in others)):
            label = ", ".join(
                _labels(store, info, dim, entries[dim])[place]
                for dim, place in zip(others, places, strict=True)
                if _is_named(info, dim, spec)
            )
            kept = tuple(
                (dim, ((entries[dim][place], entries[dim][place] + 1),))
                for dim, place in zip(others, places, strict=True)
            )
            source = f"{info.name}[{label.replace('[', '(').replace(']', ')')}]" if label else info.name
            yield Channels(source=source, kept=kept, names=(label or info.short,))
        return
    if count > MOST_CHANNELS:
        raise SourceError(
            "wrong_shape",
            f"{info.name}: {count:,} channels in one series, at most {MOST_CHANNELS:,} are sent: choose some in "
            "source.select, or source.group: each",
        )
    together = tuple(", ".join(parts) for parts in itertools.product(*names)) if names else (info.short,)
    yield Channels(
        source=info.name, kept=tuple((dim, _ranges(entries[dim])) for dim in others), names=together if count else ()
    )


def variable_of(source: str, group: str) -> str:
    """Return the variable of a stream, which `channels_of` named."""
    return source.rpartition("[")[0] if group == "each" and source.endswith("]") else source


def names_of(
    store: ArrayStore, info: ArrayInfo, kept: Sequence[tuple[str, Sequence[int]]], spec: SensorsSource
) -> tuple[str, ...]:
    """Return the names of channels, as `channels_of` gave them."""
    labels = [_labels(store, info, dim, entries) for dim, entries in kept if _is_named(info, dim, spec)]
    return tuple(", ".join(parts) for parts in itertools.product(*labels)) if labels else (info.short,)


def coordinates_text(store: ArrayStore, info: ArrayInfo, kept: Mapping[str, Sequence[int]]) -> str:
    """Return the labels and auxiliary coordinates of the kept entries, as JSON text; `{}` where there are none."""
    found: dict[str, Any] = {}
    for dim, entries in kept.items():
        coordinate = coordinate_of(store, info, dim)
        if coordinate is not None and coordinate.name != info.name:
            found[dim] = _plain(store, coordinate, [entries])
    names = info.attrs.get("coordinates")
    for name in names.split() if isinstance(names, str) else ():
        array = nearby(store, info, name)
        if array is not None and name not in found and set(array.dims) <= kept.keys():
            found[name] = _plain(store, array, [kept[dim] for dim in array.dims])
    return json.dumps(found, ensure_ascii=False, allow_nan=False)


def _plain(store: ArrayStore, array: ArrayInfo, entries: Sequence[Sequence[int]]) -> Any:
    box = tuple(slice(min(kept), max(kept) + 1) for kept in entries)
    values = store.read(array.name, box)
    if entries:
        values = values[np.ix_(*[np.asarray(kept) - min(kept) for kept in entries])]
    flat = [_label(value) if not isinstance(_item(value), (int, float)) else _item(value) for value in values.ravel()]
    flat = [None if isinstance(value, float) and not math.isfinite(value) else value for value in flat]
    if len(flat) == 1:
        return flat[0]
    return flat if len(flat) <= _MOST_COORDINATES else [*flat[:_MOST_COORDINATES], "..."]


def _is_named(info: ArrayInfo, dim: str, spec: SensorsSource) -> bool:
    """Whether entries of a dimension tell channels apart: not where it can have only one."""
    size = info.shape[info.dims.index(dim)]
    return size > 1 and (spec.channels is None or dim in spec.channels)


def _chosen(store: ArrayStore, info: ArrayInfo, dim: str, wanted: Selection) -> tuple[int, ...]:
    size = info.shape[info.dims.index(dim)]
    if isinstance(wanted, IndexRange):
        if wanted.stop > size:
            raise SourceError(
                "no_match", f"{info.name}: {dim} has {size} entries, source.select asks for {wanted.stop}"
            )
        return tuple(range(wanted.start, wanted.stop))
    labels = _labels(store, info, dim, range(size), plain=True)
    found: list[int] = []
    for label in wanted if isinstance(wanted, tuple) else (wanted,):
        places = [place for place, each in enumerate(labels) if _same(each, label)]
        if not places:
            shown = ", ".join(labels[:10]) + (", ..." if size > 10 else "")
            raise SourceError("no_match", f"{info.name}: {dim} has no entry {label!r} (it has {shown})")
        found += places
    return tuple(sorted(set(found)))


def _same(label: str, wanted: Label) -> bool:
    if label == str(wanted):
        return True
    if isinstance(wanted, str):
        return False
    try:
        return math.isclose(float(label), float(wanted), rel_tol=1e-6)
    except ValueError:
        return False


def _labels(store: ArrayStore, info: ArrayInfo, dim: str, entries: Sequence[int], *, plain: bool = False) -> list[str]:
    """Return the label of each entry; without a coordinate its number, behind the dimension's name unless `plain`."""
    coordinate = coordinate_of(store, info, dim)
    if coordinate is None or coordinate.name == info.name:
        return [str(entry) if plain else f"{dim} {entry}" for entry in entries]
    if not entries:
        return []
    values = store.read(coordinate.name, (slice(min(entries), max(entries) + 1),))
    return [_label(values[entry - min(entries)]) for entry in entries]


def _item(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _label(value: Any) -> str:
    plain = _item(value)
    if isinstance(plain, bytes):
        return plain.rstrip(b"\0").decode("utf-8", "replace")
    if isinstance(plain, float):
        return f"{plain:g}"
    return str(plain)


def _ranges(entries: Sequence[int]) -> Ranges:
    found: list[tuple[int, int]] = []
    for entry in entries:
        if found and found[-1][1] == entry:
            found[-1] = (found[-1][0], entry + 1)
        else:
            found.append((entry, entry + 1))
    return tuple(found)
