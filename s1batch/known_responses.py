"""Answers that earlier runs received, so that identical requests of other chunks are not sent again.

One answer may serve many chunks, in several parts. A run that was killed between their rows has the answer in one of
them only; the others find it here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from s1batch.records import Outcome, Response, Row, TokenLogprob, turns_from_text
from s1batch.results.store import ResultsStore

ANSWERED: frozenset[Outcome] = frozenset({"ok", "unparsed", "length"})
"""Outcomes of rows that hold an answer."""


def known_responses(
    store: ResultsStore, *, most: int, most_chars: int, without: Collection[Outcome] = ()
) -> list[Response]:
    """Return the responses behind stored rows: those of unfinished parts, before them those of the last finished ones.

    Answers of conversations that called tools count too, each turn by itself.

    Args:
        store: The results.
        most: Most responses returned.
        most_chars: Most characters that they hold together.
        without: Outcomes whose answers are not wanted.

    Raises:
        ResultsError: A journal or a file of rows cannot be read.
    """
    found: dict[str, Response] = {}
    chars = 0
    for response in _received(store, ANSWERED.difference(without), without):
        if response.fingerprint not in found:
            chars += len(response.text) + len(response.reasoning or "")
            if len(found) >= most or chars > most_chars:
                break
            found[response.fingerprint] = response
    return list(reversed(found.values()))


def _received(store: ResultsStore, wanted: Collection[Outcome], without: Collection[Outcome]) -> Iterator[Response]:
    for turn in store.turns():
        yield turn.response
    for row in store.latest_rows():
        if row.fingerprint and row.outcome in wanted:
            yield _response(row)
        if row.outcome not in without:
            for turn in turns_from_text(row.turns):
                yield turn.response


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
