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
from s1batch.readers.seismic.header_blocks import HEAD_BYTES, TEXT, Layout, record_layout
from s1batch.readers.seismic.obspy_formats import read_traces
from s1batch.readers.seismic.record_headers import chain_is_whole
from s1batch.readers.seismic.record_index import channel_of, index_records
from s1batch.readers.seismic.runs import fits, split_runs

_BLOCK_BYTES = 1 << 20
"""What is read at once: most small files as a whole."""

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
    try:
        if not is_compressed(path):
            return scan_quickly(path) or _scan_plain(path, name or encode_path(path))
        shown = name or encode_path(path)
        with unpacked(path, shown) as plain:
            return _scan_plain(plain, shown)
    except OSError as error:
        shown = name or encode_path(path)
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
        data = os.pread(descriptor, min(size, _BLOCK_BYTES), 0)
        layout = record_layout(data[:HEAD_BYTES])
        with MS3TraceList() as traces:
            if layout is not None:
                if not _add_version_2(traces, descriptor, data, size, layout):
                    return None
            elif data[:3] == b"MS\x03" and chain_is_whole(path, size):
                if len(data) == size:
                    traces.add_buffer(data)
                else:
                    traces.add_file(path)
            else:
                return None
            segments, ends_ns = _segments(traces)
    except (MiniSEEDError, UnicodeDecodeError):
        return None
    finally:
        os.close(descriptor)
    return FileScan(format=MSEED, segments=tuple(segments)) if _is_plain(segments, ends_ns) else None


def _add_version_2(traces: MS3TraceList, descriptor: int, data: bytes, size: int, layout: Layout) -> bool:
    """Add the records of a file, block by block; return whether they are all alike and end where the file does.

    libmseed passes over the rest of a file without a word when a record claims to be longer than that rest. So what
    its length is told by (the chain of blockettes up to number 1000, and the date, which tells the byte order) has to
    be the same in all records.

    Args:
        traces: Where to.
        descriptor: The file.
        data: Its start.
        size: Its length.
        layout: What `record_layout` says of its first record.
    """
    order, length, chain = layout.order, layout.record_bytes, layout.chain
    if size % length:
        return False
    places = [20, 21, 46, 47]
    for kind, place in chain.items():
        places += (place, place + 1, place + 4, place + 6) if kind == 1000 else range(place, place + 4)
        if kind == 1000:
            break
    if data[chain[1000] + 4] == TEXT:
        return False
    head = data[:HEAD_BYTES]
    high, low = (22, 23) if order == ">" else (23, 22)
    block_bytes = _BLOCK_BYTES // length * length
    data = data[:block_bytes]
    offset = 0
    while offset < size:
        if offset:
            data = os.pread(descriptor, min(size - offset, block_bytes), offset)
        records, cut_off = divmod(len(data), length)
        if cut_off or not records:
            return False  # it became shorter
        for place in places:
            if data[place::length] != head[place : place + 1] * records:
                return False
        for first, second in set(zip(data[high::length], data[low::length], strict=True)):
            if not 1 <= (first << 8 | second) <= 366:
                return False
        traces.add_buffer(data)
        offset += len(data)
    return True


def _segments(traces: MS3TraceList) -> tuple[list[HeaderSegment], list[int]]:
    """Return the segments with samples, and the time of the last sample of each."""
    segments: list[HeaderSegment] = []
    ends_ns: list[int] = []
    for trace in traces:
        channel = channel_of(trace.sourceid)
        for part in trace:
            start_ns, rate_hz, samples = part.starttime, part.samprate, part.samplecnt
            if samples <= 0:
                continue
            segments.append(
                HeaderSegment(
                    channel=channel, start_ns=start_ns, rate_hz=rate_hz if rate_hz > 0 else 0.0, samples=samples
                )
            )
            ends_ns.append(part.endtime)
    return segments, ends_ns


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
