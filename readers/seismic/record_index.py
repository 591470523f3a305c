"""Where each record of a MiniSEED file lies, and what time it holds, without decoding it.

Nearly every file is MiniSEED 2 with records of one length. Their headers are read here with a few array operations,
because libmseed's list of records costs as much per record in Python as decoding it, and a sparse window needs no
more than this. Every other file (MiniSEED 3, mixed lengths, stray bytes, unusual blockettes) goes through pymseed.
The tests hold both ways against each other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from s1batch.readers.seismic.components import channel_id
from s1batch.readers.seismic.header_blocks import HEAD_BYTES, TEXT, HeaderBlock, read_headers, record_layout
from s1batch.readers.seismic.record_headers import HEADER_BYTES, find_record, is_control_header


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordIndex:
    """The data records of one file, in the order of the file; all arrays are as long as there are records.

    Attributes:
        channels: The channels, as "NET.STA.LOC.CHA".
        channel: For each record, its place in `channels`.
        offset: Where it begins in the file.
        length: Its bytes.
        start_ns: Time of its first sample.
        rate_hz: Its sampling rate.
        count: How many samples it holds.
        unreadable: Byte ranges of the file that belong to no whole record that can be read.
        metadata_bytes: Bytes of control headers (full SEED volumes), which hold no samples.
        logs: Channel, start in ns and samples of records that are no time series: text, or without a rate.
    """

    channels: tuple[str, ...]
    channel: NDArray[np.int64]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    start_ns: NDArray[np.int64]
    rate_hz: NDArray[np.float64]
    count: NDArray[np.int64]
    unreadable: tuple[tuple[int, int], ...] = ()
    metadata_bytes: int = 0
    logs: tuple[tuple[str, int, int], ...] = ()


def index_records(path: str, fd: int) -> RecordIndex:
    """Return the records of an open MiniSEED file.

    Args:
        path: Its name, for pymseed and for messages.
        fd: Descriptor opened for reading; its position is not used.

    Raises:
        OSError: The file cannot be read.
    """
    index = index_uniform(fd)
    return index if index is not None else index_any(path)


def index_any(path: str) -> RecordIndex:
    """Return the records as pymseed reads them one by one, going on at the next record behind unreadable bytes.

    Raises:
        OSError: The file cannot be read.
    """
    import pymseed

    rows: list[tuple[int, int, int, float, int, str]] = []
    logs: list[tuple[str, int, int]] = []
    unreadable: list[tuple[int, int]] = []
    size = os.path.getsize(path)
    offset, metadata_bytes = 0, 0
    while offset < size:
        try:
            with pymseed.MS3Record.from_file(path, start_byte_offset=offset) as records:
                for record in records:
                    length, count, rate_hz = record.reclen, record.samplecnt, record.samprate
                    if count > 0:
                        start_ns, channel = record.starttime, channel_of(record.sourceid)
                        if rate_hz > 0 and record.encoding != TEXT:
                            rows.append((offset, length, start_ns, rate_hz, count, channel))
                        else:
                            logs.append((channel, start_ns, count))
                    offset += length
        except (pymseed.MiniSEEDError, UnicodeDecodeError):
            pass  # what stopped the reader, a channel name that is no text too, is accounted for below, as bytes
        if offset >= size:
            break
        following = find_record(path, offset + 1, size)
        stop = size if following is None else following
        with open(path, "rb") as stream:
            stream.seek(offset)
            is_metadata = is_control_header(stream.read(HEADER_BYTES))
        if is_metadata:
            metadata_bytes += stop - offset
        elif unreadable and unreadable[-1][1] == offset:
            unreadable[-1] = (unreadable[-1][0], stop)
        else:
            unreadable.append((offset, stop))
        offset = stop
    channels = tuple(dict.fromkeys(row[5] for row in rows))
    numbers = {channel: number for number, channel in enumerate(channels)}
    return RecordIndex(
        channels=channels,
        channel=np.array([numbers[row[5]] for row in rows], np.int64),
        offset=np.array([row[0] for row in rows], np.int64),
        length=np.array([row[1] for row in rows], np.int64),
        start_ns=np.array([row[2] for row in rows], np.int64),
        rate_hz=np.array([row[3] for row in rows], np.float64),
        count=np.array([row[4] for row in rows], np.int64),
        unreadable=tuple(unreadable),
        metadata_bytes=metadata_bytes,
        logs=tuple(logs),
    )


def index_uniform(fd: int) -> RecordIndex | None:
    """Return the records of a MiniSEED 2 file whose records are all alike, or None when they are not.

    Alike means: one length, one byte order, the same blockettes at the same places. The last record may be cut off.
    """
    head = os.pread(fd, HEAD_BYTES, 0)
    layout = record_layout(head)
    if layout is None:
        return None
    record_bytes = layout.record_bytes
    size = os.fstat(fd).st_size
    records, cut_off = divmod(size, record_bytes)
    if not records:
        return None
    if cut_off and record_layout(os.pread(fd, HEAD_BYTES, size - cut_off)) not in (None, layout):
        return None
    channel, start_ns, count = (np.empty(records, np.int64) for _ in range(3))
    is_series = np.empty(records, np.bool_)
    rates_hz: list[NDArray[np.float64]] = []
    examples: dict[bytes, int] = {}
    read = 0
    # Some thousand records at a time, so that no array of the whole file is made on the way.
    for first, headers in read_headers(fd, records, layout, head):
        found_hz = headers.rates_hz() if headers.is_valid() else None
        if found_hz is None:
            return None
        block = slice(first, first + len(headers))
        channel[block] = _channel_numbers(headers, first, examples)
        start_ns[block] = headers.starts_ns()
        count[block] = headers.counts()
        rates_hz.append(found_hz)
        is_series[block] = (found_hz > 0) & ~headers.are_text()
        read = first + len(headers)
    if read != records:
        return None
    spelled = _channel_ids(fd, record_bytes, list(examples.values()))
    if spelled is None:
        return None
    channels = tuple(dict.fromkeys(spelled))
    if len(channels) < len(spelled):
        channel = np.array([channels.index(name) for name in spelled], np.int64)[channel]
    rate_hz, is_filled = _joined(rates_hz), count > 0
    logs = np.flatnonzero(is_filled & ~is_series)
    is_series &= is_filled
    # Nearly always that is all of them, and nothing needs to be copied.
    keep = slice(None) if is_series.all() else is_series
    return RecordIndex(
        channels=channels,
        channel=channel[keep],
        offset=np.arange(0, records * record_bytes, record_bytes, dtype=np.int64)[keep],
        length=np.broadcast_to(np.int64(record_bytes), int(np.count_nonzero(is_series))),
        start_ns=start_ns[keep],
        rate_hz=rate_hz[keep],
        count=count[keep],
        unreadable=((size - cut_off, size),) if cut_off else (),
        logs=tuple((channels[channel[row]], int(start_ns[row]), int(count[row])) for row in logs),
    )


def _joined(blocks: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return blocks as one array; where all hold one value it is kept once."""
    values = {float(block[0]) for block in blocks}
    if len(values) == 1 and all(block.strides == (0,) for block in blocks):
        return np.broadcast_to(blocks[0][0], sum(map(len, blocks)))
    return np.concatenate(blocks)


def _channel_numbers(headers: HeaderBlock, first: int, examples: dict[bytes, int]) -> NDArray[np.int64]:
    """Number the distinct codes of a file; `examples` keeps a record that has it for each, in the order of numbers."""
    changes = headers.turns
    known = {codes: number for number, codes in enumerate(examples)}
    runs = np.empty(len(changes), np.int64)
    for place, row in enumerate(changes):
        codes = headers.codes(row)
        if codes not in known:
            known[codes] = len(known)
            examples[codes] = first + row
        runs[place] = known[codes]
    return np.repeat(runs, np.diff([*changes, len(headers)]))


def _channel_ids(fd: int, record_bytes: int, examples: list[int]) -> tuple[str, ...] | None:
    """Return "NET.STA.LOC.CHA" of the given records, spelled as pymseed spells it."""
    import pymseed

    try:
        return tuple(
            channel_of(record.sourceid)
            for record in (
                pymseed.MS3Record.parse(os.pread(fd, record_bytes, example * record_bytes), validate_crc=False)
                for example in examples
            )
        )
    except (pymseed.MiniSEEDError, UnicodeDecodeError):
        return None


@lru_cache(maxsize=4096)
def channel_of(source_id: str) -> str:
    """Return "NET.STA.LOC.CHA" for an FDSN source identifier; what is none becomes the channel code."""
    from pymseed import sourceid2nslc

    try:
        return channel_id(*sourceid2nslc(source_id))
    except ValueError:
        return channel_id("", "", "", source_id)
