"""Whether a quote stands in a text, and where.

    exact        it stands there letter by letter
    normalised   it does after both are folded: Unicode NFKC (ligatures, full-width letters), letter case, quotation
                 marks, dashes, white space, hyphens between letters (words broken across lines), invisible characters
    unverified   it does not

Nothing is guessed: a quote with a word left out, or with an ellipsis, is unverified.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

QuoteStatus = Literal["exact", "normalised", "unverified"]

_QUOTES = str.maketrans(dict.fromkeys("‘’‚‛`´′", "'") | dict.fromkeys("“”„‟«»″", '"'))
_DASHES = frozenset("-‐‑‒–—―−")
_INVISIBLE = frozenset("\u00ad\u200b\u200c\u200d\u2060\ufeff")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundQuote:
    """Where a quote stands.

    Attributes:
        status: How well it fits.
        start: Its first character in the text; None where it is unverified.
        stop: The character behind its last one.
    """

    status: QuoteStatus
    start: int | None = None
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class FoldedText:
    """A text as it is compared.

    Attributes:
        text: The folded characters.
        starts: For each of them, the character of the original that it comes from.
        stops: The character behind the last one that it comes from.
    """

    text: str
    starts: tuple[int, ...]
    stops: tuple[int, ...]


def find_quote(quote: str, text: str) -> FoundQuote:
    """Return whether and where a quote stands in a text; the first place counts."""
    bare = quote.strip()
    if not bare:
        return FoundQuote(status="unverified")
    start = text.find(bare)
    if start >= 0:
        return FoundQuote(status="exact", start=start, stop=start + len(bare))
    wanted = fold(bare).text.strip()
    folded = _fold_kept(text)
    start = folded.text.find(wanted) if wanted else -1
    if start < 0:
        return FoundQuote(status="unverified")
    stop = folded.stops[start + len(wanted) - 1]
    return FoundQuote(status="normalised", start=folded.starts[start], stop=stop)


def fold(text: str) -> FoldedText:
    """Return a text as it is compared."""
    letters: list[str] = []
    starts: list[int] = []
    for position, original in enumerate(text):
        if original in _INVISIBLE:
            continue
        for letter in unicodedata.normalize("NFKC", original).casefold().translate(_QUOTES):
            if letter in _DASHES:
                letter = "-"
            elif letter.isspace():
                letter = " "
                if letters and letters[-1] == " ":
                    continue
            if letter.isalpha():
                _join_word(letters, starts)
            letters.append(letter)
            starts.append(position)
    return _composed("".join(letters), tuple(starts))


def _join_word(letters: list[str], starts: list[int]) -> None:
    """Take out a hyphen, with the white space behind it, that stands between a letter and the one to come."""
    size = len(letters)
    hyphen = size - 2 if size >= 2 and letters[-1] == " " else size - 1
    if hyphen >= 1 and letters[hyphen] == "-" and letters[hyphen - 1].isalpha():
        del letters[hyphen:]
        del starts[hyphen:]


def _composed(text: str, starts: tuple[int, ...]) -> FoldedText:
    """Return the text with letters and their combining marks in one, as NFKC has them."""
    if text.isascii() or not any(unicodedata.combining(letter) for letter in text):
        return FoldedText(text, starts, tuple(start + 1 for start in starts))
    letters: list[str] = []
    firsts: list[int] = []
    stops: list[int] = []
    for letter, start in zip(text, starts, strict=True):
        whole = unicodedata.normalize("NFC", letters[-1] + letter) if letters else letter
        if letters and unicodedata.combining(letter) and len(whole) == 1:
            letters[-1], stops[-1] = whole, start + 1
        else:
            letters.append(letter)
            firsts.append(start)
            stops.append(start + 1)
    return FoldedText("".join(letters), tuple(firsts), tuple(stops))


# Each claim of an answer is looked up in the same passage.
_fold_kept = lru_cache(maxsize=8)(fold)
