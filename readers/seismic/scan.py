"""What is in a waveform file, from its headers alone."""

from __future__ import annotations

import glob
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from s1batch.errors import SourceError
from s1batch.grid import time_of
from s1batch.paths import encode_path
from s1batch.readers.seismic.components import channel_id, same_rate
from s1batch.readers.seismic.compressed import unpacked
from s1batch.readers.seismic.detect import MSEED, detect_plain
from s1batch.readers.seismic.record_headers import (
    HEADER_BYTES,
    chain_is_whole,
    file_size,
    find_record,
    is_control_header,
    is_record,
)

if TYPE_CHECKING:
    from pymseed import MS3TraceList

_NS = 1_000_000_000

_SAMPLES_ELSEWHERE = frozenset({"Q", "CSS", "NNSA_KB_CORE"})
"""Formats whose headers are one file and whose samples another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderSegment:
    """A stretch of regularly sampled data of one channel in one file.

    Attributes:
        channel: `NET.STA.LOC.CHA`.
        start_ns: Time of the first sample.
        rate_hz: Sampling rate; 0 for records that are no time series (logs).
        samples: How many, at least 1. Sample i is within half a sample of `start_ns + round(i * 1e9 / rate_hz)`.
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
        segments: What can be read, in the file's order or by channel and time.
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
    with unpacked(path, shown) as plain:
        format_name = detect_plain(plain, shown)
        try:
            if format_name == MSEED:
                return _scan_miniseed(plain, shown)
            return FileScan(format=format_name, segments=tuple(_scan_obspy(plain, format_name, shown)))
        except OSError as error:
            raise SourceError("not_readable", f"{shown} cannot be read: {error.strerror or error}") from error


def _scan_miniseed(path: str, name: str) -> FileScan:
    """Prefer one pass in C; take the records one by one where that pass would hide something."""
    from pymseed import MiniSEEDError, MS3TraceList

    try:
        segments = None
        if _ends_with_a_record(path):
            with MS3TraceList() as traces:
                traces.add_file(path)
                segments = _from_traces(traces)
        scan = _walk(path) if segments is None else FileScan(format=MSEED, segments=segments)
    except MiniSEEDError:
        scan = _walk(path)
    except UnicodeDecodeError as error:
        raise SourceError("not_readable", f"{name} holds a channel name that is no text: {error}") from error
    if scan.unreadable and not scan.segments:
        raise SourceError("not_readable", f"{name} begins like MiniSEED, but none of its records can be read")
    return scan


def _from_traces(traces: MS3TraceList) -> tuple[HeaderSegment, ...] | None:
    """Return the segments, or None where the times of joined records have drifted off the regular grid."""
    segments = []
    for trace in traces:
        channel = _channel_of(trace.sourceid)
        for segment in trace:
            start_ns, rate_hz, samples = segment.starttime, segment.samprate, segment.samplecnt
            if samples <= 0:
                continue
            if rate_hz > 0 and not _fits(segment.endtime, time_of(samples - 1, start_ns, rate_hz), rate_hz):
                return None
            segments.append(HeaderSegment(channel=channel, start_ns=start_ns, rate_hz=rate_hz, samples=samples))
    return tuple(segments)


def _ends_with_a_record(path: str) -> bool:
    """Return whether the file surely ends where a record ends: libmseed passes over a cut-off tail without a word."""
    from pymseed import MiniSEEDError, MS3Record

    size = file_size(path)
    with MS3Record.from_file(path) as records:
        first = records.read()
        if first is None:
            return False
        length, version = first.reclen, first.formatversion
    if version == 3:
        return chain_is_whole(path, size)
    if size % length:
        return False
    with open(path, "rb") as stream:
        stream.seek(size - length)
        tail = stream.read(length)
    try:
        return is_record(tail) and MS3Record.parse(tail).reclen == length
    except MiniSEEDError:
        return False


class _Growing:
    """A segment that further records may lengthen."""

    __slots__ = ("channel", "rate_hz", "samples", "start_ns")

    def __init__(self, channel: str, start_ns: int, rate_hz: float, samples: int) -> None:
        self.channel = channel
        self.start_ns = start_ns
        self.rate_hz = rate_hz
        self.samples = samples

    def takes(self, start_ns: int, rate_hz: float, samples: int) -> bool:
        if self.rate_hz > 0:
            if not same_rate(rate_hz, self.rate_hz):
                return False
            if not _fits(start_ns, time_of(self.samples, self.start_ns, self.rate_hz), self.rate_hz):
                return False
        elif rate_hz > 0:
            return False
        self.samples += samples
        return True


def _walk(path: str) -> FileScan:
    """Take the records one by one, find the next one behind unreadable bytes, and account for every byte."""
    from pymseed import MiniSEEDError, MS3Record

    size = file_size(path)
    finished: list[_Growing] = []
    growing: dict[str, _Growing] = {}
    unreadable: list[tuple[int, int]] = []
    metadata_bytes = 0
    offset = 0
    while offset < size:
        try:
            with MS3Record.from_file(path, start_byte_offset=offset) as records:
                for record in records:
                    offset += record.reclen
                    samples = record.samplecnt
                    if samples <= 0:
                        continue
                    source, start_ns, rate_hz = record.sourceid, record.starttime, max(record.samprate, 0.0)
                    segment = growing.get(source)
                    if segment is None or not segment.takes(start_ns, rate_hz, samples):
                        growing[source] = _Growing(_channel_of(source), start_ns, rate_hz, samples)
                        finished.append(growing[source])
        except MiniSEEDError:
            pass  # what the reader stopped at is accounted for below, as bytes
        except UnicodeDecodeError:
            pass  # a record whose channel name is no text: counted with the bytes that cannot be read
        if offset >= size:
            break
        following = find_record(path, offset + 1, size)
        stop = size if following is None else following
        with open(path, "rb") as stream:
            stream.seek(offset)
            head = stream.read(HEADER_BYTES)
        if is_control_header(head):
            metadata_bytes += stop - offset
        elif unreadable and unreadable[-1][1] == offset:
            unreadable[-1] = (unreadable[-1][0], stop)
        else:
            unreadable.append((offset, stop))
        offset = stop
    return FileScan(
        format=MSEED,
        segments=tuple(
            HeaderSegment(channel=item.channel, start_ns=item.start_ns, rate_hz=item.rate_hz, samples=item.samples)
            for item in finished
        ),
        unreadable=tuple(unreadable),
        metadata_bytes=metadata_bytes,
    )


def _scan_obspy(path: str, format_name: str, name: str) -> Iterator[HeaderSegment]:
    import obspy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # The name is escaped because ObsPy takes it for a glob.
            stream = obspy.read(glob.escape(path), format=format_name, headonly=True, check_compression=False)
        except Exception as error:
            # Some of ObsPy's readers leave their file open when they fail; it is closed with their frames.
            traceback.clear_frames(error.__traceback__)
            what = str(error).replace(path, name)
            raise SourceError("not_readable", f"{name} cannot be read as {format_name}: {what}") from error
    promised = sum(max(int(trace.stats.npts), 0) for trace in stream)
    if promised > 8 * file_size(path) and format_name not in _SAMPLES_ELSEWHERE:
        # A damaged count would otherwise become millions of chunks.
        raise SourceError("not_readable", f"{name} promises {promised} samples, more than it has bits")
    for trace in stream:
        stats = trace.stats
        rate_hz = float(stats.sampling_rate)
        if stats.npts > 0:
            yield HeaderSegment(
                channel=channel_id(stats.network, stats.station, stats.location, stats.channel),
                start_ns=stats.starttime.ns,
                rate_hz=rate_hz if 0 < rate_hz < float("inf") else 0.0,
                samples=int(stats.npts),
            )


@lru_cache(maxsize=4096)
def _channel_of(source_id: str) -> str:
    from pymseed import sourceid2nslc

    try:
        return channel_id(*sourceid2nslc(source_id))
    except ValueError:
        return channel_id("", "", "", source_id)


def _fits(time_ns: int, expected_ns: int, rate_hz: float) -> bool:
    """Return whether a time is within half a sample of where it is expected."""
    return 2 * abs(time_ns - expected_ns) * rate_hz <= _NS
