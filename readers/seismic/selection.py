"""What of the archive a job asks for: channel patterns, and a range of time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from s1batch.errors import UsageError
from s1batch.grid import first_index_from
from s1batch.readers.seismic.spec import SeismicSource

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_selected(channel: str, spec: SeismicSource) -> bool:
    """Return whether a channel id matches the network, station, location and channel patterns."""
    network, station, location, code = channel.split(".", 3)
    return (
        matches(network, spec.network)
        and matches(station, spec.station)
        and matches(location, spec.location)
        and matches(code, spec.channel)
    )


def matches(code: str, patterns: Iterable[str]) -> bool:
    """Return whether a code matches any of some shell patterns; the pattern `--` is the empty code."""
    return any(fnmatchcase(code, "" if pattern == "--" else pattern) for pattern in patterns)


def time_range_ns(spec: SeismicSource) -> tuple[int | None, int | None]:
    """Return the first selected nanosecond and the first behind the selection; None where it is open.

    Raises:
        UsageError: The range is empty.
    """
    start_ns = None if spec.starttime is None else to_ns(spec.starttime)
    stop_ns = None if spec.endtime is None else to_ns(spec.endtime)
    if start_ns is not None and stop_ns is not None and start_ns >= stop_ns:
        raise UsageError(f"source.endtime ({spec.endtime}) must be later than source.starttime ({spec.starttime})")
    return start_ns, stop_ns


def cut_to_range(
    start_ns: int, rate_hz: float, samples: int, time_range: tuple[int | None, int | None]
) -> tuple[int, int]:
    """Return the first sample of a run within a range of time, and the first behind it; equal where none is.

    Args:
        start_ns: Time of the run's first sample.
        rate_hz: Its rate.
        samples: How many it has.
        time_range: From `time_range_ns`.
    """
    first, stop = 0, samples
    if time_range[0] is not None:
        first = min(max(0, first_index_from(time_range[0], start_ns, rate_hz)), stop)
    if time_range[1] is not None:
        stop = min(max(first, first_index_from(time_range[1], start_ns, rate_hz)), stop)
    return first, stop


def to_ns(time: datetime) -> int:
    """Return UTC nanoseconds since 1970; a time without a zone is UTC."""
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1) * 1000
