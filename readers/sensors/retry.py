"""Asking a remote store again: bounded, exponentially slower, and only for what may pass."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from s1batch.errors import SourceError

Found = TypeVar("Found")

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0

_LIBRARIES = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "HTTPClientError"),
    ("aiohttp", "ClientError"),
)
"""Errors of connections that are no OSError, by the module that holds them."""

_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Errors of a store that did answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and how fast a store is asked again.

    Attributes:
        times: Attempts after the first; 0 for local files, whose errors are final.
        first_s: Pause before the second attempt; each further one is twice as long, up to 30 s.
    """

    times: int = 0
    first_s: float = FIRST_DELAY_S

    def call(self, what: str, work: Callable[[], Found]) -> Found:
        """Return what a call gives, tried again while the store does not answer.

        Args:
            what: What is asked for, for the message.
            work: The call.

        Raises:
            SourceError: `source_unreachable`: it did not answer in any attempt.
        """
        delay_s = self.first_s
        for attempt in range(self.times + 1):
            try:
                return work()
            except Exception as error:
                if not self.times or not is_passing(error):
                    raise
                if attempt == self.times:
                    detail = f"{what}: no answer in {self.times + 1} attempts ({type(error).__name__}: {error})"
                    raise SourceError("source_unreachable", detail) from error
            time.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)
        raise AssertionError("the last attempt returns or raises")


def is_passing(error: BaseException) -> bool:
    """Return whether an error says that a store cannot be reached or is busy, rather than what it holds."""
    if isinstance(error, _LASTING):
        return False
    kinds: list[type[BaseException]] = [OSError, asyncio.TimeoutError]
    for module, name in _LIBRARIES:
        if module in sys.modules:
            kinds.append(getattr(sys.modules[module], name))
    return isinstance(error, tuple(kinds))
