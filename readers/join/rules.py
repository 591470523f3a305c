"""What belongs together: keys and times of pieces, from their values and from what the plan knows of them."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from s1batch.errors import JobFileError
from s1batch.readers.base import KnowsValues, Reader
from s1batch.records import Fields, PlanEntry, Refusal

ENTRIES_AT_ONCE = 256

FACTS = ("path", "file", "stem", "label", "stream", "network", "station")
"""What the plan knows of every piece; a field `chunk.NAME` means these."""

_FACT = "chunk."
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRules:
    """How sources are joined; the fields are those of the `source:` block.

    Attributes:
        primary: The source whose pieces are the questions.
        by_time: Whether times must overlap.
        keys: Field of the key of each source; empty when keys do not matter.
        times: Fields of the times, of sources that have no windows of time.
        tolerance_ns: How far apart times may be.
        many: Sources of which all matches are taken.
        alone: Whether a piece without partners is asked all the same.
    """

    primary: str
    by_time: bool = False
    keys: Mapping[str, str]
    times: Mapping[str, tuple[str, ...]]
    tolerance_ns: int = 0
    many: frozenset[str] = frozenset()
    alone: bool = False

    def fields(self, alias: str) -> tuple[str, ...]:
        """Return the fields of a source that must be read to tell where its pieces belong."""
        key = (self.keys[alias],) if alias in self.keys else ()
        times = self.times.get(alias, ()) if self.by_time else ()
        return tuple(name for name in (*key, *times) if not name.startswith(_FACT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a piece belongs.

    Attributes:
        key: Its key as text, empty where keys do not matter; None when it has none, and so no partner.
        start_ns: First instant; None where times do not matter, or when it has none.
        stop_ns: First instant behind.
    """

    key: str | None
    start_ns: int | None = None
    stop_ns: int | None = None


def places(
    alias: str, reader: Reader, rules: JoinRules, entries: Iterable[PlanEntry]
) -> Iterator[tuple[PlanEntry, Place | Refusal]]:
    """Yield each entry with where it belongs, or why that cannot be told.

    Values are read only where a field is none of the facts that the plan knows.
    """
    names = rules.fields(alias)
    if not names:
        for entry in entries:
            yield entry, _place(alias, rules, entry, {})
        return
    waiting = iter(entries)
    while batch := list(islice(waiting, ENTRIES_AT_ONCE)):
        found = iter(_values(reader, [entry for entry in batch if entry.refusal is None], names))
        for entry in batch:
            values = entry.refusal or next(found)
            yield entry, values if isinstance(values, Refusal) else _place(alias, rules, entry, values)


def _values(
    reader: Reader, entries: Sequence[PlanEntry], names: Sequence[str]
) -> Iterator[Mapping[str, Any] | Refusal]:
    chunks = [entry.chunk for entry in entries]
    if not chunks:
        return
    if isinstance(reader, KnowsValues):
        yield from reader.values_of(chunks, names)
        return
    for record in reader.read(chunks):
        if record.refusal is not None:
            yield record.refusal
        else:
            yield {**record.lineage, **(record.payload.values if isinstance(record.payload, Fields) else {})}


def _place(alias: str, rules: JoinRules, entry: PlanEntry, values: Mapping[str, Any]) -> Place:
    key: str | None = ""
    if alias in rules.keys:
        key = as_key(_field(entry, rules.keys[alias], values))
    if not rules.by_time:
        return Place(key=key)
    chunk = entry.chunk
    if alias in rules.times:
        fields = rules.times[alias]
        times = [as_ns(_field(entry, name, values)) for name in fields]
        start, stop = times[0], times[-1]
        if start is not None and stop is not None:
            # An instant is as long as the shortest time there is, so that it overlaps what holds it.
            return Place(key=key, start_ns=start, stop_ns=max(stop, start + 1))
    elif chunk.dim == "time_ns":
        return Place(key=key, start_ns=chunk.start, stop_ns=chunk.stop)
    elif entry.refusal is None:
        raise JobFileError(
            f"source.time: the pieces of {alias} have no times of their own; name the field that holds them"
        )
    return Place(key=None)


def _field(entry: PlanEntry, name: str, values: Mapping[str, Any]) -> Any:
    if name.startswith(_FACT):
        return _fact(entry, name.removeprefix(_FACT))
    if name in values:
        return values[name]
    outer, dot, inner = name.partition(".")
    found = values.get(outer) if dot else None
    return found.get(inner) if isinstance(found, Mapping) else None


def _fact(entry: PlanEntry, name: str) -> str:
    address = entry.chunk.inputs[0]
    path = PurePosixPath(address.path)
    codes = address.source.split(".")
    match name:
        case "path":
            return address.path
        case "file":
            return path.name
        case "stem":
            return path.stem
        case "label":
            return entry.label
        case "stream":
            return address.source
        case "network":
            return codes[0]
        case "station":
            return codes[1] if len(codes) > 1 else ""
    raise JobFileError(f"source.on: chunk.{name} is none of {', '.join(_FACT + each for each in FACTS)}")


def as_key(value: Any) -> str | None:
    """Return a key as text, so that 5 in one table and "5" in a CSV are the same; None where there is none."""
    match value:
        case None | "":
            return None
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float():
            return None if math.isnan(value) else str(int(value)) if value.is_integer() else repr(value)
        case bytes():
            return value.hex()
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat()
        case list() | tuple() | Mapping():
            return json.dumps(value, sort_keys=True, default=str)
    return str(value)


def as_ns(value: Any) -> int | None:
    """Return a time as ns since 1970: a date, ISO 8601 text (UTC when it does not say), or seconds since 1970.

    None for what is no time.
    """
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if isinstance(value, dt.datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
        since = aware - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        # Times from Arrow may carry nanoseconds, which Python's own have not.
        extra = int(getattr(value, "nanosecond", 0))
        return (since.days * 86_400 + since.seconds) * _NS + since.microseconds * 1000 + extra
    if isinstance(value, dt.date):
        return (value - dt.date(1970, 1, 1)).days * 86_400 * _NS
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return round(value * _NS)
