"""The chunks of one file, read one after the other."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, cast

from s1batch.errors import SourceError
from s1batch.geometry import part_transform
from s1batch.paths import decode_path
from s1batch.readers.failures import as_source_error
from s1batch.readers.images.addresses import box_of, is_overview, page_of
from s1batch.readers.images.facts import PageFacts, StoredImage, StoredValues
from s1batch.readers.images.headers import Header
from s1batch.readers.images.lineage import empty_lineage
from s1batch.readers.images.opening import as_raster, header_of, open_to_read
from s1batch.readers.images.scaling import ValueRange, page_range
from s1batch.readers.images.showing import Shown, as_it_is, converted, sent_size
from s1batch.readers.images.sidecars import read_sidecars, take_caption
from s1batch.readers.images.spec import ImageSource
from s1batch.readers.images.tiles import Box, is_cut
from s1batch.records import Chunk, Fields, Record, Refusal

KEPT = 1024
"""Ranges of values that are kept: tiles of one page share theirs, also where they lie in different parts."""


LONGEST_DETAIL = 500
"""Characters of what a decoder says: one line."""


class KeptRanges:
    """The ranges of pages that are cut into tiles; it pickles as an empty one."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[object, ...], ValueRange] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[object, ...]) -> ValueRange | None:
        """Return the range of a page; None when it is not known."""
        with self._lock:
            return self._found.get(key)

    def put(self, key: tuple[object, ...], found: ValueRange) -> None:
        """Keep the range of a page."""
        with self._lock:
            self._found[key] = found
            while len(self._found) > KEPT:
                self._found.popitem(last=False)

    def __reduce__(self) -> tuple[type[KeptRanges], tuple[()]]:
        return KeptRanges, ()


class FileReading:
    """One image file while its chunks are read; a context manager.

    Args:
        spec: The `source:` block.
        root: The root folder.
        name: The file below it, encoded.
        told: What a manifest says about it.
        ranges: The ranges of values that are known.
    """

    def __init__(self, spec: ImageSource, root: str, name: str, told: Mapping[str, Any], ranges: KeptRanges) -> None:
        self._spec = spec
        self._root = root
        self._name = name
        self._told = told
        self._ranges = ranges
        self._path = os.path.join(root, decode_path(name))
        self._data = b""
        self._header: Header | None = None
        self._stored: StoredImage | None = None
        self._stat: os.stat_result | None = None
        self._error: SourceError | None = None
        self._texts: tuple[tuple[str, ...], str, dict[str, Any], list[os.stat_result]] | None = None

    def __enter__(self) -> Self:
        try:
            opened, self._stat = open_to_read(self._path, self._name, self._spec.bands)
            if isinstance(opened, bytes):
                self._data, self._header = opened, header_of(opened)
            else:
                self._stored = opened
        except (SourceError, OSError) as error:
            self._error = as_source_error(error, "the file cannot be read: ")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stored is not None:
            self._stored.close()

    def record(self, chunk: Chunk) -> Record:
        """Return the record of one chunk."""
        address = chunk.inputs[0]
        page = page_of(address)
        lineage = empty_lineage()
        lineage["source_file"], lineage["page"] = self._name, page
        try:
            if self._error is not None:
                raise self._error
            caption, metadata = self._beside(chunk, lineage)
            box = box_of(address)
            if box is None:
                raise SourceError("not_readable", "no pixels were planned")
            shown, facts = self._shown(page, box, lineage, overview=is_overview(address))
        except SourceError as error:
            where = f"{self._name}, {address.source}" if address.source else self._name
            detail = f"{where}: {' '.join(error.detail.split())[:LONGEST_DETAIL]}"
            return Record(
                chunk=chunk,
                lineage=lineage,
                refusal=Refusal(outcome="unreadable", reason=error.reason, detail=detail),
            )
        values = {
            "file": self._name,
            "caption": caption,
            "metadata": metadata,
            "width": facts.width,
            "height": facts.height,
        }
        return Record(chunk=chunk, lineage=lineage, payload=Fields(values=values, images=(shown.part,)))

    def _shown(self, page: int, box: Box, lineage: dict[str, Any], *, overview: bool) -> tuple[Shown, PageFacts]:
        """Return what is sent of a box, and tell the lineage about it."""
        header = self._header
        shown: Shown | None = None
        if header is not None and page == 0 and header.plain:
            # The quick way, which needs no decoder.
            facts = PageFacts(width=header.width, height=header.height, decode_pixels=header.width * header.height)
            shown = as_it_is(self._data, header, box, sent_size(box, self._spec, overview=overview))
        if shown is None:
            if self._stored is None and header is not None:
                self._stored = as_raster(self._data, header)
            stored = cast(StoredImage, self._stored)
            facts = stored.facts(page)
            if box.x + box.width > facts.width or box.y + box.height > facts.height:
                raise SourceError("source_changed", "the image has another size than when it was planned")
            if facts.decode_pixels > self._spec.max_decode_pixels:
                raise SourceError("too_many_pixels", f"{facts.decode_pixels:,} pixels must be decoded at once")
            box = self._padded(box, facts)
            size = sent_size(box, self._spec, overview=overview)
            shown = converted(stored, page, facts, box, size, self._range(stored, page, facts))
        _tell(lineage, header.format if header else cast(StoredImage, self._stored).format, facts, box, shown)
        lineage["overview"] = overview
        return shown, facts

    def _padded(self, box: Box, facts: PageFacts) -> Box:
        """Return a tile with its padding, which addresses leave out."""
        tile = self._spec.tile
        if tile is None or tile.edge != "pad" or not is_cut(facts.width, facts.height, tile):
            return box
        return Box(box.x, box.y, max(box.width, tile.size), max(box.height, tile.size))

    def _range(self, stored: StoredImage, page: int, facts: PageFacts) -> ValueRange | None:
        """Return the range of a page's values; None where its pixels have 8 bits and need none."""
        if not hasattr(stored, "values"):
            return None
        key: tuple[object, ...] = ()
        if is_cut(facts.width, facts.height, self._spec.tile):
            stat = cast(os.stat_result, self._stat)
            key = (self._name, page, stat.st_size, stat.st_mtime_ns)
            if (found := self._ranges.get(key)) is not None:
                return found
        found = page_range(cast(StoredValues, stored), page, facts, self._spec)
        if key:
            self._ranges.put(key, found)
        return found

    def _beside(self, chunk: Chunk, lineage: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return caption and metadata, and tell the lineage which files were read."""
        names = tuple([address.path for address in chunk.inputs[1:]])
        if self._texts is None or self._texts[0] != names:
            paths = [os.path.join(self._root, decode_path(name)) for name in names]
            caption, metadata = read_sidecars(paths) if paths else ("", {})
            metadata = {**self._told, **metadata}
            caption = take_caption(caption, metadata)
            try:
                self._texts = (names, caption, metadata, [os.stat(path) for path in paths])
            except OSError as error:
                raise SourceError("source_missing", f"a sidecar is gone: {error.strerror}") from error
        _, caption, metadata, stats = self._texts
        stats = [cast(os.stat_result, self._stat), *stats]
        lineage["source_files"] = [self._name, *names]
        lineage["source_sizes"] = [stat.st_size for stat in stats]
        lineage["source_mtimes_ns"] = [stat.st_mtime_ns for stat in stats]
        return caption, metadata


def _tell(lineage: dict[str, Any], kind: str, facts: PageFacts, box: Box, shown: Shown) -> None:
    """Fill the lineage of a box."""
    width, height = shown.size
    lineage["image_format"] = kind
    lineage["image_width"], lineage["image_height"] = facts.width, facts.height
    lineage["tile_x"], lineage["tile_y"] = box.x, box.y
    lineage["tile_width"], lineage["tile_height"] = box.width, box.height
    lineage["sent_width"], lineage["sent_height"] = width, height
    lineage["converted"], lineage["scaling"] = shown.converted, shown.scaling
    lineage["value_low"], lineage["value_high"] = shown.low, shown.high
    lineage["crs"] = facts.crs
    if facts.transform is not None:
        scale_x, scale_y = box.width / width, box.height / height
        lineage["transform"] = list(part_transform(facts.transform, x=box.x, y=box.y, scale_x=scale_x, scale_y=scale_y))
    if facts.pixel_size is not None:
        lineage["pixel_size"], lineage["pixel_unit"] = list(facts.pixel_size), facts.pixel_unit
