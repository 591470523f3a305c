"""The reader of papers: each passage, or each whole paper, is one chunk."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s1batch.canonical import digest
from s1batch.errors import SourceError
from s1batch.readers.failures import as_source_error
from s1batch.readers.papers.cache import CutCache, cache_folder
from s1batch.readers.papers.counting import open_counter
from s1batch.readers.papers.cutting import Cutter
from s1batch.readers.papers.files import PaperFiles
from s1batch.readers.papers.formats import Formats
from s1batch.readers.papers.paper import Paper, Place
from s1batch.readers.papers.pdf import Pdf
from s1batch.readers.papers.pdf_pool import PdfPool
from s1batch.readers.papers.planner import PaperPlanner
from s1batch.readers.papers.spec import PaperSource
from s1batch.readers.papers.streams import KeptStreams
from s1batch.readers.spec import ReaderSetting
from s1batch.readers.tables.forward import KeptDecoders
from s1batch.records import Chunk, Fields, ImagePart, InventoryItem, PlanEntry, Record, Refusal

if TYPE_CHECKING:
    from s1batch.columns import Column
    from s1batch.readers.papers.paper import Figure, PaperFormat

PROMPT_TOKENS = 1000
"""What is left of the context for the question, where whole papers are cut to fit."""

_log = logging.getLogger("s1batch.readers.papers")
_WORD = re.compile(r"\S")
_LIBRARIES = ("chonkie", "chonkie-core", "lxml", "pypdfium2", "tokenizers", "tokie")
_CUTS_VERSION = 1
"""Goes up when the same file is cut or read otherwise than before."""


@dataclass(frozen=True)
class PaperReader:
    """Plans and reads papers.

    The address of a passage holds its characters in the paper's text (`chars`), the record of the paper in its file
    (`bytes` of the content, or `rows`; nothing where the file is one paper), and its number in the paper (`passage`).

    Attributes:
        spec: The `source:` block.
        setting: What else the reader is told.
    """

    spec: PaperSource
    setting: ReaderSetting
    formats: Formats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        processes = self.spec.pdf_processes or max(min(os.cpu_count() or 1, 4), 1)
        pool = PdfPool(processes, self.spec.pdf_timeout_s)
        object.__setattr__(self, "formats", Formats(self.spec, pool, KeptStreams(), KeptDecoders()))

    def __reduce__(self) -> tuple[type[PaperReader], tuple[PaperSource, ReaderSetting]]:
        return PaperReader, (self.spec, self.setting)

    @property
    def lineage(self) -> tuple[Column, ...]:
        """Paper, passage, section, page and characters; and the file."""
        import pyarrow as pa

        from s1batch.columns import Column

        return (
            Column(
                name="paper_id", type=pa.string(), doc="identity of the paper as the corpus gives it, else its file"
            ),
            Column(name="passage_id", type=pa.string(), doc="the paper and the characters of the passage"),
            Column(name="title", type=pa.string(), doc="title of the paper; empty where it is not known"),
            Column(name="section", type=pa.string(), doc="section in which the passage begins, overlap left out"),
            Column(name="page", type=pa.int64(), doc="page on which it begins, from 1; null where there are no pages"),
            Column(name="char_start", type=pa.int64(), doc="first character of the passage in the paper's text"),
            Column(name="char_end", type=pa.int64(), doc="first character behind it"),
            Column(name="source_files", type=pa.list_(pa.string()), doc="file of the paper, relative to the root"),
            Column(name="source_sizes", type=pa.list_(pa.int64()), doc="its size in bytes when it was read"),
            Column(name="source_mtimes_ns", type=pa.list_(pa.int64()), doc="when it was written, ns since 1970"),
        )

    def plan(self) -> Iterator[InventoryItem | PlanEntry]:
        """Yield one item per paper, in the order of the files, and one entry per passage.

        Raises:
            UsageError: No file matches, or the tokenizer is none.
        """
        cutter = self._cutter()
        with CutCache(cache_folder(self.spec.cache, self.setting.base_dir)) as cache:
            planner = PaperPlanner(
                files=self._files,
                formats=self.formats,
                cutter=cutter,
                cache=cache,
                most_figures=self.spec.most_figures,
                settings=self._settings(cutter),
            )
            yield from planner.plan()

    def files(self) -> Iterator[str]:
        """Yield the encoded relative paths of all files, without opening them."""
        return self._files.names()

    def locate(self, path: str) -> Path:
        """Return where a file is now, absolute."""
        return self._files.path_of(path)

    def read(self, chunks: Sequence[Chunk]) -> Iterator[Record]:
        """Yield the record of each passage; successive passages of a paper are read from it once."""
        for name, wanted in _runs(chunks):
            facts: dict[str, Any] = {"source_files": [name]}
            done = 0
            try:
                path = self._files.path_of(name)
                stat = os.stat(path)
                facts |= {"source_sizes": [stat.st_size], "source_mtimes_ns": [stat.st_mtime_ns]}
                kind = self.formats.of(path)
                for paper in kind.read(path, [place for place, _ in wanted]):
                    done += 1
                    for chunk in wanted[done - 1][1]:
                        yield self._record(chunk, paper, facts, kind, path)
            except (SourceError, OSError) as error:
                found = as_source_error(error)
                for _, passages in wanted[done:]:
                    for chunk in passages:
                        yield _unreadable(chunk, found, facts)

    def _record(
        self, chunk: Chunk, paper: Paper | SourceError, facts: dict[str, Any], kind: PaperFormat, path: Path
    ) -> Record:
        if isinstance(paper, SourceError):
            return _unreadable(chunk, paper, facts)
        address = chunk.inputs[0]
        if not address.slices or address.slices[0].dim != "chars":
            return _unreadable(chunk, SourceError("not_readable", "no text was planned"), facts)
        start, stop = address.slices[0].start, address.slices[0].stop
        if stop > len(paper.text):
            said = f"the paper has {len(paper.text)} characters; {start} to {stop} were planned"
            return _unreadable(chunk, SourceError("source_changed", said), facts)
        core = chunk.core or (start, stop)
        word = _WORD.search(paper.text, core[0], core[1])
        begins = word.start() if word else core[0]
        lineage = {
            "paper_id": paper.paper_id or address.source,
            "passage_id": f"{address.source}:{start}-{stop}",
            "title": paper.title,
            "section": paper.section_at(begins) if paper.sections else "",
            "page": paper.page_at(begins) if paper.pages else None,
            "char_start": start,
            "char_end": stop,
            **facts,
        }
        values: dict[str, Any] = {
            "text": paper.text[start:stop],
            "paper_id": lineage["paper_id"],
            "title": paper.title,
            "section": lineage["section"],
            "page": lineage["page"],
            "passage": address.slices[-1].start,
            "year": paper.year,
            "doi": paper.doi,
            "metadata": paper.metadata,
        }
        images: tuple[ImagePart, ...] = ()
        if self.spec.figures:
            figures = paper.figures_between(*core, self.spec.most_figures)
            values["figures"] = [_described(figure) for figure in figures]
            if figures and isinstance(kind, Pdf):
                try:
                    images = tuple(ImagePart(data=data) for data in kind.images(path, figures))
                except (SourceError, OSError) as error:
                    return _unreadable(chunk, as_source_error(error), facts)
        return Record(chunk=chunk, lineage=lineage, payload=Fields(values=values, images=images))

    @property
    def _files(self) -> PaperFiles:
        return PaperFiles(self.spec, self.setting.base_dir)

    def _cutter(self) -> Cutter:
        if self.setting.tokenizer is None and self.spec.passages.unit == "tokens":
            _log.warning("no tokenizer of the model is at hand: three bytes of text count as one token")
        context = self.setting.context_tokens
        room = None if context is None else max(context - self.setting.answer_tokens - PROMPT_TOKENS, 16)
        return Cutter(self.spec.passages, open_counter(self.setting.tokenizer), room)

    def _settings(self, cutter: Cutter) -> str:
        """Return a hash of what decides about the passages of a file."""
        spec = self.spec
        return digest(
            [
                _CUTS_VERSION,
                spec.passages.model_dump(mode="json"),
                spec.fields.model_dump(mode="json"),
                [spec.format, spec.figures, spec.figure_pixels, spec.most_figures],
                cutter.counter.identity,
                cutter.context,
                [_version(library) for library in _LIBRARIES],
            ]
        )


def _described(figure: Figure) -> dict[str, Any]:
    return {"page": figure.page + 1, "caption": figure.caption, "width": figure.width, "height": figure.height}


def _place_of(chunk: Chunk) -> Place:
    for part in chunk.inputs[0].slices:
        if part.dim in ("bytes", "rows"):
            return Place(dim=part.dim, start=part.start, stop=part.stop)
    return Place()


def _runs(chunks: Sequence[Chunk]) -> Iterator[tuple[str, list[tuple[Place, list[Chunk]]]]]:
    """Yield the longest stretches of chunks whose papers ascend in one file, as papers with their passages."""
    name, wanted = "", list[tuple[Place, list[Chunk]]]()
    for chunk in chunks:
        place, path = _place_of(chunk), chunk.inputs[0].path
        if wanted and path == name and place == wanted[-1][0]:
            wanted[-1][1].append(chunk)
            continue
        if wanted and (path != name or place.start <= wanted[-1][0].start):
            yield name, wanted
            wanted = []
        name = path
        wanted.append((place, [chunk]))
    if wanted:
        yield name, wanted


def _unreadable(chunk: Chunk, error: SourceError, facts: dict[str, Any]) -> Record:
    address = chunk.inputs[0]
    place = _place_of(chunk)
    where = f"{address.path}, {place.dim} {place.start} to {place.stop}" if place.dim else address.path
    refusal = Refusal(outcome="unreadable", reason=error.reason, detail=f"{where}: {error.detail}")
    lineage = {"paper_id": address.source or None, **facts}
    return Record(chunk=chunk, lineage=lineage, refusal=refusal)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
