"""Numbers with their nouns, and texts of unknown origin on one line."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """Return a number and its noun in the right form: `1 part`, `1,200 parts`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def printable(text: str) -> str:
    """Return a text on one line, its control characters replaced: what data say must not steer a terminal."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in " ".join(text.split()))


def one_line(text: str, longest: int) -> str:
    """Return a printable text of so many characters at most; the end of a longer one is left out."""
    line = printable(text)
    return line if len(line) <= longest else line[: longest - 1] + "…"
