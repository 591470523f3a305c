"""The lineage columns of the sensors reader: where the samples of a row come from and what was done to them."""

from __future__ import annotations

from typing import Any

from s1batch.columns import Column
from s1batch.records import Chunk


def lineage_columns() -> tuple[Column, ...]:
    """Return the columns that every record of the sensors reader fills."""
    import pyarrow as pa

    texts, numbers = pa.list_(pa.string()), pa.list_(pa.int64())
    return (
        Column(name="variable", type=pa.string(), doc="array in its store, with its group"),
        Column(name="channels", type=texts, doc="name of each channel of the series"),
        Column(name="units", type=pa.string(), doc="unit of the values as the array states it"),
        Column(name="long_name", type=pa.string(), doc="what the array holds, in words (long_name or standard_name)"),
        Column(name="coordinates", type=pa.string(), doc="labels and positions of the channels, as JSON"),
        Column(
            name="rate_hz", type=pa.float64(), doc="recorded sampling rate (of the even grid, where resampled) in Hz"
        ),
        Column(name="rate_sent_hz", type=pa.float64(), doc="sampling rate of the series as sent, in Hz"),
        Column(
            name="decimation", type=pa.int64(), doc="windows too long for the engine are sent at 1/this of the rate"
        ),
        Column(name="steps", type=pa.int64(), doc="samples per channel as sent, padding included"),
        Column(name="nan_frac", type=pa.float64(), doc="share of the values that were missing and replaced, 0-1"),
        Column(name="gap_frac", type=pa.float64(), doc="share of the grid that was interpolated over gaps, 0-1"),
        Column(name="pad_frac", type=pa.float64(), doc="share of the window that is zeros behind the data, 0-1"),
        Column(name="absent_frac", type=pa.float64(), doc="share in chunks that the store does not hold (filled), 0-1"),
        Column(name="fill", type=pa.string(), doc="channels that are all zero because the window has no value of them"),
        Column(name="resampled", type=pa.bool_(), doc="whether an uneven axis was interpolated onto an even one"),
        Column(name="calendar", type=pa.string(), doc="calendar of the times where it has no place in UTC"),
        Column(name="start_text", type=pa.string(), doc="date of the first sample in that calendar"),
        Column(name="end_text", type=pa.string(), doc="date of the last sample in that calendar"),
        Column(name="core_start_ns", type=pa.int64(), doc="start of what the window alone answers for, ns since 1970"),
        Column(name="core_stop_ns", type=pa.int64(), doc="end of what the window alone answers for, ns since 1970"),
        Column(name="source_files", type=texts, doc="store that was read, below the root"),
        Column(name="source_sizes", type=numbers, doc="bytes of all its files"),
        Column(name="source_mtimes_ns", type=numbers, doc="when the newest of them changed, ns since 1970"),
    )


def empty_lineage(chunk: Chunk) -> dict[str, Any]:
    """Return the values for a chunk of which nothing is known but where it is."""
    address = chunk.inputs[0]
    return {
        "variable": address.source,
        "channels": [],
        "units": "",
        "long_name": "",
        "coordinates": "{}",
        "rate_hz": address.rate_hz,
        "rate_sent_hz": None,
        "decimation": None,
        "steps": None,
        "nan_frac": None,
        "gap_frac": None,
        "pad_frac": None,
        "absent_frac": None,
        "fill": "",
        "resampled": None,
        "calendar": "",
        "start_text": "",
        "end_text": "",
        "core_start_ns": None,
        "core_stop_ns": None,
        "source_files": [address.path],
        "source_sizes": [None],
        "source_mtimes_ns": [None],
    }
