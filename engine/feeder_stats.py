"""What a feeder counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class FeederStats:
    """What a feeder has done so far.

    Attributes:
        in_flight: Calls that the engine is busy with.
        waiting: Distinct requests that wait for a slot.
        sent: Calls made.
        answered: Calls that ended with a response without error.
        failed: Calls that ended with an error or an exception.
        cancelled: Calls that ended because nobody waited any more, or because the run was stopped.
        shared: Responses handed out that cost nothing: fanned out or from the cache.
        switches: Changes of turn between batching classes.
        prompt_tokens: Of all calls, as the engine reported them.
        cached_tokens: Of all calls, as the engine reported them.
        output_tokens: Of all calls, as the engine reported them.
        busy_seconds: Time with at least one call in flight.
        slot_seconds: Calls in flight, integrated over time; over `busy_seconds` it is their mean number.
    """

    in_flight: int = 0
    waiting: int = 0
    sent: int = 0
    answered: int = 0
    failed: int = 0
    cancelled: int = 0
    shared: int = 0
    switches: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    busy_seconds: float = 0.0
    slot_seconds: float = 0.0

    @classmethod
    def total(cls, stats: Iterable[FeederStats]) -> FeederStats:
        """Add up the counters of several feeders."""
        snapshots = list(stats)
        return cls(**{field.name: sum(getattr(item, field.name) for item in snapshots) for field in fields(cls)})
