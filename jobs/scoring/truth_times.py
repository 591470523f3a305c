"""Times in tables of truth: ISO 8601 (UTC unless they name an offset), or seconds since 1970."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

from s1batch.errors import UsageError

_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,9})\d*)?)?\s*(Z|UTC|[+-]\d\d:?\d\d)?", re.IGNORECASE
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time_ns(text: str, where: str) -> int:
    """Return a time as nanoseconds since 1970.

    Args:
        text: The time.
        where: The table and line, for messages.

    Raises:
        UsageError: It is no time.
    """
    match = _ISO.fullmatch(text)
    if match is None:
        try:
            return round(Decimal(text) * 10**9)
        except (InvalidOperation, OverflowError, ValueError):
            raise UsageError(
                f"{where}: {text!r} is no time; write 2020-01-31T12:00:00.123456Z, or seconds since 1970"
            ) from None
    day, minute, second, fraction, offset = match.groups()
    zone = (offset or "Z").upper().replace("UTC", "Z").replace("Z", "+00:00")
    try:
        whole = datetime.fromisoformat(f"{day}T{minute}:00{zone}") - _EPOCH
    except ValueError as error:
        raise UsageError(f"{where}: {text!r} is no time: {error}") from None
    seconds = whole // timedelta(seconds=1) + int(second or 0)
    return seconds * 10**9 + int((fraction or "").ljust(9, "0"))
