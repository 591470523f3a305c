"""Backoff and Retry-After."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest

from s1batch.engine.http.retry import Backoff, parse_retry_after

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("7", 7.0),
        (" 1.5 ", 1.5),
        ("999999", 3600.0),
        ("-5", None),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("", None),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("Thu, 01 Jan 2026 12:00:30", 30.0),
        ("Thu, 99 Jan 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


def test_waits_are_drawn_evenly_below_a_bound_that_doubles_up_to_the_cap() -> None:
    backoff, random = Backoff(base_s=0.5, cap_s=4.0), Random(1)
    for attempt, bound in [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 4.0), (5000, 4.0)]:
        drawn = [backoff.delay_s(attempt, random) for _ in range(400)]
        assert min(drawn) >= 0
        assert max(drawn) <= bound
        assert 0.4 * bound < sum(drawn) / 400 < 0.6 * bound
