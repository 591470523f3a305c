"""Nanoseconds as text."""

from __future__ import annotations

from datetime import UTC, datetime


def format_ns(time_ns: int) -> str:
    """Return UTC nanoseconds as ISO 8601, with as many digits of the second as it needs (at least none, in threes)."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if rest == 0:
        return text + "Z"
    digits = f"{rest:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}Z"
