"""Where MiniSEED records begin in a file, told from their fixed header alone.

The two tests are those of the format's definitions: version 2 (SEED manual 2.4, fixed section of the data header) has
six digits or blanks, a quality letter, a blank, and a time of day at byte 24; version 3 (FDSN miniSEED 3) has `MS`, 3
and a time of day at byte 12.
"""

from __future__ import annotations

import os
import re
import struct

HEADER_BYTES = 40

_BLOCK_BYTES = 1 << 20
_START = re.compile(rb"[0-9 \x00]{6}[DRQM][ \x00]|MS\x03", re.DOTALL)
_CONTROL = re.compile(rb"[0-9]{6}[VAST][ *]")
_V3_LENGTHS = struct.Struct("<BHI")
_CODES = re.compile(rb"[\x20-\x7e\x00]{12}")
_BLANK_BLOCK_BYTES = 128  # the smallest record
_FIRST_YEAR, _LAST_YEAR = 1900, 2200


def is_record(data: bytes, offset: int = 0) -> bool:
    """Return whether a MiniSEED 2 or 3 record can begin at this offset."""
    head = data[offset : offset + HEADER_BYTES]
    if len(head) < HEADER_BYTES or _START.match(head) is None:
        return False
    hour, minute, second = head[12:15] if head[:2] == b"MS" else head[24:27]
    return hour <= 23 and minute <= 59 and second <= 60


def is_control_header(data: bytes) -> bool:
    """Return whether the data begin with a control header of a full SEED volume (metadata, no samples)."""
    return _CONTROL.match(data) is not None


def starts_behind_blanks(path: str) -> bool:
    """Return whether blank blocks (noise records) stand at the start of a file, and then a record.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as stream:
        while block := stream.read(_BLANK_BLOCK_BYTES):
            if block.strip(b" \x00"):
                return is_record(block)
    return False


def _is_surely_record(data: bytes, offset: int) -> bool:
    """Ask more of a header that stands where none was expected: data of any kind may look a little like one."""
    if not is_record(data, offset):
        return False
    if data[offset : offset + 2] == b"MS":
        year, day = struct.unpack_from("<HH", data, offset + 8)
        return bool(_FIRST_YEAR <= year <= _LAST_YEAR and 1 <= day <= 366 and data[offset + 33] > 0)
    if _CODES.match(data, offset + 8) is None:
        return False
    dates = (struct.unpack_from(order, data, offset + 20) for order in (">HH", "<HH"))
    return any(_FIRST_YEAR <= year <= _LAST_YEAR and 1 <= day <= 366 for year, day in dates)


def chain_is_whole(path: str, size: int) -> bool:
    """Return whether MiniSEED 3 records, each as long as its header says, end just where the file does.

    Raises:
        OSError: The file cannot be read.
    """
    offset = 0
    with open(path, "rb") as stream:
        descriptor = stream.fileno()
        while offset + HEADER_BYTES <= size:
            head = os.pread(descriptor, HEADER_BYTES, offset)
            if head[:3] != b"MS\x03" or len(head) < HEADER_BYTES:
                return False
            name_bytes, extra_bytes, data_bytes = _V3_LENGTHS.unpack_from(head, 33)
            offset += HEADER_BYTES + name_bytes + extra_bytes + data_bytes
    return offset == size


def find_record(path: str, start: int, stop: int) -> int | None:
    """Return the offset of the first record header in a range of a file, or None.

    Args:
        path: The file.
        start: First offset at which a record may begin.
        stop: Offset behind the last byte that is searched.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as stream:
        while start < stop:
            stream.seek(start)
            block = stream.read(min(_BLOCK_BYTES, stop - start))
            position = 0
            while (match := _START.search(block, position)) is not None:
                if _is_surely_record(block, match.start()):
                    return start + match.start()
                position = match.start() + 1
            if len(block) < _BLOCK_BYTES:
                return None
            start += len(block) - HEADER_BYTES + 1
    return None


def file_size(path: str) -> int:
    """Return the size of a file in bytes.

    Raises:
        OSError: It is not there, or may not be looked at.
    """
    return os.stat(path).st_size
