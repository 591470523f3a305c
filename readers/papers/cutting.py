"""Cuts the text of a paper into passages that join back to it exactly, apart from their stated overlap.

Short sections share a passage as long as they fit; a longer one is cut by chonkie's RecursiveChunker at paragraphs,
else sentences, else words. What has no such place within a passage's length is cut between characters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

from s1batch.readers.extras import need
from s1batch.readers.papers.counting import TokenCounter
from s1batch.readers.papers.paper import Paper
from s1batch.readers.papers.spec import PassageSpec

_PARAGRAPHS = ["\n\n", "\n \n", "\r\n\r\n"]
_SENTENCES = [". ", "! ", "? ", ".\n", "!\n", "?\n", "。", "！", "？", "; ", ";\n"]
_LINES = ["\n", ", ", "，", "、"]

_TRIES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One passage, as characters of the paper's text.

    Attributes:
        start: Its first character.
        core: The first one that no passage before holds.
        stop: The first one behind it.
        tokens: Its tokens in the model's count, rounded up.
    """

    start: int
    core: int
    stop: int
    tokens: int


@dataclass(frozen=True)
class Cutter:
    """Cuts papers.

    Attributes:
        spec: How.
        counter: Counts tokens.
        context: Tokens that are left for a whole paper; None where it is not known.
    """

    spec: PassageSpec
    counter: TokenCounter
    context: int | None = None

    def cut(self, paper: Paper) -> list[Cut]:
        """Return the passages of a paper: their cores follow one another from its first character to its last."""
        spec, text = self.spec, paper.text
        if not spec.whole:
            count, limit = self._counted(spec.unit, spec.tokens)
            return self._passages(paper, count, limit, spec.overlap)
        tokens = self.counter.count(text)
        longest = spec.longest if spec.longest is not None else self.context
        if spec.too_long == "refuse" or longest is None or self.counter.safe(tokens) <= longest:
            return [Cut(start=0, core=0, stop=len(text), tokens=self.counter.safe(tokens))]
        overlap = min(spec.overlap, longest // 2)
        return self._passages(paper, self.counter.count, self.counter.limit(longest), overlap)

    def _counted(self, unit: str, length: int) -> tuple[Callable[[str], int], int]:
        if unit == "words":
            return _words, length
        if unit == "chars":
            return len, length
        return self.counter.count, self.counter.limit(length)

    def _passages(self, paper: Paper, count: Callable[[str], int], limit: int, overlap: int) -> list[Cut]:
        text = paper.text
        pieces = self._packed(_sections(paper), text, count, max(limit - overlap, 1))
        own = count == self.counter.count
        cuts: list[Cut] = []
        before, size = 0, 0
        for start, stop, length in pieces:
            first, repeated = start, 0
            if overlap and start > before:
                guess = int(0.97 * overlap * (start - before) / max(size, 1))
                first, repeated = _reach_back(text, start, before, guess, overlap, count)
            tokens = length + repeated if own else self.counter.count(text[first:stop])
            cuts.append(Cut(start=first, core=start, stop=stop, tokens=self.counter.safe(tokens)))
            before, size = start, length
        return cuts

    def _packed(
        self, sections: Sequence[tuple[int, int]], text: str, count: Callable[[str], int], room: int
    ) -> list[tuple[int, int, int]]:
        """Return (start, stop, length) of pieces: several short sections, or a part of a long one."""
        packed: list[tuple[int, int, int]] = []
        may_join = False
        for start, stop in sections:
            # What may be too long is not counted before it is cut: that counts it.
            pieces = split(text[start:stop], count, room) if stop - start > room else [(0, stop - start, -1)]
            if len(pieces) > 1:
                packed += [(start + a, start + b, n) for a, b, n in pieces]
                may_join = False
                continue
            length = pieces[0][2] if pieces[0][2] >= 0 else count(text[start:stop])
            if length > room:
                packed += [(start + a, start + b, n) for a, b, n in split(text[start:stop], count, room)]
                may_join = False
            elif may_join and packed[-1][2] + length <= room:
                packed[-1] = (packed[-1][0], stop, packed[-1][2] + length)
            else:
                packed.append((start, stop, length))
                may_join = self.spec.join_sections
        return packed


def split(text: str, count: Callable[[str], int], room: int) -> list[tuple[int, int, int]]:
    """Return (start, stop, length) of pieces that join to the text, none longer than there is room."""
    found: list[tuple[int, int, int]] = []
    position = 0
    chunks = [(chunk.text, chunk.token_count) for chunk in _chunker(count, room).chunk(text)]
    if "".join(part for part, _ in chunks) != text:
        # A splitter that loses characters may choose no borders: nothing of a paper is left out.
        chunks = [(text, count(text))]
    for part, length in chunks:
        for inner, size in _halved(part, length, count, room):
            behind = position + len(inner)
            # The end of a long paragraph and what follows it come apart, though they may fit together.
            if found and found[-1][2] + size <= room:
                found[-1] = (found[-1][0], behind, found[-1][2] + size)
            else:
                found.append((position, behind, size))
            position = behind
    return found


def _halved(part: str, length: int, count: Callable[[str], int], room: int) -> Iterator[tuple[str, int]]:
    if length <= room or len(part) == 1:
        yield part, length
        return
    pieces = min(-(-length // room), len(part))
    step = -(-len(part) // pieces)
    for start in range(0, len(part), step):
        inner = part[start : start + step]
        yield from _halved(inner, count(inner), count, room)


def _sections(paper: Paper) -> list[tuple[int, int]]:
    borders = [0, *(mark.start for mark in paper.sections if mark.start > 0), len(paper.text)]
    return [(start, stop) for start, stop in pairwise(borders) if stop > start]


def _reach_back(
    text: str, start: int, floor: int, guess: int, overlap: int, count: Callable[[str], int]
) -> tuple[int, int]:
    """Return where a passage begins that repeats at most so much of what stands before it, at a word, and how much."""
    reach = min(guess, start - floor)
    for _ in range(_TRIES):
        first = start - reach
        if first > floor:
            space = text.find(" ", first, start)
            first = space + 1 if space >= 0 else start
        if first == start:
            return start, 0
        repeated = count(text[first:start])
        if repeated <= overlap:
            return first, repeated
        reach = min(int((start - first) * overlap / repeated * 0.95), reach - 1)
    return start, 0


def _words(text: str) -> int:
    return len(text.split())


@lru_cache(maxsize=8)
def _chunker(count: Callable[[str], int], room: int) -> Any:
    return _chunker_class()(tokenizer=count, chunk_size=room, rules=_rules(), min_characters_per_chunk=1)


@cache
def _rules() -> Any:
    chonkie = need("chonkie", "papers", "passages of papers")
    level = chonkie.RecursiveLevel
    levels = [
        level(delimiters=_PARAGRAPHS),
        level(delimiters=_SENTENCES),
        level(delimiters=_LINES),
        level(whitespace=True),
    ]
    return chonkie.RecursiveRules(levels=levels)


@cache
def _chunker_class() -> Any:
    chonkie = need("chonkie", "papers", "passages of papers")

    class Chunker(chonkie.RecursiveChunker):  # type: ignore[misc, name-defined]
        """Counts directly: the base class keeps the last 4,096 texts that it has counted, however long they are."""

        def __init__(self, *, tokenizer: Callable[[str], int], **about: Any) -> None:
            super().__init__(tokenizer=tokenizer, **about)
            self._count = tokenizer

        def _estimate_token_count(self, text: str) -> int:
            return self._count(text)

    return Chunker
