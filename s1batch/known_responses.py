"""Answers that earlier runs received, so that identical requests of other chunks are not sent again.

One answer may serve many chunks, in several parts. A run that was killed between their rows has the answer in one of
them only; the others find it here.
"""

from __future__ import annotations

from collections.abc import Collection

from s1batch.records import Outcome, Response, Row, TokenLogprob
from s1batch.results.store import ResultsStore

ANSWERED: frozenset[Outcome] = frozenset({"ok", "unparsed", "length"})
"""Outcomes of rows that hold an answer."""


def known_responses(
    store: ResultsStore, *, most: int, most_chars: int, without: Collection[Outcome] = ()
) -> list[Response]:
    """Return the responses behind stored rows: those of unfinished parts, before them those of the last finished ones.

    Args:
        store: The results.
        most: Most responses returned.
        most_chars: Most characters that they hold together.
        without: Outcomes whose answers are not wanted.

    Raises:
        ResultsError: A journal or a file of rows cannot be read.
    """
    wanted = ANSWERED.difference(without)
    found: dict[str, Response] = {}
    chars = 0
    for row in store.latest_rows():
        if row.fingerprint and row.outcome in wanted and row.fingerprint not in found:
            chars += len(row.text) + len(row.reasoning or "")
            if len(found) >= most or chars > most_chars:
                break
            found[row.fingerprint] = _response(row)
    return list(reversed(found.values()))


def _response(row: Row) -> Response:
    return Response(
        fingerprint=row.fingerprint,
        text=row.text,
        reasoning=row.reasoning,
        finish_reason=row.finish_reason or "stop",
        engine=row.engine,
        model=row.model,
        logprobs=None if row.logprobs is None else tuple(map(TokenLogprob.from_plain, row.logprobs)),
        attempts=0,
    )
