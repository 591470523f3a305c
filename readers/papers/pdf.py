"""PDF: text by pages, sections by their headings, figures on request."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s1batch.errors import SourceError
from s1batch.readers.papers.paper import Figure, Mark, Paper
from s1batch.readers.papers.pdf_pool import PdfPool
from s1batch.readers.papers.single import OnePaper

_NUMBERED = re.compile(r"^(?:\d{1,2}(?:\.\d{1,2}){0,3}|[IVX]{1,5})[.)]?[ \t]+([A-Z][^\n.!?;]{2,60})$", re.M)
_NAMED = re.compile(
    r"^(abstract|summary|introduction|background|related work|materials? and methods?|methods?|methodology|data|"
    r"experiments?|results?(?: and discussion)?|discussion|conclusions?|acknowledge?ments?|references|bibliography|"
    r"appendix(?: [A-Z])?|supplementary (?:material|information))\.?$",
    re.M | re.I,
)
_SEPARATOR = "\n\n"
_PLAIN_FACTS = ("Author", "Subject", "Keywords", "CreationDate")
_YEAR = re.compile(r"D:(\d{4})")
_DOI = re.compile(r"\b10\.\d{4,9}/[^\s\"<>]+[^\s\"<>.,;)]")


@dataclass(frozen=True, slots=True)
class Pdf(OnePaper):
    """One paper as PDF.

    Attributes:
        pool: The processes that read.
        figures: Whether its images are wanted.
        least_pixels: Smallest width and height of a figure.
    """

    pool: PdfPool
    figures: bool = False
    least_pixels: int = 100

    def images(self, path: Path, figures: Sequence[Figure]) -> list[bytes]:
        """Return figures as PNG.

        Raises:
            SourceError: One cannot be decoded.
        """
        return self.pool.figures(path, [(figure.page, figure.number) for figure in figures])

    def _paper(self, path: Path) -> Paper:
        if not path.stat().st_size:
            raise SourceError("empty_file", "the file is empty")
        return _made(self.pool.text(path, self.figures, self.least_pixels))


def _made(found: Mapping[str, Any]) -> Paper:
    pages: list[str] = found["pages"]
    text = _SEPARATOR.join(pages)
    if not text.strip():
        shown = f"{len(pages)} pages" if len(pages) != 1 else "one page"
        detail = (
            f"{found['broken']} pages are broken" if found["broken"] else "it may be a scan: read it with OCR first"
        )
        raise SourceError("not_readable", f"no text on {shown}: {detail}")
    starts: list[int] = []
    position = 0
    for page in pages:
        starts.append(position)
        position += len(page) + len(_SEPARATOR)
    facts: Mapping[str, str] = found["facts"]
    year, doi = _YEAR.match(facts.get("CreationDate", "")), _DOI.search(text, 0, 20_000)
    return Paper(
        paper_id="",
        text=text,
        title=" ".join(found["title"].split()),
        year=int(year.group(1)) if year else None,
        doi=doi.group() if doi else "",
        sections=_sections(text),
        pages=starts,
        figures=[Figure(**figure) for figure in found["figures"]],
        metadata={name.lower(): facts[name] for name in _PLAIN_FACTS if facts.get(name)}
        | _pages(len(pages), found["broken"]),
    )


def _pages(count: int, broken: int) -> dict[str, int]:
    return {"pages": count, "broken_pages": broken} if broken else {"pages": count}


def _sections(text: str) -> list[Mark]:
    """Return the lines that look like headings: numbered ones, and the usual names."""
    marks = {found.start(): found.group() for pattern in (_NUMBERED, _NAMED) for found in pattern.finditer(text)}
    return [Mark(start=start, title=" ".join(marks[start].split())) for start in sorted(marks)]
