"""The reader of results: each row of another run, or each group of them, is one chunk.

The key of a chunk is made of the keys of the rows in their own run, not of where they are stored: a run that is made
again, or whose files are cut otherwise, keeps the identity of its rows. Where they are stored is in the addresses, with
a check of those keys, so that a row which moved is noticed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s1batch.canonical import plain_digest
from s1batch.errors import JobFileError, SourceError
from s1batch.paths import decode_path, encode_path
from s1batch.readers.failures import as_source_error
from s1batch.readers.results.folder import PLAN, ResultsFolder
from s1batch.readers.results.groups import RowGroups, RowPlace, sort_key
from s1batch.readers.results.spec import ResultsSource
from s1batch.readers.tables.formats import RowPlace as TablePlace
from s1batch.readers.tables.forward import KeptDecoders
from s1batch.readers.tables.parquet import Parquet
from s1batch.records import Address, Chunk, Fields, InventoryItem, PlanEntry, Record, Refusal, Slice

if TYPE_CHECKING:
    from s1batch.columns import Column

ROOT = "results"
"""The name of the root folder in addresses."""

_SOURCE = ("source_files", "source_sizes", "source_mtimes_ns")
_LINES_AT_ONCE = 8192

ROWS_AT_ONCE = 512
"""Rows that are held while the groups that they belong to are put together."""


@dataclass(frozen=True)
class ResultsReader:
    """Plans and reads the rows of another run.

    Attributes:
        spec: The `source:` block.
        base_dir: Folder of the job file, which the path is relative to.
    """

    spec: ResultsSource
    base_dir: Path
    _decoders: KeptDecoders = field(default_factory=KeptDecoders, init=False, repr=False, compare=False)

    @property
    def lineage(self) -> tuple[Column, ...]:
        """The keys of the rows, the values that make the group, and the files."""
        import pyarrow as pa

        from s1batch.columns import Column

        texts, numbers = pa.list_(pa.string()), pa.list_(pa.int64())
        groups = tuple(
            Column(
                name=f"group_{name}", type=self._folder.schema.field(name).type, doc=f"{name} of all rows of the group"
            )
            for name in self._checked(self.spec.group_by)
        )
        return (
            Column(
                name="row_keys", type=texts, doc=f"{self._key} of the rows in the run that they come from, in order"
            ),
            *groups,
            Column(name="source_files", type=texts, doc="files that were read, below the folder of that run"),
            Column(name="source_sizes", type=numbers, doc="their sizes in bytes"),
            Column(name="source_mtimes_ns", type=numbers, doc="their times of modification, ns since 1970"),
        )

    def plan(self) -> Iterator[InventoryItem | PlanEntry]:
        """Yield the rows of each file with what becomes of them, and one entry for each row or group.

        Raises:
            JobFileError: There are no results, a column is missing, or the run is not complete.
        """
        self._checked([name.removeprefix("-") for name in (*(self.spec.columns or ()), *self.spec.order_by)])
        files = self._folder.files()
        waiting = self._folder.unfinished()
        if waiting and not self.spec.partial:
            raise JobFileError(
                f"source.path: {self._folder.path} is not complete: {len(waiting):,} parts with {waiting.total():,} "
                "chunks have no file of rows; finish that run, or set source.partial: true"
            )
        if waiting:
            yield _item(
                self._folder.path / PLAN,
                PLAN,
                status="not_selected",
                reason="unfinished",
                unit="rows",
                count=waiting.total(),
            )
        if not self.spec.group_by:
            for number, path in enumerate(files):
                for line in self._rows(number, path):
                    yield line if not isinstance(line, _Row) else self._entry((line.place,), files, label=line.label)
            return
        order = [name.removeprefix("-") for name in self.spec.order_by]
        with RowGroups(
            len(self._checked(self.spec.group_by)), [name.startswith("-") for name in self.spec.order_by]
        ) as groups:
            for number, path in enumerate(files):
                for line in self._rows(number, path):
                    if not isinstance(line, _Row):
                        yield line
                        continue
                    values = line.values
                    groups.add(
                        [sort_key(values[name]) for name in self.spec.group_by],
                        [sort_key(values[name]) for name in order],
                        line.place,
                    )
            for group, places in groups.pieces(self.spec.max_rows):
                yield self._entry(places, files, label=", ".join(map(str, group)), group=[repr(each) for each in group])

    def files(self) -> Iterator[str]:
        """Yield the encoded relative paths of all files, without opening them."""
        for path in self._folder.files():
            yield encode_path(path.relative_to(self._folder.path))

    def locate(self, path: str) -> Path:
        """Return where a file is now, absolute."""
        return self._folder.path / decode_path(path)

    def read(self, chunks: Sequence[Chunk]) -> Iterator[Record]:
        """Yield the record of each row or group; some of them at once, so that no file is decoded for each anew."""
        yield from self._records(chunks, self.spec.columns)

    def values_of(self, chunks: Sequence[Chunk], names: Sequence[str]) -> Iterator[Mapping[str, Any] | Refusal]:
        """Yield some columns of each row, or why it cannot be read."""
        there = set(self._folder.schema.names)
        columns = tuple(name for name in names if name in there)
        few = not self.spec.group_by and len(columns) == len(names)
        for record in self._records(chunks, columns if few else self.spec.columns):
            if isinstance(record.payload, Fields):
                yield {**record.lineage, **record.payload.values}
            else:
                yield record.refusal or Refusal(outcome="unreadable", reason="not_readable", detail="nothing was read")

    # ------------------------------------------------------------------------------------------- planning

    @cached_property
    def _folder(self) -> ResultsFolder:
        return ResultsFolder(Path(os.path.abspath(self.base_dir / self.spec.path)), self.spec.merged)

    @property
    def _key(self) -> str:
        return "group_id" if self.spec.merged else "chunk_key"

    def _checked(self, names: Sequence[str]) -> Sequence[str]:
        there = self._folder.schema.names
        missing = [name for name in names if name not in there]
        if missing:
            raise JobFileError(f"source: no column {', '.join(missing)} in {self.spec.path}; the columns are {there}")
        return names

    def _rows(self, number: int, path: Path) -> Iterator[InventoryItem | PlanEntry | _Row]:
        """Yield the selected rows of a file, and items for all of it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        name = encode_path(path.relative_to(self._folder.path))
        wanted = {self._key, *self.spec.group_by, *(each.removeprefix("-") for each in self.spec.order_by)}
        labels = [each for each in ("source", "station") if each in self._folder.schema.names][:1]
        wanted.update(labels if not self.spec.group_by else (), () if self.spec.merged else ("outcome",))
        done = total = 0
        runs: list[tuple[str, int]] = []
        try:
            with path.open("rb") as raw, pq.ParquetFile(raw, page_checksum_verification=True) as file:
                total = file.metadata.num_rows
                nbytes = self._row_bytes(file.metadata)
                for batch in file.iter_batches(batch_size=_LINES_AT_ONCE, columns=sorted(wanted), use_threads=False):
                    outcomes = None if self.spec.merged else batch.column("outcome").to_pylist()
                    columns = {each: _plain(batch.column(each)) for each in wanted}
                    for index in range(batch.num_rows):
                        outcome = "" if outcomes is None else outcomes[index]
                        chosen = outcomes is None or outcome in self.spec.outcomes
                        runs.append(("" if chosen else outcome, done + index))
                        if chosen:
                            values = {each: column[index] for each, column in columns.items()}
                            place = RowPlace(file=number, index=done + index, key=values[self._key], nbytes=nbytes)
                            label = str(values[labels[0]]) if labels and labels[0] in values else place.key
                            yield _Row(place, values, label)
                    yield from _items(path, name, runs)
                    runs.clear()
                    done += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            # What was taken of the batch that broke is not there: its rows count with the rest of the file.
            size = path.stat().st_size if path.exists() else 0
            reason = as_source_error(error).reason if isinstance(error, OSError) else "not_readable"
            left = size if not total else size * (total - done) // total
            yield _item(path, name, status="unreadable", reason=reason, unit="bytes", count=left)
            yield PlanEntry(
                chunk=Chunk(inputs=(Address(root=ROOT, path=name),)),
                label=name,
                refusal=Refusal(outcome="unreadable", reason=reason, detail=f"{name}: {error}"),
            )

    def _row_bytes(self, metadata: Any) -> int:
        """Return about the bytes of a row, in the columns that are read."""
        names = self.spec.columns
        total = 0
        for group in range(metadata.num_row_groups):
            for leaf in range(metadata.num_columns):
                column = metadata.row_group(group).column(leaf)
                if names is None or column.path_in_schema.partition(".")[0] in names:
                    total += column.total_uncompressed_size
        return int(total // max(metadata.num_rows, 1))

    def _entry(
        self, places: Sequence[RowPlace], files: Sequence[Path], *, label: str, group: Sequence[str] = ()
    ) -> PlanEntry:
        keys = [place.key for place in places]
        addresses = []
        # Neighbours in one file become one address; the order of the addresses is that of the prompt.
        for _, run in groupby(enumerate(places), lambda item: (item[1].file, item[1].index - item[0])):
            here = [place for _, place in run]
            rows = Slice(dim="rows", start=here[0].index, stop=here[-1].index + 1)
            path = encode_path(files[here[0].file].relative_to(self._folder.path))
            addresses.append(Address(root=ROOT, path=path, slices=(rows, _check([place.key for place in here]))))
        nbytes = sum(place.nbytes for place in places)
        key = plain_digest([list(group), keys])
        chunk = Chunk.planned(key, tuple(addresses), None)
        return PlanEntry(chunk=chunk, label=label, nbytes=nbytes, text_chars=nbytes)

    # -------------------------------------------------------------------------------------------- reading

    def _records(self, chunks: Sequence[Chunk], columns: tuple[str, ...] | None) -> Iterator[Record]:
        waiting: list[Chunk] = []
        rows = 0
        for chunk in chunks:
            waiting.append(chunk)
            rows += sum(address.slices[0].stop - address.slices[0].start for address in chunk.inputs if address.slices)
            if rows >= ROWS_AT_ONCE:
                yield from self._block(waiting, columns)
                waiting, rows = [], 0
        yield from self._block(waiting, columns)

    def _block(self, chunks: Sequence[Chunk], columns: tuple[str, ...] | None) -> Iterator[Record]:
        wanted: dict[str, set[int]] = {}
        for chunk in chunks:
            for address in chunk.inputs:
                if address.slices:
                    span = address.slices[0]
                    wanted.setdefault(address.path, set()).update(range(span.start, span.stop))
        files = {path: self._file(path, sorted(indices), columns) for path, indices in wanted.items()}
        for chunk in chunks:
            yield self._record(chunk, files, columns)

    def _file(self, path: str, indices: Sequence[int], columns: tuple[str, ...] | None) -> _FileRows:
        """Read rows of a file; one that cannot be read has its error in its place."""
        # In the order of the file: decoders are kept by these names.
        needed = {*(columns or ()), *self.spec.group_by, self._key}
        wanted = None if columns is None else tuple(name for name in self._folder.schema.names if name in needed)
        found: dict[int, Mapping[str, Any] | SourceError] = {}
        size = mtime_ns = None
        try:
            stat = self.locate(path).stat()
            size, mtime_ns = stat.st_size, stat.st_mtime_ns
            places = [TablePlace(index=index) for index in indices]
            for index, row in zip(
                indices, Parquet(wanted, self._decoders).read(self.locate(path), places), strict=True
            ):
                found[index] = row
        except (SourceError, OSError) as error:
            failure = as_source_error(error)
            found.update((index, failure) for index in indices if index not in found)
        return _FileRows(size, mtime_ns, found)

    def _record(self, chunk: Chunk, files: Mapping[str, _FileRows], columns: tuple[str, ...] | None) -> Record:
        lineage: dict[str, Any] = {"row_keys": [], **{name: [] for name in _SOURCE}}
        rows: list[Mapping[str, Any]] = []
        try:
            if not all(address.slices for address in chunk.inputs):
                raise SourceError("not_readable", "no rows were planned")
            for address in chunk.inputs:
                rows += self._rows_of(address, files[address.path], lineage)
        except SourceError as error:
            refusal = Refusal(outcome="unreadable", reason=error.reason, detail=error.detail)
            return Record(chunk=chunk, lineage=lineage, refusal=refusal)
        shown = [{name: row[name] for name in columns or row} for row in rows]
        if not self.spec.group_by:
            return Record(chunk=chunk, lineage=lineage, payload=Fields(values=shown[0]))
        group = {name: rows[0][name] for name in self.spec.group_by}
        lineage.update({f"group_{name}": value for name, value in group.items()})
        return Record(
            chunk=chunk, lineage=lineage, payload=Fields(values={**group, "rows": shown, "n_rows": len(shown)})
        )

    def _rows_of(self, address: Address, file: _FileRows, lineage: dict[str, Any]) -> list[Mapping[str, Any]]:
        """Return the rows of an address, and note their keys and their file in the lineage.

        Raises:
            SourceError: They cannot be read, or are others than planned.
        """
        if file.size is not None and address.path not in lineage["source_files"]:
            for name, value in zip(_SOURCE, (address.path, file.size, file.mtime_ns), strict=True):
                lineage[name].append(value)
        rows: list[Mapping[str, Any]] = []
        for index in range(address.slices[0].start, address.slices[0].stop):
            row = file.rows[index]
            if isinstance(row, SourceError):
                raise SourceError(row.reason, f"{address.path}: {row.detail}")
            rows.append(row)
        keys = [str(row[self._key]) for row in rows]
        if _check(keys) != address.slices[1]:
            raise SourceError("source_changed", f"{address.path} holds other rows than when it was planned")
        lineage["row_keys"] += keys
        return rows


@dataclass(frozen=True, slots=True)
class _FileRows:
    """Rows of a file by their numbers, or their errors, and the state of the file when they were read."""

    size: int | None
    mtime_ns: int | None
    rows: Mapping[int, Mapping[str, Any] | SourceError]


@dataclass(frozen=True, slots=True)
class _Row:
    """A row that is selected: its place, the values that sort it, and its name for people."""

    place: RowPlace
    values: Mapping[str, Any]
    label: str


def _items(path: Path, name: str, rows: Sequence[tuple[str, int]]) -> Iterator[InventoryItem]:
    """Yield neighbouring rows with one outcome as one item; the empty outcome is that of selected rows."""
    for outcome, run in groupby(rows, lambda row: row[0]):
        indices = [index for _, index in run]
        start, stop = indices[0], indices[-1] + 1
        status = "not_selected" if outcome else "selected"
        yield _item(path, name, status=status, reason=outcome, unit="rows", count=stop - start, start=start, stop=stop)


def _item(path: Path, name: str, **about: Any) -> InventoryItem:
    try:
        stat = path.stat()
        size, mtime_ns = stat.st_size, stat.st_mtime_ns
    except OSError:
        size = mtime_ns = 0
    return InventoryItem(root=ROOT, path=name, size=size, mtime_ns=mtime_ns, **about)


def _check(keys: Sequence[str]) -> Slice:
    """Return a check of the keys of an address's rows, as a slice."""
    number = int(plain_digest(list(keys))[:15], 16)
    return Slice(dim="row_keys", start=number, stop=number + 1)


def _plain(column: Any) -> list[Any]:
    """Return an Arrow column as Python values, times as integers: they sort the same, and lose nothing."""
    import pyarrow as pa

    if pa.types.is_temporal(column.type):
        width = 32 if column.type.bit_width == 32 else 64
        column = column.view(pa.int32() if width == 32 else pa.int64())
    return list(column.to_pylist())
