"""What was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from s1batch.records.places import Chunk
from s1batch.records.plan import Refusal, SeriesShape
from s1batch.records.requests import ImagePart

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """A regularly sampled series.

    Attributes:
        values_TC: float32, shape (T, C): time first.
        rate_hz: Rate of these samples (after resampling).
        channels: Name of each of the C columns.
        start_ns: Time of sample 0; sample i is at `start_ns + round(i * 1e9 / rate_hz)`.
        units: Physical unit, or "counts".
    """

    values_TC: NDArray[np.float32]
    rate_hz: float
    channels: tuple[str, ...]
    start_ns: int = 0
    units: str = ""

    @property
    def shape(self) -> SeriesShape:
        """The shape without the values."""
        steps, channels = self.values_TC.shape
        return SeriesShape(steps=steps, channels=channels, rate_hz=self.rate_hz)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fields:
    """Named values with the media that belong to them: a row of a table, a passage of a paper, a tile of an image.

    Attributes:
        values: Plain values by name; what a prompt template may use.
        images: The images, in the order in which they are sent.
        series: The time series, in the order in which they are sent.
    """

    values: Mapping[str, Any]
    images: tuple[ImagePart, ...] = ()
    series: tuple[Series, ...] = ()


Payload = Series | Fields


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """A chunk with its payload and lineage; lives on one worker, between reading and answering.

    Attributes:
        chunk: What was read.
        payload: The data; None when `refusal` says why there are none, and after `without_payload()`.
        lineage: Values of the reader's lineage columns, by name; also what a prompt template may use.
        refusal: The reader's verdict that there is nothing to ask (unreadable, too much gap, not finite ...).
    """

    chunk: Chunk
    payload: Payload | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)
    refusal: Refusal | None = None

    def without_media(self) -> Record:
        """Return the record with nothing but the plain values of its payload: no series, images or bytes."""
        if not isinstance(self.payload, Fields):
            return self.without_payload()
        plain = {name: value for name, value in self.payload.values.items() if not isinstance(value, bytes)}
        return replace(self, payload=Fields(values=plain))

    def without_payload(self) -> Record:
        """Return the record with its payload dropped: what waits for the answer needs no samples in memory."""
        return self if self.payload is None else replace(self, payload=None)
