"""What is in a waveform file, from its headers alone.

MiniSEED is taken from the same index of records, and cut into the same runs, as when it is read. Where libmseed's list
of traces shows at most one way to join the records, which is nearly always, it is the quicker way to the same answer.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pymseed import MiniSEEDError, MS3TraceList

from s1batch.errors import SourceError
from s1batch.grid import time_of
from s1batch.paths import encode_path
from s1batch.readers.seismic.compressed import is_compressed, unpacked
from s1batch.readers.seismic.detect import MSEED, detect_plain
from s1batch.readers.seismic.obspy_formats import read_traces
from s1batch.readers.seismic.record_headers import chain_is_whole, is_record
from s1batch.readers.seismic.record_index import channel_of, index_records, record_layout
from s1batch.readers.seismic.runs import fits, split_runs

_SMALL_BYTES = 1 << 20
"""Files up to this size are read into memory at once."""

_HEAD_BYTES = 128
_TEXT = 0
_TOLERANCE_NS = 4
"""Times this close to where records are joined or not are left to the index: libmseed rounds in its own way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderSegment:
    """A stretch of regularly sampled data of one channel in one file.

    Attributes:
        channel: `NET.STA.LOC.CHA`.
        start_ns: Time of the first sample.
        rate_hz: Sampling rate; 0 for records that are no time series (logs).
        samples: How many, at least 1. The last one is within half a sample of
            `start_ns + round((samples - 1) * 1e9 / rate_hz)`, see `s1batch.readers.seismic.runs.split_runs`.
    """

    channel: str
    start_ns: int
    rate_hz: float
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileScan:
    """The headers of one file.

    Attributes:
        format: ObsPy's name of the format.
        segments: What can be read; of two in one channel that overlap, the one that stands first in the file first.
        unreadable: Byte ranges of the (unpacked) file that hold no readable record.
        metadata_bytes: Bytes of control headers (full SEED volumes), which hold no samples.
    """

    format: str
    segments: tuple[HeaderSegment, ...]
    unreadable: tuple[tuple[int, int], ...] = ()
    metadata_bytes: int = 0


def scan_file(path: str, name: str | None = None) -> FileScan:
    """Read the headers of a waveform file, whatever its format.

    Args:
        path: The file; `.gz` and `.bz2` are unpacked.
        name: What messages call it.

    Raises:
        SourceError: `empty_file`, `unknown_format` or `not_readable`: nothing in it can be read.
    """
    shown = name or encode_path(path)
    try:
        if not is_compressed(path):
            return scan_quickly(path) or _scan_plain(path, shown)
        with unpacked(path, shown) as plain:
            return _scan_plain(plain, shown)
    except OSError as error:
        raise SourceError("not_readable", f"{shown} cannot be read: {error.strerror or error}") from error


def _scan_plain(path: str, shown: str) -> FileScan:
    format_name = detect_plain(path, shown)
    if format_name == MSEED:
        return scan_quickly(path) or scan_records(path, shown)
    segments = (
        HeaderSegment(channel=trace.channel, start_ns=trace.start_ns, rate_hz=trace.rate_hz, samples=trace.samples)
        for trace in read_traces(path, format_name, shown, headers_only=True)
    )
    return FileScan(format=format_name, segments=tuple(segments))


def scan_records(path: str, shown: str) -> FileScan:
    """Scan MiniSEED by its index of records.

    Args:
        path: The file, not compressed.
        shown: What messages call it.

    Raises:
        SourceError: `not_readable`: none of its records can be read.
        OSError: The file cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        index = index_records(path, descriptor)
    finally:
        os.close(descriptor)
    segments = [
        HeaderSegment(channel=channel, start_ns=run.start_ns, rate_hz=run.rate_hz, samples=run.samples)
        for number, channel in enumerate(index.channels)
        for run in split_runs(index, np.flatnonzero(index.channel == number))
    ]
    segments += [
        HeaderSegment(channel=channel, start_ns=start_ns, rate_hz=0.0, samples=samples)
        for channel, start_ns, samples in index.logs
    ]
    if index.unreadable and not segments:
        raise SourceError("not_readable", f"{shown} begins like MiniSEED, but none of its records can be read")
    return FileScan(
        format=MSEED, segments=tuple(segments), unreadable=index.unreadable, metadata_bytes=index.metadata_bytes
    )


def scan_quickly(path: str) -> FileScan | None:
    """Return the scan of a MiniSEED file with nothing odd in it, in one pass in C; None leaves it to the others.

    Raises:
        OSError: The file cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        data = os.pread(descriptor, size if size <= _SMALL_BYTES else _HEAD_BYTES, 0)
        if not is_record(data) or not _ends_with_a_record(path, descriptor, data, size):
            return None
    finally:
        os.close(descriptor)
    segments: list[HeaderSegment] = []
    ends_ns: list[int] = []
    try:
        with MS3TraceList.from_buffer(data) if size <= _SMALL_BYTES else MS3TraceList.from_file(path) as traces:
            for trace in traces:
                channel = channel_of(trace.sourceid)
                for part in trace:
                    start_ns, rate_hz, samples = part.starttime, part.samprate, part.samplecnt
                    if samples <= 0:
                        continue
                    segments.append(
                        HeaderSegment(
                            channel=channel,
                            start_ns=start_ns,
                            rate_hz=rate_hz if rate_hz > 0 else 0.0,
                            samples=samples,
                        )
                    )
                    ends_ns.append(part.endtime)
    except (MiniSEEDError, UnicodeDecodeError):
        return None
    return FileScan(format=MSEED, segments=tuple(segments)) if _is_plain(segments, ends_ns) else None


def _is_plain(segments: list[HeaderSegment], ends_ns: list[int]) -> bool:
    """Return whether the segments of each channel lie apart and on their grids, beyond doubt.

    Args:
        segments: The segments.
        ends_ns: The time of the last sample of each.
    """
    for segment, end_ns in zip(segments, ends_ns, strict=True):
        rate_hz, steps = segment.rate_hz, segment.samples - 1
        if rate_hz > 0 and steps:
            expected_ns = time_of(steps, segment.start_ns, rate_hz)
            if not fits(end_ns, expected_ns, rate_hz, _TOLERANCE_NS):
                return False
    if len(segments) == 1:
        return True
    spans = sorted(
        (segment.channel, segment.start_ns, end_ns, segment.rate_hz)
        for segment, end_ns in zip(segments, ends_ns, strict=True)
        if segment.rate_hz > 0
    )
    # What is joined lies one and a half periods apart at the most.
    return all(
        before[0] != after[0] or after[1] - before[2] > 2e9 / min(before[3], after[3])
        for before, after in pairwise(spans)
    )


def _ends_with_a_record(path: str, descriptor: int, data: bytes, size: int) -> bool:
    """Return whether the file surely ends where a record ends: libmseed passes over a cut-off tail without a word."""
    if data[:2] == b"MS":
        return chain_is_whole(path, size)
    layout = record_layout(data[:_HEAD_BYTES])
    if layout is None:
        return False
    _, length, chain = layout
    if size % length or data[chain[1000] + 4] == _TEXT:
        return False
    if len(data) == size:
        tail = data[size - length : size - length + _HEAD_BYTES]
    else:
        tail = os.pread(descriptor, _HEAD_BYTES, size - length)
    # Blockette 1000 says how long the record is.
    place = slice(chain[1000], chain[1000] + 7)
    return is_record(tail) and tail[place] == data[place]
