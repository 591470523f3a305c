"""What every format makes of a paper: its text, with the places of its sections and pages."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from s1batch.errors import SourceError

LONGEST_RECORD = 64 * 2**20
"""Bytes of one record, or of one file that holds one paper; a longer one is not read into memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Where a section begins in a text; it lasts until the next one.

    Attributes:
        start: Its first character, that of its title.
        title: The title; empty for what stands before the first one.
    """

    start: int
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """An image of a PDF.

    Attributes:
        page: Its page, from 0.
        number: Its number among the images of the page.
        width: Pixels.
        height: Pixels.
        caption: The text beside it that begins as a caption does; empty where there is none.
    """

    page: int
    number: int
    width: int
    height: int
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """One paper.

    Attributes:
        paper_id: Its identity as the corpus gives it; empty where it gives none.
        text: What is asked about; spans are characters of it.
        title: Its title, where known.
        year: Year of publication.
        doi: Its DOI.
        sections: Where sections begin, ascending.
        pages: Where pages begin, ascending; empty where there are none.
        figures: Images, where they were asked for.
        metadata: What else the record says.
    """

    paper_id: str
    text: str
    title: str = ""
    year: int | None = None
    doi: str = ""
    sections: Sequence[Mark] = ()
    pages: Sequence[int] = ()
    figures: Sequence[Figure] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def section_at(self, position: int) -> str:
        """Return the title of the section that holds a character."""
        index = bisect_right(self.sections, position, key=lambda mark: mark.start) - 1
        return self.sections[index].title if index >= 0 else ""

    def page_at(self, position: int) -> int | None:
        """Return the page that holds a character, from 1; None where there are no pages."""
        return max(bisect_right(self.pages, position), 1) if self.pages else None

    def figures_between(self, start: int, stop: int, most: int) -> list[Figure]:
        """Return the figures of the pages that hold characters of a span; of more than `most`, the largest."""
        first, last = self.page_at(start), self.page_at(max(stop - 1, start))
        if first is None or last is None:
            return []
        found = [figure for figure in self.figures if first <= figure.page + 1 <= last]
        largest = sorted(found, key=lambda figure: -figure.width * figure.height)[:most]
        return [figure for figure in found if figure in largest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a paper's record is in its file: bytes, a row, or all of it.

    Attributes:
        dim: `bytes` (of the content, decompressed), `rows`, or empty for a file that holds one paper.
        start: First byte or row.
        stop: First one behind it.
    """

    dim: str = ""
    start: int = 0
    stop: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A record that a scan came across: a paper, or why there is none."""

    place: Place
    paper: Paper | SourceError


class Loss(SourceError):
    """The end of a file is damaged: what stands before it was found already.

    Args:
        reason: Why, as one of the closed set of codes.
        detail: What happened.
        nbytes: Bytes of the content that were read and belong to no complete record.
    """

    def __init__(self, reason: Any, detail: str, nbytes: int = 0) -> None:
        super().__init__(reason, detail)
        self.nbytes = nbytes


class PaperFormat(Protocol):
    """One format of files with papers."""

    def scan(self, path: Path, after: int = 0) -> Iterator[Found]:
        """Yield every record in the order of the file, from a byte or row at which one begins.

        Raises:
            Loss: What follows cannot be read.
            SourceError: The file as a whole cannot be read.
            OSError: It cannot be opened.
        """

    def read(self, path: Path, places: Sequence[Place]) -> Iterator[Paper | SourceError]:
        """Yield the paper of each place, which ascend, or the error of that record.

        Raises:
            SourceError: The file as a whole cannot be read.
            OSError: It cannot be opened.
        """
