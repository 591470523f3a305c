"""Puts a text together from titles and paragraphs, and remembers where sections begin."""

from __future__ import annotations

from s1batch.readers.papers.paper import Mark

LONGEST_TITLE = 300
"""Characters of a section's title that are kept as its name."""


class TextBuilder:
    """A text that grows paragraph by paragraph, with an empty line between them.

    Attributes:
        sections: Where sections begin.
    """

    def __init__(self) -> None:
        self.sections: list[Mark] = []
        self._parts: list[str] = []
        self._length = 0

    def section(self, title: str, *, again: bool = True) -> None:
        """Begin a section, with its title as a paragraph.

        Args:
            title: Its title; an empty one begins nothing.
            again: Whether a title that is that of the present section begins a new one.
        """
        title = " ".join(title.split())
        if not title or (not again and self.sections and self.sections[-1].title == title[:LONGEST_TITLE]):
            return
        start = self._length + (2 if self._parts else 0)
        self.paragraph(title)
        self.sections.append(Mark(start=start, title=title[:LONGEST_TITLE]))

    def paragraph(self, text: str) -> None:
        """Add a paragraph; an empty one adds nothing."""
        if not text or text.isspace():
            return
        if self._parts:
            self._parts.append("\n\n")
            self._length += 2
        self._parts.append(text)
        self._length += len(text)

    def text(self) -> str:
        """Return the text."""
        return "".join(self._parts)
