"""The series of a record as the model saw it, and where its samples are in the archive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from s1batch.errors import SourceError
from s1batch.jobs.question import number_of, value_of
from s1batch.jobs.template import series_of
from s1batch.records import Record, Series

_NO_SAMPLES = frozenset({"time_ns", "rows", "bytes", "chars", "x", "y"})
"""Dimensions of a chunk's first slice that do not count samples."""

SERIES_NOTE = (
    "The series has {{ steps }} samples{% if rate_sent_hz %} at {{ '%g'|format(rate_sent_hz) }} Hz{% endif %}"
    "{% if channels %}, channels: {{ channels|join(', ') }}{% endif %}.\n"
    "{% if long_name is defined and long_name %}What is measured: {{ long_name }}.\n{% endif %}"
    "{% if units %}Unit: {{ units }}.\n{% endif %}"
    "Values by channel: {{ statistics }}."
)
"""What differs from window to window; it follows the series. Engines normalise a series, so the model sees amplitudes
in this text only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentSeries:
    """What is known of a series without its samples; None where a record does not tell.

    Attributes:
        steps: How many samples were sent.
        data_steps: How many of them, from the first, are no padding.
        rate_hz: Their rate.
        start_ns: Time of sample 0.
        first_sample: Sample of the archive that sample 0 is; 0 where the archive is addressed by time alone.
        samples_per_step: Samples of the archive for each sample sent.
        channels: Names of the channels; empty where they are not known.
    """

    steps: int | None
    data_steps: int | None
    rate_hz: float | None
    start_ns: int | None
    first_sample: int
    samples_per_step: float
    channels: tuple[str, ...]

    @classmethod
    def of(cls, record: Record) -> SentSeries:
        """Take it from the lineage, else from values of the same names, else from the payload while it is there."""
        given = next(iter(series_of(record)), None)
        steps = number_of(record, "steps")
        rate_hz = number_of(record, "rate_sent_hz")
        if given is not None:
            steps, rate_hz = steps or given.values_TC.shape[0], rate_hz or given.rate_hz
        recorded_hz = number_of(record, "rate_hz") or rate_hz
        padded = round((steps or 0) * (number_of(record, "pad_frac") or 0.0))
        chunk = record.chunk
        indexed = chunk.dim is not None and chunk.dim not in _NO_SAMPLES
        slices = chunk.inputs[0].slices if chunk.inputs else ()
        # Arrays count entries first, and say behind it when that is.
        times = [each.start for each in slices if each.dim == "time_ns"]
        channels = value_of(record, "channels", given.channels if given is not None else ())
        return cls(
            steps=None if steps is None else int(steps),
            data_steps=None if steps is None else int(steps) - padded,
            rate_hz=rate_hz,
            start_ns=times[0] if times else None,
            first_sample=(chunk.start or 0) if indexed else 0,
            samples_per_step=recorded_hz / rate_hz if recorded_hz and rate_hz else 1.0,
            channels=tuple(map(str, channels)) if isinstance(channels, (list, tuple)) else (),
        )

    def time_ns(self, index: int) -> int | None:
        """Return the time of a sample; None where there are no times."""
        if self.start_ns is None or not self.rate_hz:
            return None
        return self.start_ns + round(index * 1e9 / self.rate_hz)

    def sample(self, index: int) -> int:
        """Return the sample of the archive that a sample is."""
        return self.first_sample + round(index * self.samples_per_step)

    def place(self, index: int) -> int:
        """Return the time of a sample in ns, or the sample of the archive where there are no times."""
        time_ns = self.time_ns(index)
        return self.sample(index) if time_ns is None else time_ns


def the_series(record: Record, kind: str) -> Series:
    """Return the series that a job asks about.

    Raises:
        SourceError: The record holds none, or several.
    """
    found = series_of(record)
    if len(found) != 1:
        many = "no series" if not found else f"{len(found)} series"
        raise SourceError("prompt_error", f"{kind} needs one series in each record; this one has {many}")
    return found[0]


def series_names(record: Record, series: Series, wanted: frozenset[str]) -> dict[str, Any]:
    """Return names for the templates: `steps`, `rate_sent_hz`, `channels`, `units`, and `statistics`: by channel the
    smallest, mean and largest value and the standard deviation, in the unit of the series."""
    names: dict[str, Any] = {
        "steps": series.values_TC.shape[0],
        "rate_sent_hz": series.rate_hz,
        "channels": list(SentSeries.of(record).channels),
        "units": series.units,
    }
    if "statistics" in wanted:
        names["statistics"] = _statistics(series)
    return names


def _statistics(series: Series) -> dict[str, dict[str, float]]:
    import numpy as np

    values_TC = series.values_TC
    with np.errstate(all="ignore"):
        columns = {
            "min": values_TC.min(axis=0),
            "mean": values_TC.mean(axis=0, dtype=np.float64),
            "max": values_TC.max(axis=0),
            "std": values_TC.std(axis=0, dtype=np.float64),
        }
    return {
        channel: {name: float(f"{column[number]:.6g}") for name, column in columns.items()}
        for number, channel in enumerate(series.channels)
    }
