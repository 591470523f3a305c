"""How much is read ahead."""

from __future__ import annotations

import threading

AHEAD_BYTES = 64 << 20
"""What all calls of a reader together may read ahead."""


class ReadAhead:
    """Bounds what the calls of one reader read ahead together; threads share it."""

    def __init__(self) -> None:
        self._held = 0
        self._lock = threading.Lock()

    def begin(self, nbytes: int) -> bool:
        """Take room for a block and return True, or return False where there is none."""
        with self._lock:
            if self._held + nbytes > AHEAD_BYTES:
                return False
            self._held += nbytes
            return True

    def end(self, nbytes: int) -> None:
        """Give it back."""
        with self._lock:
            self._held -= nbytes

    def __reduce__(self) -> tuple[type[ReadAhead], tuple[()]]:
        """Travel empty."""
        return ReadAhead, ()
