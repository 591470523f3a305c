"""What the bytes of a JPEG, PNG or WebP say about it: format, size, and whether it may pass as it is; no decoder.

Parsed here rather than by Pillow, which takes as long to open an image as it takes to read and encode its bytes.

Sources: ITU-T T.81 (JPEG), EXIF 2.3, PNG third edition, RFC 9649 (WebP).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_SIZES = frozenset((0xC0, 0xC1, 0xC2))
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ANIMATION, _EXIF, _ALPHA, _ICC = 0x02, 0x08, 0x10, 0x20
"""Flags of an extended WebP."""

_STANDALONE = frozenset((0x01, *range(0xD0, 0xD8)))


@dataclass(frozen=True, slots=True)
class Header:
    """A JPEG, PNG or WebP.

    Attributes:
        format: `jpeg`, `png` or `webp`.
        width: Columns as stored.
        height: Rows as stored.
        plain: Whether it is of 8-bit grey or RGB, upright, of one frame, without transparency and in sRGB.
        orientation: EXIF's number, 1 to 8.
        lossy: Whether it was compressed with loss.
        deep: Whether it has 16 bits.
        animated: Whether it may have several frames.
    """

    format: str
    width: int
    height: int
    plain: bool
    orientation: int = 1
    lossy: bool = False
    deep: bool = False
    animated: bool = False

    @property
    def mime(self) -> str:
        """Its media type."""
        return f"image/{self.format}"

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height as it is seen."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_header(data: bytes) -> Header | None:
    """Read the beginning of a file; None when it is another format, or the header does not end within the bytes."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data.startswith(PNG_MAGIC):
            return _png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
    except (struct.error, IndexError):
        pass
    return None


def ends_well(data: bytes, header: Header) -> bool:
    """Return whether a whole file ends as its format demands; if not, it may be cut off, or go on with other things."""
    if header.format == "jpeg":
        return data.endswith(b"\xff\xd9")
    if header.format == "png":
        return data.endswith(b"\x00\x00\x00\x00IEND\xaeB`\x82")
    return int.from_bytes(data[4:8], "little") + 8 in (len(data), len(data) - 1)


def is_srgb(profile: bytes) -> bool:
    """Return whether a colour profile calls itself sRGB, in its first kilobytes."""
    head = profile[:4096]
    return b"sRGB" in head or "sRGB".encode("utf-16-be") in head


def _jpeg(data: bytes) -> Header | None:
    place, orientation, plain = 2, 1, True
    while True:
        while data[place] == 0xFF and data[place + 1] == 0xFF:
            place += 1  # fill bytes
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker in _STANDALONE:
            place += 2
            continue
        length = data[place + 2] << 8 | data[place + 3]
        body = place + 4
        if marker in _JPEG_FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, body)
            if not width or not height:
                return None
            simple = marker in _JPEG_SIZES and bits == 8 and channels in (1, 3)
            plain = plain and simple and orientation == 1
            return Header("jpeg", width, height, plain, orientation, lossy=True, deep=bits > 8)
        if marker == 0xE1 and data.startswith(b"Exif\0\0", body):
            orientation = _orientation(data[body + 6 : place + 2 + length])
        elif marker == 0xE2 and data.startswith(b"ICC_PROFILE\0", body):
            # Of a profile in several segments the first one has the description.
            if data[body + 12] == 1:
                plain = plain and is_srgb(data[body + 14 : place + 2 + length])
        elif marker in (0xD9, 0xDA):
            return None
        place += 2 + length


def _png(data: bytes) -> Header | None:
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR" or not width or not height:
        return None
    plain, orientation, animated = bits == 8 and colour in (0, 2), 1, False
    place = 33
    while True:
        length, kind = struct.unpack_from(">I4s", data, place)
        body = place + 8
        if kind in (b"IDAT", b"IEND"):
            break
        if kind == b"eXIf":
            orientation = _orientation(data[body : body + length])
        elif kind == b"acTL":
            animated = int.from_bytes(data[body : body + 4], "big") > 1
        elif kind == b"tRNS":
            plain = False
        elif kind == b"iCCP":
            plain = plain and b"sRGB" in data[body : body + 80].partition(b"\0")[0]
        place = body + length + 4
    plain = plain and orientation == 1 and not animated
    return Header("png", width, height, plain, orientation, deep=bits == 16, animated=animated)


def _webp(data: bytes) -> Header | None:
    kind = data[12:16]
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("webp", width & 0x3FFF, height & 0x3FFF, True, lossy=True)
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        width, height, alpha = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
        return Header("webp", width, height, not alpha)
    if kind == b"VP8X":
        flags = data[20]
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        lossy, orientation = False, 1
        place, end = 30, int.from_bytes(data[4:8], "little") + 8
        while place + 8 <= min(len(data), end):
            name, length = struct.unpack_from("<4sI", data, place)
            lossy = lossy or name == b"VP8 "
            if name == b"EXIF":
                orientation = _orientation(data[place + 8 : place + 8 + length].removeprefix(b"Exif\0\0"))
            place += 8 + length + length % 2
        if flags & _EXIF and place < end:
            return None  # it stands behind the pixels
        plain = not flags & (_ICC | _ALPHA | _ANIMATION) and orientation == 1
        animated = bool(flags & _ANIMATION)
        return Header("webp", width, height, plain, orientation, lossy=lossy, animated=animated)
    return None


def _orientation(exif: bytes) -> int:
    """Return EXIF's orientation from the first directory of its TIFF structure; 1 where there is none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (place,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, place)
        for number in range(min(count, 512)):
            tag, kind = struct.unpack_from(order + "HH", exif, place + 2 + 12 * number)
            if tag == 0x0112 and kind == 3:
                (value,) = struct.unpack_from(order + "H", exif, place + 10 + 12 * number)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
