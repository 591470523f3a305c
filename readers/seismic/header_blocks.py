"""The headers of MiniSEED 2 records that are all of one kind, some thousand at a time, in array operations.

A block of headers is kept as columns of eight bytes, so that every operation runs along contiguous memory.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HEAD_BYTES = 128
"""How much of a record `record_layout` looks at."""

TEXT = 0
"""The encoding of records that hold text."""

_READ_BYTES = 1 << 19
"""What is read at once: it stays in the processor's cache until its headers are taken out."""

_BLOCK_RECORDS = 1 << 13
"""How many headers are looked at together."""

_TIME_CORRECTION_APPLIED = 0x02

_QUALITY, _BLANK, _ACTIVITY, _HOUR, _MINUTE, _SECOND = 6, 7, 36, 24, 25, 26
_YEAR, _DAY, _FRACTION, _COUNT, _FACTOR, _MULTIPLIER, _CORRECTION = 20, 22, 28, 30, 32, 34, 40
"""Places of fields: SEED manual 2.4, chapter 8, "Fixed Section of Data Header", 48 bytes."""

CODES = (8, 20)
"""Where station, location, channel and network stand; year and day of the year fill their second word."""

_DAYS_BEFORE_YEAR = np.arange(1900, 2101).astype(str).astype("M8[D]").astype(np.int64)
"""Days from 1970 to the first of January of each year from 1900 on."""

_U2 = {order: struct.Struct(order + "H") for order in "><"}
_U2U2 = {order: struct.Struct(order + "HH") for order in "><"}

_IS_QUALITY, _IS_BLANK, _IS_DIGIT = (
    np.isin(np.arange(256), list(letters)) for letters in (b"DRMQ", b" \0", b"0123456789")
)
_HIGH_HALVES, _THREES, _SIXES = (
    np.frombuffer(byte * 6 + b"\0\0", np.uint64)[0] for byte in (b"\xf0", b"\x30", b"\x06")
)

_ENDS = np.frombuffer(b"\0" * 6 + b"\xff" * 2, np.uint64)[0]

_LOWEST_HZ, _HIGHEST_HZ = 1e-6, 1e6
"""Rates of blockette 100 that are taken as they are; of what lies outside, libmseed has an opinion of its own."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What records of one kind share.

    Attributes:
        order: Byte order, `>` or `<`.
        record_bytes: Length of each.
        chain: The place of each blockette, by its number; 1000 is always there.
    """

    order: str
    record_bytes: int
    chain: dict[int, int]


def record_layout(header: bytes) -> Layout | None:
    """Return the layout of a MiniSEED 2 record; None for any other.

    Args:
        header: The record's first 128 bytes, or all of it.
    """
    if len(header) < 64 or header[_QUALITY] not in b"DRMQ":
        return None
    order = ">" if 1900 <= _U2[">"].unpack_from(header, _YEAR)[0] <= 2100 else "<"
    if order == "<" and not 1900 <= _U2["<"].unpack_from(header, _YEAR)[0] <= 2100:
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
    return Layout(order, 1 << header[chain[1000] + 6], chain)


class HeaderBlock:
    """The headers of neighbouring records.

    Args:
        words: Shape (words of eight bytes, records).
        layout: That of the first record of the file.
        head: That record's first bytes.
    """

    __slots__ = ("_head", "_layout", "_turns", "_words")

    def __init__(self, words: NDArray[np.uint64], layout: Layout, head: bytes) -> None:
        self._words = words
        self._layout = layout
        self._head = head
        # Codes and date stand side by side, so one comparison finds where either changes.
        is_new = (words[1, 1:] != words[1, :-1]) | (words[2, 1:] != words[2, :-1])
        self._turns = [0, *(np.flatnonzero(is_new) + 1).tolist()]

    def __len__(self) -> int:
        return int(self._words.shape[1])

    def is_valid(self) -> bool:
        """Return whether every header has plausible values and the same blockettes as the first one of the file."""
        chain, words = self._layout.chain, self._words
        alike = np.zeros(8 * len(words), np.uint8)
        alike[[46, 47, chain[1000] + 5, chain[1000] + 6]] = 255
        for place in chain.values():
            alike[place : place + 4] = 255
        model = np.frombuffer(self._head, np.uint64, len(words))
        for k, mask in enumerate(alike.view(np.uint64)):
            if mask and ((words[k] ^ model[k]) & mask).any():
                return False
        limits = ((_HOUR, 23), (_MINUTE, 59), (_SECOND, 59))
        years, days = self._two_bytes(_YEAR), self._two_bytes(_DAY)
        return (
            self._begin_as_records()
            and all(int(self._byte(place).max()) <= limit for place, limit in limits)
            and int(self._two_bytes(_FRACTION).max()) <= 9999
            and all(1900 <= int(years[row]) <= 2100 and 1 <= int(days[row]) <= 366 for row in self._turns)
        )

    @property
    def turns(self) -> list[int]:
        """Record 0, and those whose codes or whose day are not those of the one before."""
        return self._turns

    def codes(self, row: int) -> bytes:
        """Return station, location, channel and network of a record, as they stand there."""
        return self._words[:, row].tobytes()[slice(*CODES)]

    def counts(self) -> NDArray[np.uint16]:
        """Return how many samples each record holds."""
        return self._two_bytes(_COUNT)

    def are_text(self) -> NDArray[np.bool_]:
        """Return which records hold text."""
        found: NDArray[np.bool_] = self._byte(self._layout.chain[1000] + 4) == TEXT
        return found

    def starts_ns(self) -> NDArray[np.int64]:
        """Return start times: the header's, its correction where not yet applied, blockette 1001's microseconds."""
        chain = self._layout.chain
        seconds = self._byte(_HOUR).astype(np.int64)
        for place in (_MINUTE, _SECOND):
            seconds *= 60
            seconds += self._byte(place)
        days = self._turns
        years = self._two_bytes(_YEAR)[days].astype(np.int64)
        numbers = _DAYS_BEFORE_YEAR[years - 1900] + self._two_bytes(_DAY)[days].astype(np.int64) - 1
        seconds += np.repeat(numbers * 86_400, np.diff([*days, len(self)]))
        start_ns: NDArray[np.int64] = seconds * 1_000_000_000
        start_ns += self._two_bytes(_FRACTION) * np.int64(100_000)
        if self._aligned(_CORRECTION, 4, "u4").any():
            correction = self._aligned(_CORRECTION, 4, self._layout.order + "i4").astype(np.int64)
            pending = (self._byte(_ACTIVITY) & _TIME_CORRECTION_APPLIED) == 0
            start_ns += np.where(pending, correction, 0) * 100_000
        if 1001 in chain:
            start_ns += self._byte(chain[1001] + 5).view(np.int8) * np.int64(1000)
        return start_ns

    def rates_hz(self) -> NDArray[np.float64] | None:
        """Return sampling rates: blockette 100 where there is one, else the header's, as the SEED manual combines them.

        None where a blockette 100 holds no rate. Where all are one rate it is kept once, as an array without a stride.
        """
        chain, order = self._layout.chain, self._layout.order
        if 100 in chain:
            place = chain[100] + 4
            parts = np.stack([self._byte(place + k) for k in range(4)], axis=1)
            actual: NDArray[np.float64] = parts.view(order + "f4")[:, 0].astype(np.float64)
            if not ((actual >= _LOWEST_HZ) & (actual <= _HIGHEST_HZ)).all():
                return None
            return np.broadcast_to(actual[0], len(self)) if (actual == actual[0]).all() else actual
        both = self._aligned(_FACTOR, 4, "u4")
        rows = [0, *(np.flatnonzero(both[1:] != both[:-1]) + 1).tolist()]
        factors = self._aligned(_FACTOR, 2, order + "i2")
        multipliers = self._aligned(_MULTIPLIER, 2, order + "i2")
        rates = np.array([_rate_hz(int(factors[row]), int(multipliers[row])) for row in rows])
        if len(rates) == 1:
            return np.broadcast_to(rates[0], len(self))
        return np.repeat(rates, np.diff([*rows, len(self)]))

    def _begin_as_records(self) -> bool:
        """Whether every header begins as the format says: six digits or blanks, a quality letter, a blank."""
        first, quality, blank = self._words[0], self._byte(_QUALITY), self._byte(_BLANK)
        if ((first & _ENDS) == (first[0] & _ENDS)).all():
            quality, blank = quality[:1], blank[:1]  # nearly always they are all the same
        if not _IS_QUALITY[quality].all() or not _IS_BLANK[blank].all():
            return False
        if ((first & _HIGH_HALVES) == _THREES).all() and (((first + _SIXES) & _HIGH_HALVES) == _THREES).all():
            return True
        return all(bool((_IS_BLANK | _IS_DIGIT)[self._byte(place)].all()) for place in range(6))

    def _aligned(self, place: int, size: int, kind: str) -> NDArray[np.generic]:
        """A field of 1, 2 or 4 bytes at a multiple of its size."""
        found: NDArray[np.generic] = self._words[place // 8].view(kind)[place % 8 // size :: 8 // size]
        return found

    def _byte(self, place: int) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = self._words[place // 8].view(np.uint8)[place % 8 :: 8]
        return found

    def _two_bytes(self, place: int) -> NDArray[np.uint16]:
        found: NDArray[np.uint16] = self._words[place // 8].view(self._layout.order + "u2")[place % 8 // 2 :: 4]
        return found


def read_headers(descriptor: int, records: int, layout: Layout, head: bytes) -> Iterator[tuple[int, HeaderBlock]]:
    """Yield the number of a record, and the headers of it and the following ones, until the file ends.

    All blocks lie in the same memory: one is good until the next is asked for.

    Args:
        descriptor: The file; its position is not used.
        records: How many there are.
        layout: That of the first record.
        head: The first record's first bytes.
    """
    record_bytes = layout.record_bytes
    words = min(-(-(max(layout.chain.values()) + 8) // 8), record_bytes // 8)
    at_once = max(1, min(_READ_BYTES // record_bytes, records))
    buffer = np.empty((at_once, record_bytes // 8), np.uint64)
    memory = np.empty(words * min(_BLOCK_RECORDS, records), np.uint64)
    for first in range(0, records, _BLOCK_RECORDS):
        columns = memory[: words * min(_BLOCK_RECORDS, records - first)].reshape(words, -1)
        for place in range(0, columns.shape[1], at_once):
            rows = buffer[: min(at_once, columns.shape[1] - place)]
            if os.preadv(descriptor, [rows.reshape(-1).data], (first + place) * record_bytes) != rows.nbytes:
                return
            columns[:, place : place + len(rows)] = rows[:, :words].T
        yield first, HeaderBlock(columns, layout, head)


def _rate_hz(factor: int, multiplier: int) -> float:
    if factor == 0:
        return 0.0
    rate_hz = float(factor) if factor > 0 else -1 / factor
    if multiplier > 0:
        return rate_hz * multiplier
    return -rate_hz / multiplier if multiplier < 0 else rate_hz
