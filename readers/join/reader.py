"""The reader of several sources as one: the primary one defines the chunks, the others are looked up."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s1batch.errors import JobFileError, UsageError
from s1batch.readers.base import Reader
from s1batch.readers.join.addresses import Names, inner_path, outer_path
from s1batch.readers.join.index import PartnerIndex
from s1batch.readers.join.rules import JoinRules, places
from s1batch.records import (
    Address,
    Chunk,
    Fields,
    ImagePart,
    InventoryItem,
    PlanEntry,
    Record,
    Refusal,
    Series,
    SeriesShape,
)
from s1batch.times import format_ns

if TYPE_CHECKING:
    from s1batch.columns import Column

KEPT_RECORDS = 4
"""Records of each partner that are kept while one call reads: neighbours often have the same partner."""

_SOURCE = ("source_files", "source_sizes", "source_mtimes_ns")


@dataclass(frozen=True)
class JoinReader:
    """Plans and reads pieces that belong together.

    Attributes:
        readers: The reader of each source, by its name.
        rules: What belongs together.
    """

    readers: Mapping[str, Reader]
    rules: JoinRules

    @property
    def lineage(self) -> tuple[Column, ...]:
        """The primary source's columns, and those of each partner behind its name, as lists where it may be many."""
        import pyarrow as pa

        from s1batch.columns import Column

        columns: list[Column] = []
        for alias in self._order:
            found = [column for column in self.readers[alias].lineage if column.name not in _SOURCE]
            if alias == self.rules.primary:
                columns += found
                continue
            doc = f"pieces of {alias} that the question holds"
            columns.append(Column(name=f"{alias}_pieces", type=pa.int64(), doc=doc))
            many = alias in self.rules.many
            columns += (
                Column(
                    name=f"{alias}_{column.name}",
                    type=pa.list_(column.type) if many else column.type,
                    doc=f"{alias}: {column.doc}",
                )
                for column in found
            )
        texts, numbers = pa.list_(pa.string()), pa.list_(pa.int64())
        files = "files that tell their state, each behind the name of its source"
        return (
            *columns,
            Column(name="source_files", type=texts, doc=files),
            Column(name="source_sizes", type=numbers, doc="their sizes in bytes"),
            Column(name="source_mtimes_ns", type=numbers, doc="their times of modification, ns since 1970"),
        )

    def plan(self) -> Iterator[InventoryItem | PlanEntry]:
        """Yield the archives of all sources, and one entry for each piece of the primary one.

        What of a partner no question holds is not selected. A piece of a partner whose key cannot be read is a refused
        entry of its own.

        Raises:
            JobFileError: A source has no times of its own, and the job names no field that holds them.
        """
        names, rules = Names(self.rules.primary), self.rules
        with PartnerIndex(rules.tolerance_ns) as index:
            for alias in self._partners:
                items: list[InventoryItem] = []
                entries = _entries(self._planned(alias), items)
                for entry, place in places(alias, self.readers[alias], rules, entries):
                    yield from _taken(names, alias, items)
                    if isinstance(place, Refusal) or (entry.refusal is not None and entry.chunk.dim is None):
                        yield _alone(names, alias, entry, place if isinstance(place, Refusal) else entry.refusal)
                    elif not entry.is_scan:
                        index.add(alias, place, entry)
                yield from _taken(names, alias, items)
            index.end()
            yield from self._questions(names, index)

    def _planned(self, alias: str) -> Iterator[InventoryItem | PlanEntry]:
        """Yield the plan of one source; what is wrong with its block is said under its name."""
        try:
            yield from self.readers[alias].plan()
        except UsageError as error:
            told = str(error)
            where = f"source.sources.{alias}"
            own = told.removeprefix("source.")
            raise JobFileError(f"{where}: {told}" if own == told else f"{where}.{own}") from error

    def files(self) -> Iterator[str]:
        """Yield the encoded relative paths of all files, each behind the name of its source."""
        for alias in self._order:
            for path in self.readers[alias].files():
                yield outer_path(alias, path)

    def reader_of(self, path: str) -> tuple[Reader, str]:
        """Return the source that a path belongs to, and its path there."""
        alias, inner = inner_path(path)
        return self.readers[alias], inner

    def locate(self, path: str) -> Path:
        """Return where a file is now, absolute."""
        reader, inner = self.reader_of(path)
        return reader.locate(inner)

    def read(self, chunks: Sequence[Chunk]) -> Iterator[Record]:
        """Yield the record of each chunk; each source is read once over all chunks, in step with the others."""
        names = Names(self.rules.primary)
        parted = [names.parted(chunk) for chunk in chunks]
        streams = {}
        for alias, reader in self.readers.items():
            wanted = [piece for pieces in parted for name, piece in pieces if name == alias]
            streams[alias] = _Stream(reader.read, wanted, 0 if alias == self.rules.primary else KEPT_RECORDS)
        for chunk, pieces in zip(chunks, parted, strict=True):
            yield self._joined(chunk, [(alias, streams[alias].take()) for alias, _ in pieces])

    @property
    def _partners(self) -> list[str]:
        return [alias for alias in self.readers if alias != self.rules.primary]

    @property
    def _order(self) -> list[str]:
        return [self.rules.primary, *self._partners]

    @cached_property
    def _partner_columns(self) -> dict[str, list[str]]:
        """Names of the lineage columns of each partner."""
        return {
            alias: [column.name for column in self.readers[alias].lineage if column.name not in _SOURCE]
            for alias in self._partners
        }

    def _questions(self, names: Names, index: PartnerIndex) -> Iterator[InventoryItem | PlanEntry]:
        rules, primary = self.rules, self.rules.primary
        items: list[InventoryItem] = []
        scan = renamed = ""
        for entry, place in places(primary, self.readers[primary], rules, _entries(self._planned(primary), items)):
            yield from _taken(names, primary, items)
            if isinstance(place, Refusal):
                yield _alone(names, primary, entry, place)
                continue
            found = [
                (alias, partner)
                for alias in self._partners
                for partner in index.find(alias, place, many=alias in rules.many)
            ]
            joined = self._entry(names, entry, found)
            if entry.condition is not None:
                # Windows follow the scan that decides about them.
                joined = replace(joined, condition=renamed if entry.condition == scan else None)
            if entry.is_scan:
                scan, renamed = entry.chunk.key, joined.chunk.key
            yield joined
        yield from _taken(names, primary, items)

    def _entry(self, names: Names, entry: PlanEntry, partners: Sequence[tuple[str, PlanEntry]]) -> PlanEntry:
        every = [entry, *(partner for _, partner in partners)]
        series: list[SeriesShape | None] = []
        for each in every:
            series += [each.series] if each.series is not None else []
            series += each.further_series
        first = series[0] if series else None
        return replace(
            entry,
            chunk=names.joined(
                [(self.rules.primary, entry.chunk), *((alias, partner.chunk) for alias, partner in partners)]
            ),
            series=first,
            further_series=tuple(series[1:] if first is not None else series),
            text_chars=sum(each.text_chars for each in every),
            text_tokens=sum(each.text_tokens or 0 for each in every),
            images=sum(each.images for each in every),
            image_sizes=tuple(size for each in every for size in each.image_sizes),
            nbytes=sum(each.nbytes for each in every),
            refusal=entry.refusal or self._refusal(partners),
        )

    def _refusal(self, partners: Sequence[tuple[str, PlanEntry]]) -> Refusal | None:
        for alias, partner in partners:
            if partner.refusal is not None:
                return replace(partner.refusal, detail=f"{alias}: {partner.refusal.detail}")
        there = {alias for alias, _ in partners}
        missing = [alias for alias in self._partners if alias not in there]
        if not missing or self.rules.alone:
            return None
        how = "of this time" if self.rules.by_time else f"with this key ({self.rules.keys[self.rules.primary]})"
        detail = f"there is no piece of {', '.join(missing)} {how}; source.missing: alone asks without it"
        return Refusal(outcome="refused", reason="no_match", detail=detail)

    def _joined(self, chunk: Chunk, pieces: Sequence[tuple[str, Record]]) -> Record:
        primary = self.rules.primary
        found: dict[str, list[Record]] = {alias: [] for alias in self._order}
        for alias, record in pieces:
            found[alias].append(record)
        lineage = self._lineage(found)
        for alias, record in pieces:
            if record.refusal is not None:
                refusal = replace(record.refusal, detail=f"{alias}: {record.refusal.detail}")
                return Record(chunk=chunk, lineage=lineage, refusal=refusal)
        if not found[primary]:
            refusal = Refusal(outcome="unreadable", reason="not_readable", detail=f"{primary}: nothing was planned")
            return Record(chunk=chunk, lineage=lineage, refusal=refusal)
        values: dict[str, Any] = {}
        for alias, records in found.items():
            plain = [_values(record) for record in records]
            values[alias] = plain if alias in self.rules.many else plain[0] if plain else None
        images: list[ImagePart] = []
        series: list[Series] = []
        for _, record in pieces:
            if isinstance(record.payload, Series):
                series.append(record.payload)
            elif isinstance(record.payload, Fields):
                images += record.payload.images
                series += record.payload.series
        payload = Fields(values=values, images=tuple(images), series=tuple(series))
        return Record(chunk=chunk, lineage=lineage, payload=payload)

    def _lineage(self, found: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
        lineage: dict[str, Any] = {}
        files: dict[str, tuple[Any, Any]] = {}
        for alias, records in found.items():
            for record in records:
                state = (record.lineage.get(name) or () for name in _SOURCE)
                files.update(
                    (outer_path(alias, path), (size, mtime_ns)) for path, size, mtime_ns in zip(*state, strict=False)
                )
            plain = [
                {name: value for name, value in record.lineage.items() if name not in _SOURCE} for record in records
            ]
            if alias == self.rules.primary:
                lineage.update(plain[0] if plain else {})
                continue
            lineage[f"{alias}_pieces"] = len(records)
            if alias in self.rules.many:
                names = self._partner_columns[alias]
                lineage.update({f"{alias}_{name}": [each.get(name) for each in plain] for name in names})
            elif plain:
                lineage.update({f"{alias}_{name}": value for name, value in plain[0].items()})
        lineage["source_files"] = list(files)
        lineage["source_sizes"] = [size for size, _ in files.values()]
        lineage["source_mtimes_ns"] = [mtime_ns for _, mtime_ns in files.values()]
        return lineage


class _Stream:
    """The records of one source in the order in which they are wanted; what came a short while ago is not read again.

    Args:
        read: The reader's function.
        wanted: The pieces, in order; some may come again.
        kept: How many records are kept.
    """

    def __init__(self, read: Callable[[Sequence[Chunk]], Iterator[Record]], wanted: Sequence[Chunk], kept: int) -> None:
        self._kept = kept
        self._wanted = iter(wanted)
        self._recent: OrderedDict[tuple[Address, ...], Record | None] = OrderedDict()
        fresh = [chunk for chunk in wanted if not self._meet(chunk.inputs)]
        self._recent.clear()
        self._records = iter(read(fresh)) if fresh else iter(())

    def take(self) -> Record:
        """Return the record of the next piece."""
        inputs = next(self._wanted).inputs
        if self._meet(inputs):
            record = self._recent[inputs]
        else:
            record = next(self._records)
            if self._kept:
                self._recent[inputs] = record
        if record is None:
            raise RuntimeError("a record that was to be kept is not there")
        return record

    def _meet(self, inputs: tuple[Address, ...]) -> bool:
        """Note that a piece is wanted; return whether it is kept."""
        if not self._kept:
            return False
        if inputs in self._recent:
            self._recent.move_to_end(inputs)
            return True
        self._recent[inputs] = None
        if len(self._recent) > self._kept:
            self._recent.popitem(last=False)
        return False


def _entries(lines: Iterator[InventoryItem | PlanEntry], items: list[InventoryItem]) -> Iterator[PlanEntry]:
    """Yield the entries among a source's lines; put its items aside."""
    for line in lines:
        if isinstance(line, InventoryItem):
            items.append(line)
        else:
            yield line


def _taken(names: Names, alias: str, items: list[InventoryItem]) -> Iterator[InventoryItem]:
    """Yield the items that were put aside, as those of all sources."""
    yield from (names.item(alias, item) for item in items)
    items.clear()


def _alone(names: Names, alias: str, entry: PlanEntry, refusal: Refusal | None) -> PlanEntry:
    """Return an entry that is not asked, because it cannot be told what it belongs to."""
    if refusal is not None:
        refusal = replace(refusal, detail=f"{alias}: {refusal.detail}")
    return replace(entry, chunk=names.joined([(alias, entry.chunk)]), refusal=refusal, condition=None)


def _values(record: Record) -> dict[str, Any]:
    """Return what a template may use of a piece: its times, its lineage, and its values."""
    chunk = record.chunk
    times = {}
    if chunk.dim == "time_ns" and chunk.start is not None and chunk.stop is not None:
        times = {"start": format_ns(chunk.start), "end": format_ns(chunk.stop)}
    return {**times, **record.lineage, **(record.payload.values if isinstance(record.payload, Fields) else {})}
