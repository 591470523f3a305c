"""When to ask again, and what went wrong: the failures of one attempt."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random

from s1batch.records import Reason

LONGEST_RETRY_AFTER_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why one attempt gave no answer.

    Attributes:
        reason: The code for the row.
        detail: What happened, in words, without secrets.
        retry: Whether asking again can help.
        blames_endpoint: Whether it says something about the endpoint, rather than about the request.
        retry_after_s: How long the endpoint wants to be left alone.
    """

    reason: Reason
    detail: str
    retry: bool = False
    blames_endpoint: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential backoff with full jitter: the wait is drawn evenly from 0 to min(cap, base * 2**(n-1)).

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    max_attempts: int = 5
    base_s: float = 0.5
    cap_s: float = 30.0

    def delay_s(self, attempt: int, random: Random) -> float:
        """Return the wait after the given attempt (from 1) has failed."""
        return random.uniform(0.0, min(self.cap_s, self.base_s * 2.0 ** min(attempt - 1, 60)))


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks for, 0 to 3600; None when it says nothing.

    Args:
        value: Seconds or an HTTP date (RFC 9110, 10.2.3).
        now: The present, for dates; None takes the clock.
    """
    if value is None:
        return None
    text = value.strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        seconds = float(text)
    else:
        try:
            when = parsedate_to_datetime(text)
        except ValueError:
            return None
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        seconds = (when - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)
