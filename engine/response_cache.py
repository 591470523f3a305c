"""Responses that were received lately, by fingerprint, so that a question asked twice is sent once."""

from __future__ import annotations

import sys
from collections import OrderedDict

from s1batch.records import Response

_RECORD_BYTES = 600
"""A `Response` without its texts, its key and its place in the table, on CPython 3.11; rounded up."""


class ResponseCache:
    """Keeps the responses that were used last, within two bounds.

    Args:
        entries: Most responses kept; 0 keeps none.
        bytes_: Most memory that they take, texts included.
    """

    def __init__(self, *, entries: int, bytes_: int) -> None:
        self._most_entries = entries
        self._most_bytes = bytes_
        self._responses: OrderedDict[str, tuple[Response, int]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._responses)

    @property
    def nbytes(self) -> int:
        """Memory that the kept responses take, in bytes."""
        return self._bytes

    def get(self, fingerprint: str) -> Response | None:
        """Return the kept response, which then counts as used last."""
        found = self._responses.get(fingerprint)
        if found is None:
            return None
        self._responses.move_to_end(fingerprint)
        return found[0]

    def put(self, response: Response) -> None:
        """Keep a response, and drop those that were unused longest until both bounds hold."""
        texts = [response.text, response.reasoning, response.detail]
        for call in response.tool_calls:
            texts += [call.name, call.arguments]
        size = _RECORD_BYTES + sum(sys.getsizeof(text) for text in texts if text)
        self._drop(response.fingerprint)
        if size > self._most_bytes or self._most_entries < 1:
            return
        self._responses[response.fingerprint] = (response, size)
        self._bytes += size
        while self._bytes > self._most_bytes or len(self._responses) > self._most_entries:
            self._drop(next(iter(self._responses)))

    def _drop(self, fingerprint: str) -> None:
        found = self._responses.pop(fingerprint, None)
        if found is not None:
            self._bytes -= found[1]
