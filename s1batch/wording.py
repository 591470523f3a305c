"""Numbers with their nouns."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """Return a number and its noun in the right form: `1 part`, `1,200 parts`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
