"""File names as text that Parquet and JSON can hold, without loss.

A name on Linux is any bytes. Undecodable bytes become `\\xNN` and a backslash becomes `\\\\`, so that every name has
exactly one encoding and every encoding leads back to its bytes.
"""

from __future__ import annotations

import os
import re

_ESCAPE = re.compile(rb"\\(\\|x[0-9a-f]{2})")


def encode_path(path: str | os.PathLike[str]) -> str:
    """Return a name as UTF-8 text, reversibly."""
    raw = os.fsencode(path).replace(b"\\", b"\\\\")
    return raw.decode("utf-8", "backslashreplace")


def decode_path(text: str) -> str:
    """Return the name that `encode_path` was given, as the operating system's functions take it."""

    def unescape(match: re.Match[bytes]) -> bytes:
        code = match.group(1)
        return b"\\" if code == b"\\" else bytes([int(code[1:], 16)])

    return os.fsdecode(_ESCAPE.sub(unescape, text.encode("utf-8")))
