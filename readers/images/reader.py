"""The reader of images: each image, page or tile is one chunk."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from s1batch.errors import SourceError
from s1batch.paths import decode_path
from s1batch.readers.failures import as_source_error
from s1batch.readers.images.addresses import OVERVIEW, address_of
from s1batch.readers.images.facts import PageFacts
from s1batch.readers.images.lineage import lineage_columns
from s1batch.readers.images.listing import ListedFile, Listing
from s1batch.readers.images.opening import open_to_plan
from s1batch.readers.images.reading import LONGEST_DETAIL, FileReading, KeptRanges
from s1batch.readers.images.showing import sent_size
from s1batch.readers.images.spec import ImageSource
from s1batch.readers.images.tiles import Box, is_cut, tile_boxes
from s1batch.records import Address, Chunk, InventoryItem, PlanEntry, Record, Refusal

if TYPE_CHECKING:
    from s1batch.columns import Column

ROOT = "archive"
"""The name of the root folder in addresses."""


@dataclass(frozen=True)
class ImageReader:
    """Plans and reads images.

    The address of a chunk holds its page (as `source`, empty in files of one page) and its box (slices `y` and `x`);
    sidecars are further inputs.

    Attributes:
        spec: The `source:` block.
        base_dir: Folder of the job file, which paths are relative to.
    """

    spec: ImageSource
    base_dir: Path
    _listing: Listing = field(init=False, repr=False, compare=False)
    _ranges: KeptRanges = field(default_factory=KeptRanges, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_listing", Listing(self.spec, self.base_dir))

    @property
    def lineage(self) -> tuple[Column, ...]:
        """See `s1batch.readers.images.lineage`."""
        return lineage_columns()

    def plan(self) -> Iterator[InventoryItem | PlanEntry]:
        """Yield the pages of every file, in pixels, and one entry for each of its chunks.

        Raises:
            JobFileError: A path matches no file, a file lies outside `source.root`, or the manifest cannot be used.
            MissingExtra: The library that reads a format that is there is not installed.
        """
        told: set[str] = set()
        for listed in self._listing.files():
            inputs: set[str] = set()
            for line in self._plan_file(listed):
                if isinstance(line, PlanEntry):
                    inputs |= {address.path for address in line.chunk.inputs[1:]}
                yield line
            # Two images may have one caption.
            new = [name for name in listed.sidecars if name not in told]
            told.update(new)
            yield from self._sidecar_items(new, inputs)

    def files(self) -> Iterator[str]:
        """Yield the encoded relative paths of all files, sidecars too, without opening them."""
        for listed in self._listing.files():
            if listed.path:
                yield listed.name
                yield from listed.sidecars

    def locate(self, path: str) -> Path:
        """Return where a file is now, absolute."""
        return Path(self._listing.root) / decode_path(path)

    def read(self, chunks: Sequence[Chunk]) -> Iterator[Record]:
        """Yield the record of each chunk; the chunks of a file that follow one another share what was decoded."""
        root = self._listing.root
        for path, run in itertools.groupby(chunks, key=lambda chunk: chunk.inputs[0].path):
            with FileReading(self.spec, root, path, self._listing.metadata(path), self._ranges) as reading:
                for chunk in run:
                    yield reading.record(chunk)

    def _plan_file(self, listed: ListedFile) -> Iterator[InventoryItem | PlanEntry]:
        facts: os.stat_result | None = None
        known = False
        try:
            if listed.problem is not None:
                raise listed.problem
            facts = os.stat(listed.path)
            stored = open_to_plan(listed.path, listed.name, self.spec.bands)
            try:
                pages = stored.pages()
                begun = list(itertools.islice(pages, 2))
                if not begun:
                    raise SourceError("not_readable", "the file holds no page")
                known, several, chosen = True, len(begun) > 1, 0
                for number, page in enumerate(itertools.chain(begun, pages)):
                    label = str(number) if several else ""
                    wanted = page.status == "image" and (self.spec.pages == "all" or not chosen)
                    chosen += wanted
                    yield self._item(listed, facts, page, label, wanted=wanted)
                    if wanted:
                        yield from self._entries(listed, facts, page, label)
            finally:
                stored.close()
        except (SourceError, OSError) as error:
            found = as_source_error(error)
            size, mtime_ns = (facts.st_size, facts.st_mtime_ns) if facts else (0, 0)
            if listed.path:
                yield InventoryItem(
                    root=ROOT,
                    path=listed.name,
                    status="unreadable",
                    reason=found.reason,
                    unit="bytes",
                    count=0 if known else size,
                    size=size,
                    mtime_ns=mtime_ns,
                )
            yield PlanEntry(
                chunk=Chunk(inputs=(Address(root=ROOT, path=listed.name),)),
                label=listed.name,
                refusal=Refusal(
                    outcome="unreadable", reason=found.reason, detail=_one_line(f"{listed.name}: {found.detail}")
                ),
            )

    def _item(
        self, listed: ListedFile, facts: os.stat_result, page: PageFacts, label: str, *, wanted: bool
    ) -> InventoryItem:
        reason = "" if wanted else {"reduced": "reduced copy", "mask": "mask"}.get(page.status, "page")
        return InventoryItem(
            root=ROOT,
            path=listed.name,
            source=f"page {label}" if label else "",
            status="selected" if wanted else "duplicate" if page.status == "reduced" else "not_selected",
            reason=reason,
            unit="pixels",
            count=page.width * page.height,
            size=facts.st_size,
            mtime_ns=facts.st_mtime_ns,
        )

    def _sidecar_items(self, names: Sequence[str], inputs: Collection[str]) -> Iterator[InventoryItem]:
        for name in names:
            try:
                facts = os.stat(self.locate(name))
            except OSError:
                continue  # gone in this moment; its image says so when it is read
            yield InventoryItem(
                root=ROOT,
                path=name,
                status="selected" if name in inputs else "not_selected",
                reason="" if name in inputs else "sidecar",
                unit="bytes",
                count=facts.st_size,
                size=facts.st_size,
                mtime_ns=facts.st_mtime_ns,
            )

    def _entries(self, listed: ListedFile, facts: os.stat_result, page: PageFacts, label: str) -> Iterator[PlanEntry]:
        spec = self.spec
        beside = tuple(Address(root=ROOT, path=name) for name in listed.sidecars)
        text = sum(os.stat(self.locate(name)).st_size for name in listed.sidecars)
        whole = Box(0, 0, page.width, page.height)
        name = f"{listed.name}#{label}" if label else listed.name

        def entry(box: Box, shown: str, nbytes: int, *, overview: bool = False) -> PlanEntry:
            address = address_of(ROOT, listed.name, label, box.clipped(page.width, page.height), overview=overview)
            size = sent_size(box, spec, overview=overview)
            refusal = None
            if page.decode_pixels > spec.max_decode_pixels:
                detail = (
                    f"{name}: {page.width:,} x {page.height:,} pixels, of which {page.decode_pixels:,} must be decoded "
                    f"at once; source.max_decode_pixels is {spec.max_decode_pixels:,}"
                )
                refusal = Refusal(outcome="refused", reason="too_many_pixels", detail=detail)
            return PlanEntry(
                chunk=Chunk(inputs=(address, *beside)),
                label=shown,
                images=1,
                image_sizes=(size,),
                nbytes=nbytes,
                text_chars=text,
                refusal=refusal,
            )

        if (
            spec.tile is None
            or not is_cut(page.width, page.height, spec.tile)
            or (page.decode_pixels > spec.max_decode_pixels)
        ):
            yield entry(whole, name, facts.st_size)
            return
        if spec.overview:
            yield entry(whole, f"{name} {OVERVIEW}", facts.st_size, overview=True)
        for box in tile_boxes(page.width, page.height, spec.tile):
            share = min(box.pixels / whole.pixels, 1.0)
            yield entry(box, f"{name} [{box.x},{box.y}]", round(facts.st_size * share))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_DETAIL]
