"""The planning pass: every paper of every file, where it is cut, and what cannot be read."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s1batch.canonical import digest
from s1batch.errors import SourceError
from s1batch.paths import encode_path
from s1batch.readers.failures import as_source_error
from s1batch.readers.papers.cache import BLOCK_PAPERS, CutCache
from s1batch.readers.papers.cutting import Cut, Cutter
from s1batch.readers.papers.files import ROOT, PaperFiles
from s1batch.readers.papers.formats import Formats
from s1batch.readers.papers.paper import Found, Loss, Paper, Place
from s1batch.readers.papers.pdf import Pdf
from s1batch.records import Address, Chunk, InventoryItem, PlanEntry, Refusal, Slice

BLOCK_CHARS = 16 * 2**20
"""Characters of text after which a block of the cache is full, whatever the number of its papers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a planning pass keeps of a record.

    Attributes:
        place: Where it is in its file.
        paper_id: Identity of the paper as the corpus gives it.
        chars: Characters of its text.
        cuts: Its passages.
        images: Sizes in pixels of the figures of each passage.
        error: Why it is no paper: reason and detail; None when it is one.
    """

    place: Place
    paper_id: str = ""
    chars: int = 0
    cuts: tuple[Cut, ...] = ()
    images: tuple[tuple[tuple[int, int], ...], ...] = ()
    error: tuple[str, str] | None = None

    def line(self) -> list[Any]:
        """Return it as plain data."""
        cuts = [[cut.start, cut.core, cut.stop, cut.tokens] for cut in self.cuts]
        place = self.place
        return [place.dim, place.start, place.stop, self.paper_id, self.chars, cuts, self.images, self.error]

    @classmethod
    def of_line(cls, line: list[Any]) -> Planned:
        """Return what `line` gave."""
        dim, start, stop, paper_id, chars, cuts, images, error = line
        return cls(
            place=Place(dim=dim, start=start, stop=stop),
            paper_id=paper_id,
            chars=chars,
            cuts=tuple(Cut(start=a, core=b, stop=c, tokens=n) for a, b, c, n in cuts),
            images=tuple(tuple((width, height) for width, height in sizes) for sizes in images),
            error=None if error is None else (error[0], error[1]),
        )


class Repeats:
    """Tells which names came before; 8 bytes for each, and a few thousand as they are."""

    _RECENT = 50_000

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._old = np.empty(0, np.uint64)

    def add(self, name: str) -> bool:
        """Take a name; return whether it was there already."""
        code = int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest(), "little")
        if code in self._recent:
            return True
        if len(self._old):
            place = int(np.searchsorted(self._old, np.uint64(code)))
            if place < len(self._old) and int(self._old[place]) == code:
                return True
        self._recent.add(code)
        if len(self._recent) >= self._RECENT:
            new = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._old = np.sort(np.concatenate([self._old, new]))
            self._recent.clear()
        return False


@dataclass(frozen=True)
class PaperPlanner:
    """Plans a source of papers.

    Attributes:
        files: Its files.
        formats: How each is read.
        cutter: How papers are cut.
        cache: What earlier passes found.
        most_figures: Most figures of a passage; 0 for none.
        settings: Hash of everything besides a file that decides about its passages.
    """

    files: PaperFiles
    formats: Formats
    cutter: Cutter
    cache: CutCache
    most_figures: int
    settings: str

    def plan(self) -> Iterator[InventoryItem | PlanEntry]:
        """Yield an item for each paper and each stretch that is none, and an entry for each passage and refusal."""
        for name, ahead in self._looked_ahead(self.files.names()):
            yield from self._plan_file(name, ahead)

    def _plan_file(self, name: str, ahead: Future[list[Found]] | None) -> Iterator[InventoryItem | PlanEntry]:
        size = mtime_ns = 0

        def item(**about: Any) -> InventoryItem:
            return InventoryItem(root=ROOT, path=name, size=size, mtime_ns=mtime_ns, **about)

        repeats = Repeats()
        done = False
        try:
            path = self.files.path_of(name)
            stat = path.stat()
            size, mtime_ns = stat.st_size, stat.st_mtime_ns
            if size == 0:
                raise SourceError("empty_file", "the file is empty")
            for planned in self._planned(path, self._key(path, stat), ahead):
                done = True
                if planned.error is not None:
                    place = planned.place
                    count = place.stop - place.start
                    unit = place.dim
                    yield item(
                        status="unreadable",
                        reason=planned.error[0],
                        unit=unit,
                        count=count,
                        start=place.start,
                        stop=place.stop,
                    )
                    yield _refused(name, place, *planned.error)
                    continue
                source = planned.paper_id or (f"{name}#{planned.place.start}" if planned.place.dim else name)
                repeated = repeats.add(source)
                if repeated:
                    source = f"{source}#{planned.place.start}"
                reason = "repeated_id" if repeated else ""
                chars = planned.chars
                yield item(
                    source=source, status="selected", reason=reason, unit="chars", count=chars, start=0, stop=chars
                )
                yield from _entries(name, source, planned)
        except (SourceError, OSError) as error:
            found = as_source_error(error)
            lost = found.nbytes if isinstance(found, Loss) else size
            yield item(status="unreadable", reason=found.reason, unit="bytes", count=lost)
            yield _refused(name, None, found.reason, found.detail)
            return
        if not done:
            detail = "the file holds no paper"
            yield item(status="unreadable", reason="not_readable", unit="bytes", count=size)
            yield _refused(name, None, "not_readable", detail)

    def _planned(self, path: Path, key: str, ahead: Future[list[Found]] | None) -> Iterator[Planned]:
        """Yield what the cache knows, and then what the rest of the file holds.

        Raises:
            Loss: The end of the file is damaged.
            SourceError: The file cannot be read.
        """
        after = block = 0
        for lines in self.cache.blocks(key):
            block += 1
            for line in lines:
                if line[0] == "end":
                    if line[1] is not None:
                        raise Loss(*line[1])
                    return
                planned = Planned.of_line(line)
                after = planned.place.stop or 1
                yield planned
        waiting: list[Any] = []
        chars = 0
        loss: Loss | None = None
        try:
            for found in self.formats.of(path).scan(path, after) if ahead is None else ahead.result():
                planned = self._cut(found)
                yield planned
                waiting.append(planned.line())
                chars += planned.chars
                if len(waiting) >= BLOCK_PAPERS or chars >= BLOCK_CHARS:
                    self.cache.put(key, block, waiting)
                    waiting, chars, block = [], 0, block + 1
        except Loss as error:
            loss = error
        end = None if loss is None else [loss.reason, loss.detail, loss.nbytes]
        self.cache.put(key, block, [*waiting, ["end", end]])
        if loss is not None:
            raise loss

    def _cut(self, found: Found) -> Planned:
        paper = found.paper
        if isinstance(paper, SourceError):
            return Planned(place=found.place, error=(paper.reason, paper.detail))
        cuts = tuple(self.cutter.cut(paper))
        images = tuple(self._image_sizes(paper, cut) for cut in cuts) if paper.figures else ()
        return Planned(place=found.place, paper_id=paper.paper_id, chars=len(paper.text), cuts=cuts, images=images)

    def _image_sizes(self, paper: Paper, cut: Cut) -> tuple[tuple[int, int], ...]:
        chosen = paper.figures_between(cut.core, cut.stop, self.most_figures)
        return tuple((figure.width, figure.height) for figure in chosen)

    def _looked_ahead(self, names: Iterable[str]) -> Iterator[tuple[str, Future[list[Found]] | None]]:
        """Yield names; of PDFs with their text, which several processes extract at a time."""
        processes = self.formats.pdf_processes
        if processes == 1:
            yield from ((name, None) for name in names)
            return
        with ThreadPoolExecutor(processes) as threads:
            waiting: deque[tuple[str, Future[list[Found]] | None]] = deque()
            for name in names:
                waiting.append((name, threads.submit(self._scanned, name) if self._is_new_pdf(name) else None))
                if len(waiting) > 2 * processes:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()

    def _is_new_pdf(self, name: str) -> bool:
        try:
            path = self.files.path_of(name)
            stat = path.stat()
            if not isinstance(self.formats.of(path), Pdf):
                return False
        except (SourceError, OSError):
            return False
        return stat.st_size > 0 and next(self.cache.blocks(self._key(path, stat)), None) is None

    def _key(self, path: Path, stat: os.stat_result) -> str:
        """Return what the cache calls a file."""
        return digest([encode_path(path), stat.st_size, stat.st_mtime_ns, self.settings])

    def _scanned(self, name: str) -> list[Found]:
        path = self.files.path_of(name)
        return list(self.formats.of(path).scan(path))


def place_slices(place: Place | None) -> tuple[Slice, ...]:
    """Return the slice of a place in its file; none for a file that holds one paper."""
    return (Slice(dim=place.dim, start=place.start, stop=place.stop),) if place is not None and place.dim else ()


def _entries(name: str, source: str, planned: Planned) -> Iterator[PlanEntry]:
    place = place_slices(planned.place)
    for number, cut in enumerate(planned.cuts):
        chars = Slice(dim="chars", start=cut.start, stop=cut.stop)
        passage = Slice(dim="passage", start=number, stop=number + 1)
        address = Address(source=source, root=ROOT, path=name, slices=(chars, *place, passage))
        sizes = planned.images[number] if planned.images else ()
        yield PlanEntry(
            chunk=Chunk(inputs=(address,), core=(cut.core, cut.stop)),
            label=source,
            nbytes=cut.stop - cut.start,
            text_chars=cut.stop - cut.start,
            text_tokens=cut.tokens,
            images=len(sizes),
            image_sizes=sizes,
        )


def _refused(name: str, place: Place | None, reason: Any, detail: str) -> PlanEntry:
    where = f"{name}, {place.dim} {place.start} to {place.stop}" if place is not None and place.dim else name
    return PlanEntry(
        chunk=Chunk(inputs=(Address(root=ROOT, path=name, slices=place_slices(place)),)),
        label=where,
        refusal=Refusal(outcome="unreadable", reason=reason, detail=f"{where}: {detail}"),
    )
