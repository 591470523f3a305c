"""Where each record of a MiniSEED file lies, and what time it holds, without decoding it.

Nearly every file is MiniSEED 2 with records of one length. Their headers are read here with a few array operations,
because libmseed's list of records costs as much per record in Python as decoding it, and a sparse window needs no
more than this. Every other file (MiniSEED 3, mixed lengths, stray bytes, unusual blockettes) goes through pymseed.
The tests hold both ways against each other.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from s1batch.readers.seismic.components import channel_id
from s1batch.readers.seismic.record_headers import HEADER_BYTES, find_record, is_control_header

_READ_BYTES = 1 << 22

_HEADER_BYTES = 128
_TEXT = 0
_TIME_CORRECTION_APPLIED = 0x02

_FIXED_HEADER = [
    ("sequence", "S6"),
    ("quality", "u1"),
    ("reserved", "u1"),
    ("station", "S5"),
    ("location", "S2"),
    ("channel", "S3"),
    ("network", "S2"),
    ("year", "u2"),
    ("day", "u2"),
    ("hour", "u1"),
    ("minute", "u1"),
    ("second", "u1"),
    ("unused", "u1"),
    ("fraction", "u2"),
    ("count", "u2"),
    ("factor", "i2"),
    ("multiplier", "i2"),
    ("activity", "u1"),
    ("io", "u1"),
    ("data_quality", "u1"),
    ("blockettes", "u1"),
    ("correction", "i4"),
    ("data_offset", "u2"),
    ("first_blockette", "u2"),
]
"""SEED manual 2.4, chapter 8, "Fixed Section of Data Header", 48 bytes."""


_DAYS_BEFORE_YEAR = np.arange(1900, 2101).astype(str).astype("M8[D]").astype(np.int64)
"""Days from 1970 to the first of January of each year from 1900 on."""

_U2 = {order: struct.Struct(order + "H") for order in "><"}
_U2U2 = {order: struct.Struct(order + "HH") for order in "><"}

_IS_QUALITY, _IS_BLANK, _IS_DIGIT = (
    np.isin(np.arange(256), list(letters)) for letters in (b"DRMQ", b" \0", b"0123456789")
)

_LOWEST_HZ, _HIGHEST_HZ = 1e-6, 1e6
"""Rates of blockette 100 that are taken as they are; of what lies outside, libmseed has an opinion of its own."""


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
                        if rate_hz > 0 and record.encoding != _TEXT:
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
    head = os.pread(fd, _HEADER_BYTES, 0)
    layout = record_layout(head)
    if layout is None:
        return None
    order, record_bytes, chain = layout
    size = os.fstat(fd).st_size
    records, cut_off = divmod(size, record_bytes)
    if not records:
        return None
    if cut_off and record_layout(os.pread(fd, _HEADER_BYTES, size - cut_off)) not in (None, layout):
        return None
    fields = np.dtype([(name, _ordered(kind, order)) for name, kind in _FIXED_HEADER])
    channel, start_ns, count = (np.empty(records, np.int64) for _ in range(3))
    rate_hz, has_samples, is_series = np.empty(records), np.empty(records, np.bool_), np.empty(records, np.bool_)
    examples: dict[bytes, int] = {}
    read = 0
    # Some thousand records at a time, so that no array of the whole file is made on the way.
    for first, headers in _read_headers(fd, records, record_bytes, max(chain.values()) + 8):
        fixed = headers[:, :48].copy().view(fields)[:, 0]
        if not _is_valid(headers, fixed, chain, head):
            return None
        block = slice(first, first + len(headers))
        channel[block] = _channel_numbers(headers, first, examples)
        start_ns[block] = _starts_ns(headers, fixed, chain)
        count[block] = fixed["count"]
        rates_hz = _rates_hz(headers, fixed, chain, order)
        if rates_hz is None:
            return None
        rate_hz[block] = rates_hz
        has_samples[block] = fixed["count"] > 0
        is_series[block] = has_samples[block] & (rate_hz[block] > 0) & (headers[:, chain[1000] + 4] != _TEXT)
        read = first + len(headers)
    if read != records:
        return None
    spelled = _channel_ids(fd, record_bytes, list(examples.values()))
    if spelled is None:
        return None
    channels = tuple(dict.fromkeys(spelled))
    if len(channels) < len(spelled):
        channel = np.array([channels.index(name) for name in spelled], np.int64)[channel]
    logs = np.flatnonzero(has_samples & ~is_series)
    # Nearly always that is all of them, and nothing needs to be copied.
    keep = slice(None) if is_series.all() else is_series
    return RecordIndex(
        channels=channels,
        channel=channel[keep],
        offset=(np.arange(records, dtype=np.int64) * record_bytes)[keep],
        length=np.full(int(is_series.sum()), record_bytes, np.int64),
        start_ns=start_ns[keep],
        rate_hz=rate_hz[keep],
        count=count[keep],
        unreadable=((size - cut_off, size),) if cut_off else (),
        logs=tuple((channels[channel[row]], int(start_ns[row]), int(count[row])) for row in logs),
    )


def record_layout(header: bytes) -> tuple[str, int, dict[int, int]] | None:
    """Return byte order, record length and the place of each blockette of a MiniSEED 2 record; None for any other.

    Args:
        header: The record's first 128 bytes, or all of it.
    """
    if len(header) < 64 or header[6] not in b"DRMQ":
        return None
    order = ">" if 1900 <= _U2[">"].unpack_from(header, 20)[0] <= 2100 else "<"
    if order == "<" and not 1900 <= _U2["<"].unpack_from(header, 20)[0] <= 2100:
        return None
    chain: dict[int, int] = {}
    place = _U2[order].unpack_from(header, 46)[0]
    while 48 <= place <= len(header) - 8:
        kind, following = _U2U2[order].unpack_from(header, place)
        if kind in chain:
            return None
        chain[kind] = place
        place = following if following > place else 0
    if place or 1000 not in chain or not 6 <= header[chain[1000] + 6] <= 20:
        return None
    return order, 1 << header[chain[1000] + 6], chain


def _read_headers(fd: int, records: int, record_bytes: int, wanted: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the number of a record and the first bytes (whole words of eight) of it and the following ones.

    Ends early where the file does.
    """
    wanted = min(-(-wanted // 8) * 8, record_bytes)
    at_once = max(1, min(_READ_BYTES // record_bytes, records))
    buffer = np.empty((at_once, record_bytes), np.uint8)
    for first in range(0, records, at_once):
        rows = buffer[: min(at_once, records - first)]
        if os.preadv(fd, [rows.reshape(-1).data], first * record_bytes) != rows.size:
            return
        yield first, rows[:, :wanted].copy()


def _is_valid(headers: NDArray[np.uint8], fixed: NDArray[np.void], chain: dict[int, int], head: bytes) -> bool:
    """Whether every header has plausible values and the same blockettes as the first one of the file."""
    alike = np.zeros(headers.shape[1], np.uint8)
    alike[[46, 47, chain[1000] + 5, chain[1000] + 6]] = 255
    for place in chain.values():
        alike[place : place + 4] = 255
    words, masks = headers.view(np.uint64), alike.view(np.uint64)
    model = np.frombuffer(head, np.uint64, len(masks))
    if any(mask and ((words[:, k] ^ model[k]) & mask).any() for k, mask in enumerate(masks)):
        return False
    limits = ((24, 23), (25, 59), (26, 59))
    return (
        _have_valid_starts(headers)
        and all(int(headers[:, byte].max()) <= limit for byte, limit in limits)
        and int(fixed["fraction"].max()) <= 9999
        and all(
            1900 <= int(fixed["year"][row]) <= 2100 and 1 <= int(fixed["day"][row]) <= 366
            for row in _changes(headers, 20, 24)
        )
    )


def _have_valid_starts(headers: NDArray[np.uint8]) -> bool:
    """Whether every header begins as the format says: six digits or blanks, a quality letter, a blank."""
    if not _IS_QUALITY[headers[:, 6]].all() or not _IS_BLANK[headers[:, 7]].all():
        return False
    digits = headers[:, :6]
    if digits.min() >= ord("0") and digits.max() <= ord("9"):
        return True
    return bool((_IS_BLANK | _IS_DIGIT)[digits].all())


def _changes(headers: NDArray[np.uint8], first: int, stop: int) -> list[int]:
    """The records whose bytes first to stop (a multiple of four) differ from the record before, and record 0."""
    words = np.ascontiguousarray(headers[:, first:stop]).view(np.uint32)
    is_new = words[1:, 0] != words[:-1, 0]
    for column in range(1, words.shape[1]):
        is_new |= words[1:, column] != words[:-1, column]
    return [0, *(np.flatnonzero(is_new) + 1).tolist()]


def _starts_ns(headers: NDArray[np.uint8], fixed: NDArray[np.void], chain: dict[int, int]) -> NDArray[np.int64]:
    """Start times: the header's, its time correction where not yet applied, and the microseconds of blockette 1001."""
    seconds = headers[:, 24].astype(np.int64)
    for byte in (25, 26):
        seconds *= 60
        seconds += headers[:, byte]
    days = _changes(headers, 20, 24)
    numbers = _DAYS_BEFORE_YEAR[fixed["year"][days].astype(np.int64) - 1900] + fixed["day"][days].astype(np.int64) - 1
    seconds += np.repeat(numbers * 86_400, np.diff([*days, len(headers)]))
    start_ns: NDArray[np.int64] = seconds * 1_000_000_000
    start_ns += fixed["fraction"].astype(np.int64) * 100_000
    if headers[:, 40:44].any():
        pending = (fixed["activity"] & _TIME_CORRECTION_APPLIED) == 0
        start_ns += np.where(pending, fixed["correction"].astype(np.int64), 0) * 100_000
    if 1001 in chain:
        start_ns += headers[:, chain[1001] + 5].astype(np.int8).astype(np.int64) * 1000
    return start_ns


def _rates_hz(
    headers: NDArray[np.uint8], fixed: NDArray[np.void], chain: dict[int, int], order: str
) -> NDArray[np.float64] | None:
    """Sampling rates: blockette 100 where there is one, else factor and multiplier as the SEED manual combines them.

    None where a blockette 100 holds no rate.
    """
    if 100 in chain:
        actual: NDArray[np.float64] = _field(headers, chain[100] + 4, 4, order + "f4")[:, 0].astype(np.float64)
        return actual if ((actual >= _LOWEST_HZ) & (actual <= _HIGHEST_HZ)).all() else None
    rows = _changes(headers, 32, 36)
    rates = [_rate_hz(int(fixed["factor"][row]), int(fixed["multiplier"][row])) for row in rows]
    return np.repeat(np.array(rates, np.float64), np.diff([*rows, len(headers)]))


def _rate_hz(factor: int, multiplier: int) -> float:
    if factor == 0:
        return 0.0
    rate_hz = float(factor) if factor > 0 else -1 / factor
    if multiplier > 0:
        return rate_hz * multiplier
    return -rate_hz / multiplier if multiplier < 0 else rate_hz


def _field(headers: NDArray[np.uint8], place: int, size: int, kind: str) -> NDArray[np.generic]:
    field: NDArray[np.generic] = np.ascontiguousarray(headers[:, place : place + size]).view(kind)
    return field


def _ordered(kind: str, order: str) -> str:
    return kind if kind.startswith("S") else order + kind


def _channel_numbers(headers: NDArray[np.uint8], first: int, examples: dict[bytes, int]) -> NDArray[np.int64]:
    """Number the distinct codes of a file; `examples` keeps a record that has it for each, in the order of numbers."""
    changes = _changes(headers, 8, 20)
    known = {codes: number for number, codes in enumerate(examples)}
    runs = np.empty(len(changes), np.int64)
    for place, row in enumerate(changes):
        codes = headers[row, 8:20].tobytes()
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
