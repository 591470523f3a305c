"""LaTeX, Markdown and plain text, which are sent as they are; only their headings are looked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from s1batch.errors import SourceError
from s1batch.readers.papers.paper import Mark, Paper
from s1batch.readers.papers.single import OnePaper
from s1batch.readers.papers.streams import read_whole
from s1batch.readers.papers.text_builder import LONGEST_TITLE

_LATEX_SECTION = re.compile(
    r"^[ \t]*\\(?:part|chapter|(?:sub){0,2}section)\*?\s*(?:\[[^\]\n]*\])?\{([^\n]*?)\}[ \t%]*", re.M
)
_LATEX_ABSTRACT = re.compile(r"^[ \t]*\\begin\{abstract\}", re.M)
_LATEX_TITLE = re.compile(r"\\title\s*(?:\[[^\]]*\])?\{((?:[^{}]|\{[^{}]*\})*)\}")
_MARKDOWN_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+([^\n]*?)[ \t]*#*[ \t]*$", re.M)
_FENCE = re.compile(r"^ {0,3}(```|~~~)[^\n]*\n.*?(?:^ {0,3}\1[ \t]*$|\Z)", re.M | re.S)


@dataclass(frozen=True, slots=True)
class PlainText(OnePaper):
    """One paper as text in UTF-8.

    Attributes:
        kind: What marks its headings.
    """

    kind: Literal["latex", "markdown", "text"]

    def _paper(self, path: Path) -> Paper:
        try:
            text = read_whole(path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SourceError("decode_error", f"the text is no UTF-8: {error.reason} at byte {error.start}") from error
        if self.kind == "latex":
            return Paper(paper_id="", text=text, title=_latex_title(text), sections=_latex_sections(text))
        if self.kind == "markdown":
            sections, title = _markdown_sections(text)
            return Paper(paper_id="", text=text, title=title, sections=sections)
        return Paper(paper_id="", text=text)


def _latex_sections(text: str) -> Sequence[Mark]:
    marks = [Mark(start=found.start(), title=_short(found.group(1))) for found in _LATEX_SECTION.finditer(text)]
    marks += [Mark(start=found.start(), title="Abstract") for found in _LATEX_ABSTRACT.finditer(text)]
    return sorted(marks, key=lambda mark: mark.start)


def _latex_title(text: str) -> str:
    found = _LATEX_TITLE.search(text)
    return _short(found.group(1).replace("\\\\", " ")) if found else ""


def _markdown_sections(text: str) -> tuple[Sequence[Mark], str]:
    """Return the headings outside of code, and the first one of the first level."""
    code = [found.span() for found in _FENCE.finditer(text)]
    marks: list[Mark] = []
    title = ""
    for found in _MARKDOWN_HEADING.finditer(text):
        if any(start <= found.start() < stop for start, stop in code):
            continue
        name = _short(found.group(2))
        if not title and found.group(1) == "#":
            title = name
        marks.append(Mark(start=found.start(), title=name))
    return marks, title


def _short(title: str) -> str:
    return " ".join(title.split())[:LONGEST_TITLE]
