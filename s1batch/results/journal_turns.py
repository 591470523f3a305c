"""Turns of unfinished conversations in a journal: an answer that calls a tool is an answer, and safe before the row is.

Such a record stands among the rows. It has another first key, by which readers of rows pass it over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from s1batch.records import Turn, turn_from_plain, turn_to_plain

_BEGIN = b'{"turn_of":'


def turn_payload(chunk_key: str, number: int, turn: Turn) -> bytes:
    """Return the record of a turn."""
    plain = {"turn_of": chunk_key, "number": number, "turn": turn_to_plain(turn)}
    return json.dumps(plain, separators=(",", ":")).encode()  # as ASCII it holds whatever a model can say


def is_turn(payload: bytes) -> bool:
    """Return whether a record of a journal is a turn."""
    return payload.startswith(_BEGIN)


class OpenTurns:
    """The turns of chunks that have no row."""

    def __init__(self) -> None:
        self._turns: dict[str, dict[int, Turn]] = {}

    def __iter__(self) -> Iterator[tuple[str, tuple[Turn, ...]]]:
        return iter([(key, self.of(key)) for key in self._turns])

    def take(self, payload: bytes) -> bool:
        """Take in a record if it is a turn, and return whether it was; a damaged one is asked again."""
        if not is_turn(payload):
            return False
        try:
            found = json.loads(payload)
            self._turns.setdefault(found["turn_of"], {})[int(found["number"])] = turn_from_plain(found["turn"])
        except (ValueError, KeyError, TypeError):
            return True
        return True

    def of(self, chunk_key: str) -> tuple[Turn, ...]:
        """Return the turns of a chunk from the first on, without a gap."""
        turns = self._turns.get(chunk_key)
        if turns is None:
            return ()
        count = next(number for number in range(len(turns) + 1) if number not in turns)
        return tuple(turns[number] for number in range(count))

    def drop(self, chunk_key: str) -> None:
        """Forget a chunk: it has its row."""
        self._turns.pop(chunk_key, None)
