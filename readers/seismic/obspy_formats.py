"""Traces of a file in any format but MiniSEED, through ObsPy; whoever plans and whoever reads calls the same function.

ObsPy's `headonly` gives the traces of a full read for all formats that it ships test files for, but these:

- REFTEK130 makes one trace of the packets of a stream where a full read makes one per gap, with other times;
- SLIST and TSPAIR believe the header's count of samples, and its type of data.

Those are read whole when they are planned. GSE1 and GSE2 headers agree, but a full read also compares a checksum: a
file whose checksum is wrong becomes rows that say so when it is read.
"""

from __future__ import annotations

import glob
import traceback
import warnings
from dataclasses import dataclass
from typing import Any

from s1batch.errors import SourceError
from s1batch.readers.seismic.components import channel_id
from s1batch.readers.seismic.record_headers import file_size

READ_WHOLE = frozenset({"REFTEK130", "SLIST", "TSPAIR"})
"""Formats whose headers alone do not tell what a full read gives."""

_SAMPLES_ELSEWHERE = frozenset({"Q", "CSS", "NNSA_KB_CORE"})
"""Formats whose headers are one file and whose samples another."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FileTrace:
    """One contiguous trace of a file.

    Attributes:
        channel: `NET.STA.LOC.CHA`.
        start_ns: Time of the first sample.
        rate_hz: Sampling rate; 0 where there is none.
        samples: How many, at least 1.
        values: The samples as ObsPy gives them; None when only headers were asked for, or when they are no numbers.
    """

    channel: str
    start_ns: int
    rate_hz: float
    samples: int
    values: Any = None


def read_traces(path: str, format: str, name: str, *, headers_only: bool) -> list[FileTrace]:
    """Return the traces of a file that hold samples, in the order of ObsPy.

    Args:
        path: The file, not compressed.
        format: ObsPy's name of its format; never left to ObsPy, whose own search executes what it takes for a pickle.
        name: What messages call it.
        headers_only: Whether the samples are left out, where the format allows it.

    Raises:
        SourceError: `not_readable` (headers) or `decode_error` (samples): ObsPy cannot read it, or it promises more
            samples than it can hold.
    """
    import obspy

    if format == "PICKLE":
        raise SourceError("unknown_format", f"{name}: a pickle is a program, not data; convert it to MiniSEED")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # The name is escaped because ObsPy takes it for a pattern.
            stream = obspy.read(
                glob.escape(path),
                format=format,
                headonly=headers_only and format not in READ_WHOLE,
                check_compression=False,
            )
        except Exception as error:  # its readers raise whatever their parsers meet
            # Some of them leave their file open when they fail; it is closed with their frames.
            traceback.clear_frames(error.__traceback__)
            what = str(error).replace(path, name)
            raise SourceError(
                "not_readable" if headers_only else "decode_error",
                f"{name} cannot be read as {format}: {type(error).__name__}: {what}",
            ) from error
    promised = sum(max(int(trace.stats.npts), 0) for trace in stream)
    if promised > 8 * file_size(path) and format not in _SAMPLES_ELSEWHERE:
        # A damaged count would otherwise become millions of chunks.
        raise SourceError("not_readable", f"{name} promises {promised} samples, more than it has bits")
    return [_trace(trace, with_values=not headers_only) for trace in stream if trace.stats.npts > 0]


def _trace(trace: Any, *, with_values: bool) -> FileTrace:
    stats = trace.stats
    rate_hz = float(stats.sampling_rate)
    is_numbers = with_values and trace.data.dtype.kind in "iuf" and len(trace.data) == stats.npts
    return FileTrace(
        channel=channel_id(stats.network, stats.station, stats.location, stats.channel),
        start_ns=stats.starttime.ns,
        rate_hz=rate_hz if 0 < rate_hz < float("inf") else 0.0,
        samples=int(stats.npts),
        values=trace.data if is_numbers else None,
    )
