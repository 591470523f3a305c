"""The reader of tables: each row of a Parquet, Arrow, CSV or JSONL file is one chunk."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s1batch.errors import JobFileError, SourceError
from s1batch.paths import decode_path, encode_path
from s1batch.readers.failures import as_source_error
from s1batch.readers.tables.arrow import Arrow
from s1batch.readers.tables.formats import FORMATS, Csv, JsonLines, RowFormat, RowPlace
from s1batch.readers.tables.forward import KeptDecoders
from s1batch.readers.tables.parquet import Parquet
from s1batch.readers.tables.spec import TableSource
from s1batch.records import (
    Address,
    Chunk,
    Fields,
    ImagePart,
    InventoryItem,
    Outcome,
    PlanEntry,
    Reason,
    Record,
    Refusal,
    Series,
    SeriesShape,
    Slice,
)

if TYPE_CHECKING:
    from s1batch.columns import Column
    from s1batch.readers.tables.images import ImageColumns
    from s1batch.readers.tables.series import SeriesColumns

ROOT = "archive"
"""The name of the root folder in addresses."""

_REFUSED: frozenset[Reason] = frozenset({"not_finite", "wrong_shape", "rate_missing", "series_too_short"})
"""Reasons that are verdicts on data which could be read."""


@dataclass(frozen=True)
class TableReader:
    """Plans and reads the rows of tables.

    The address of a row holds its index (`rows`) and, for CSV and JSONL, its bytes (`bytes`), by which it is found
    without reading what stands before it.

    Attributes:
        spec: The `source:` block.
        base_dir: Folder of the job file, which paths are relative to.
    """

    spec: TableSource
    base_dir: Path
    _decoders: KeptDecoders = field(default_factory=KeptDecoders, init=False, repr=False, compare=False)

    @property
    def lineage(self) -> tuple[Column, ...]:
        """`source_file` and `row_index`; `image_files` and `series_files` where rows name images and series."""
        import pyarrow as pa

        from s1batch.columns import Column

        columns = [
            Column(name="source_file", type=pa.string(), doc="file that the row stands in, relative to the root"),
            Column(name="row_index", type=pa.int64(), doc="number of the row in its file, from 0"),
        ]
        texts = pa.list_(pa.string())
        if self.spec.images:
            doc = "image files of the row, relative to the folder of images; empty for images that stand in the table"
            columns.append(Column(name="image_files", type=texts, doc=doc))
        if self.spec.series:
            doc = "series files of the row, relative to the folder of series; empty for series that stand in the table"
            columns.append(Column(name="series_files", type=texts, doc=doc))
            columns.append(Column(name="channels", type=texts, doc="channels of the first series of the row"))
            columns.append(Column(name="units", type=pa.string(), doc="unit of the values of the row's series"))
            columns.append(Column(name="steps", type=pa.int64(), doc="samples per channel of the first series"))
            columns.append(Column(name="rate_sent_hz", type=pa.float64(), doc="sampling rate of the row's series"))
        return tuple(columns)

    @property
    def root(self) -> Path:
        """The folder that addresses are relative to; it follows from the job file alone, not from what it finds."""
        if self.spec.root is not None:
            return Path(os.path.abspath(self.base_dir / self.spec.root))
        return Path(os.path.commonpath([_fixed_folder(pattern) for pattern in self._patterns()]))

    def plan(self) -> Iterator[InventoryItem | PlanEntry]:
        """Yield one item per file, in the order of their names, and one entry per row.

        Raises:
            JobFileError: A path matches no file, or a file lies outside `source.root`.
        """
        root = self.root
        for path in self._files():
            if not path.is_relative_to(root):
                raise JobFileError(f"source.root: {path} does not lie below {root}")
            yield from self._plan_file(path, encode_path(path.relative_to(root)))

    def read(self, chunks: Sequence[Chunk]) -> Iterator[Record]:
        """Yield the record of each row; ascending rows of one file are read in one pass."""
        root = self.root
        for run in _runs(chunks):
            address = run[0].inputs[0]
            if not address.slices:
                yield from (_record(chunk, SourceError("not_readable", "no rows were planned")) for chunk in run)
                continue
            path = root / decode_path(address.path)
            places = [_place_of(chunk) for chunk in run]
            media = _Media(self._images(path), self._series(path))
            answered = 0
            try:
                for fields in self._format(path, self.spec.columns).read(path, places):
                    yield _record(run[answered], fields, media)
                    answered += 1
            except (SourceError, OSError) as error:
                for chunk in run[answered:]:
                    yield _record(chunk, as_source_error(error))

    def values_of(self, chunks: Sequence[Chunk], names: Sequence[str]) -> Iterator[Mapping[str, Any] | Refusal]:
        """Yield some columns of each row, or why it cannot be read; no image or series is opened."""
        plain = replace(
            self, spec=self.spec.model_copy(update={"images": (), "series": (), "columns": self._needed(names)})
        )
        for record in plain.read(chunks):
            if record.refusal is not None:
                yield record.refusal
            else:
                yield {**record.lineage, **(record.payload.values if isinstance(record.payload, Fields) else {})}

    def _needed(self, names: Sequence[str]) -> tuple[str, ...] | None:
        """Return the columns that hold the names; None for all, where a name may be one of several."""
        own = {column.name for column in self.lineage}
        wanted = tuple(name for name in names if name not in own)
        return wanted if len(wanted) == len(names) and not any("." in name for name in names) else self.spec.columns

    def files(self) -> Iterator[str]:
        """Yield the encoded relative paths of all files, without opening them."""
        root = self.root
        for path in self._files():
            yield encode_path(path.relative_to(root))

    def locate(self, path: str) -> Path:
        """Return where a file is now, absolute."""
        return self.root / decode_path(path)

    def _plan_file(self, path: Path, name: str) -> Iterator[InventoryItem | PlanEntry]:
        size = mtime_ns = count = done = 0

        def item(**about: Any) -> InventoryItem:
            return InventoryItem(root=ROOT, path=name, size=size, mtime_ns=mtime_ns, **about)

        try:
            stat = path.stat()
            size, mtime_ns = stat.st_size, stat.st_mtime_ns
            if size == 0:
                raise SourceError("empty_file", "the file is empty")
            found = self._format(path, self.spec.columns)
            shapes = self._shapes(found, path)
            for place in found.scan(path):
                yield PlanEntry(
                    chunk=Chunk(inputs=(_address(name, place),)),
                    label=f"{name}:{place.index}",
                    series=shapes[0] if shapes else None,
                    further_series=shapes[1:] if shapes and shapes[0] is not None else shapes,
                    nbytes=place.nbytes,
                    text_chars=place.nbytes,
                    images=len(self.spec.images),
                )
                count += 1
                done = place.stop or place.behind or 0
        except (SourceError, OSError) as error:
            why = as_source_error(error)
            yield item(status="unreadable", reason=why.reason, unit="bytes", count=size - done)
            yield PlanEntry(
                chunk=Chunk(inputs=(Address(root=ROOT, path=name),)),
                label=name,
                refusal=Refusal(outcome="unreadable", reason=why.reason, detail=f"{name}: {why.detail}"),
            )
            if not count:
                return
        yield item(status="selected", unit="rows", count=count, start=0, stop=count)

    def _shapes(self, found: RowFormat, path: Path) -> tuple[SeriesShape | None, ...]:
        """Return the shapes of a row's series, as far as the types of the columns tell."""
        columns = self._series(path)
        if columns is None:
            return ()
        return columns.shapes(found.lengths(path) if isinstance(found, Parquet | Arrow) else {})

    def _format(self, path: Path, columns: tuple[str, ...] | None) -> RowFormat:
        suffix = path.suffix.lower()
        kind = FORMATS.get(suffix) if self.spec.format == "auto" else self.spec.format
        match kind:
            case "parquet":
                return Parquet(columns, self._decoders)
            case "arrow":
                return Arrow(columns, self._decoders)
            case "jsonl":
                return JsonLines(columns)
            case "csv":
                return Csv(columns, self.spec.delimiter or ("\t" if suffix == ".tsv" else ","))
        raise SourceError(
            "unknown_format", f"{suffix or 'no ending'} is none of {', '.join(FORMATS)}; say source.format"
        )

    def _images(self, table: Path) -> ImageColumns | None:
        if not self.spec.images:
            return None
        from s1batch.readers.tables.images import ImageColumns

        root = self.spec.image_root
        return ImageColumns(self.spec.images, table.parent if root is None else self.base_dir / root)

    def _series(self, table: Path) -> SeriesColumns | None:
        if not self.spec.series or self.spec.rate_hz is None:
            return None
        from s1batch.readers.tables.series import SeriesColumns

        root = self.spec.series_root
        folder = table.parent if root is None else self.base_dir / root
        return SeriesColumns(self.spec.series, folder, self.spec.rate_hz, self.spec.units)

    def _patterns(self) -> list[str]:
        return [os.path.abspath(self.base_dir / pattern) for pattern in self.spec.path]

    def _files(self) -> list[Path]:
        found: set[str] = set()
        for given, pattern in zip(self.spec.path, self._patterns(), strict=True):
            # A name that holds brackets is a file first, and a pattern only where there is no such file.
            matches = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
            files = [match for match in matches if os.path.isfile(match)]
            if not files:
                raise JobFileError(f"source.path: {given!r} matches no file in {self.base_dir}")
            found.update(files)
        return [Path(name) for name in sorted(found, key=os.fsencode)]


def _fixed_folder(pattern: str) -> str:
    """Return the folder above the first part that holds a wildcard."""
    path = Path(pattern)
    parts = path.parts
    fixed = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return str(Path(*parts[: min(fixed, len(parts) - 1)]))


def _address(name: str, place: RowPlace) -> Address:
    slices = [Slice(dim="rows", start=place.index, stop=place.index + 1)]
    if place.start is not None and place.stop is not None:
        slices.append(Slice(dim="bytes", start=place.start, stop=place.stop))
    return Address(root=ROOT, path=name, slices=tuple(slices))


def _place_of(chunk: Chunk) -> RowPlace:
    slices = {piece.dim: piece for piece in chunk.inputs[0].slices}
    where = slices.get("bytes")
    return RowPlace(
        index=slices["rows"].start, start=where.start if where else None, stop=where.stop if where else None
    )


def _runs(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    """Yield the longest stretches of chunks whose rows ascend in one file."""
    run: list[Chunk] = []
    for chunk in chunks:
        if run:
            before, here = run[-1], chunk
            same_file = before.inputs[0].path == here.inputs[0].path
            if not same_file or (before.start or 0) >= (here.start or 0):
                yield run
                run = []
        run.append(chunk)
    if run:
        yield run


@dataclass(frozen=True, slots=True)
class _Media:
    """Which columns of a table hold media."""

    images: ImageColumns | None = None
    series: SeriesColumns | None = None


def _record(chunk: Chunk, fields: Any, media: _Media = _Media()) -> Record:
    address = chunk.inputs[0]
    lineage: dict[str, Any] = {"source_file": address.path, "row_index": chunk.start}
    pictures: tuple[ImagePart, ...] = ()
    series: tuple[Series, ...] = ()
    try:
        if isinstance(fields, SourceError):
            raise fields
        if media.images is not None:
            lineage["image_files"], pictures = media.images.read(fields)
        if media.series is not None:
            lineage["series_files"], series = media.series.read(fields)
            first = series[0]
            lineage.update(channels=list(first.channels), units=first.units, rate_sent_hz=first.rate_hz)
            lineage["steps"] = len(first.values_TC)
            # What is sent as a series needs no place among the values.
            fields = {name: value for name, value in fields.items() if name not in media.series.names}
    except SourceError as error:
        detail = f"{address.path}, row {chunk.start}: {error.detail}"
        outcome: Outcome = "refused" if error.reason in _REFUSED else "unreadable"
        return Record(
            chunk=chunk, lineage=lineage, refusal=Refusal(outcome=outcome, reason=error.reason, detail=detail)
        )
    return Record(chunk=chunk, lineage=lineage, payload=Fields(values=fields, images=pictures, series=series))
