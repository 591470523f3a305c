"""One line for each claim of a paper, from passages that overlap.

Claims of different passages are one when their quotes are the same stretch of the paper's text, or when they say the
same (after Unicode NFKC, letter case, white space, dashes and quotation marks are folded). Several claims of one
passage that share a quote stay apart: the first of them is one with the first of another passage, and so on. The best
of several stands in the line: an exact quote before a normalised one, right numbers before wrong ones, then the first.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from s1batch.jobs.group_pieces import Line, whole_groups
from s1batch.jobs.paper_extract.quotes import fold

if TYPE_CHECKING:
    import polars as pl

MERGE_COLUMNS = frozenset(["chunk_key", "outcome", "paper", "claims"])
"""The columns of results that merging looks at."""

_BEST_FIRST = ("exact", "normalised", "unverified")


def merge_claim_pieces(pieces: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Merge the claims of rows that come in pieces.

    Args:
        pieces: Rows of a `paper-extract` job with `MERGE_COLUMNS`; gone through twice.

    Yields:
        Lines with `group_id`, `paper`, the fields of a claim, `count` (claims that were merged) and
        `source_chunk_keys`, by paper and place in it; each once.
    """
    import polars as pl

    claim_type: pl.Struct | None = None
    for rows in pieces:
        inner = rows.schema["claims"].inner  # type: ignore[attr-defined]
        claim_type = inner if isinstance(inner, pl.Struct) else None
        break
    fields = {each.name: each.dtype for each in claim_type.fields} if claim_type is not None else {}
    schema: dict[str, Any] = {
        "group_id": pl.String,
        "paper": pl.String,
        **fields,
        "count": pl.Int64,
        "source_chunk_keys": pl.List(pl.String),
    }
    for groups in whole_groups(pieces, lambda row: row["paper"], ["paper"]):
        lines = [line for paper, passages in groups for line in merge_claims(str(paper), passages)]
        yield pl.DataFrame(lines, schema=schema)


def merge_claims(paper: str, passages: Iterable[Line]) -> list[dict[str, Any]]:
    """Return the claims of one paper.

    Args:
        paper: Its id.
        passages: The rows of its passages, with `chunk_key` and `claims`.
    """
    found: list[tuple[str, Mapping[str, Any]]] = []
    first_with: dict[Hashable, int] = {}
    parent: list[int] = []
    for passage in passages:
        spans: Counter[Hashable] = Counter()
        for claim in passage["claims"] or ():
            number = len(found)
            found.append((passage["chunk_key"], claim))
            parent.append(number)
            for key in _keys(claim, spans):
                parent[_root(parent, number)] = _root(parent, first_with.setdefault(key, number))
    members: dict[int, list[int]] = {}
    for number in range(len(found)):
        members.setdefault(_root(parent, number), []).append(number)
    lines = [_line(paper, [found[number] for number in numbers]) for numbers in members.values()]
    # Claims that stand nowhere come last.
    return sorted(lines, key=lambda line: (line["char_start"] is None, line["char_start"] or 0, line["char_end"] or 0))


def said(claim: str) -> str:
    """Return a claim as claims are compared."""
    return fold(claim).text.strip().rstrip(".")


def _keys(claim: Mapping[str, Any], spans: Counter[Hashable]) -> Iterator[Hashable]:
    """Yield what makes a claim one with others."""
    yield ("claim", said(claim["claim"]))
    if claim["char_start"] is not None:
        span = (claim["char_start"], claim["char_end"])
        spans[span] += 1
        yield ("span", span, spans[span])


def _root(parent: list[int], number: int) -> int:
    while parent[number] != number:
        parent[number] = number = parent[parent[number]]
    return number


def _line(paper: str, group: list[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    _, best = min(group, key=lambda one: (_BEST_FIRST.index(one[1]["quote_status"]), not one[1]["numbers_ok"]))
    keys = list(dict.fromkeys(chunk_key for chunk_key, _ in group))
    where = repr((paper, said(best["claim"]), best["char_start"], best["char_end"], keys))
    return {
        "group_id": hashlib.sha256(where.encode()).hexdigest()[:32],
        "paper": paper,
        **best,
        "count": len(group),
        "source_chunk_keys": keys,
    }
