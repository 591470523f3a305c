"""Files compressed with gzip or bzip2, as plain files for as long as they are read."""

from __future__ import annotations

import bz2
import gzip
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from s1batch.errors import SourceError
from s1batch.paths import encode_path

MAX_UNPACKED_BYTES = 1 << 33
"""Most bytes that one file may unpack to (8 GiB): what is larger is taken for a bomb, and refused."""

_COPY_BYTES = 1 << 20


def is_compressed(path: str) -> bool:
    """Return whether the name says gzip or bzip2, as ObsPy does it."""
    return path.endswith((".gz", ".bz2"))


@contextmanager
def unpacked(path: str, name: str | None = None, limit_bytes: int = MAX_UNPACKED_BYTES) -> Iterator[str]:
    """Yield the name of a file with the plain content: the path itself, or a temporary file that is then removed.

    Args:
        path: The file; a name that ends in `.gz` or `.bz2` is unpacked.
        name: What messages call it.
        limit_bytes: Most bytes that may come out.

    Raises:
        SourceError: `not_readable`: it is damaged, cut off, no such file, or unpacks to more than the limit.
    """
    if not is_compressed(path):
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="s1batch-", suffix=".unpacked") as plain:
        try:
            with _open(path) as packed:
                _copy(packed, plain, limit_bytes)
        except (OSError, EOFError, zlib.error) as error:
            raise SourceError("not_readable", f"{name or encode_path(path)} cannot be unpacked: {error}") from error
        plain.flush()
        yield plain.name


def _open(path: str) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb") if path.endswith(".gz") else bz2.open(path, "rb"))


def _copy(packed: IO[bytes], plain: IO[bytes], limit_bytes: int) -> None:
    written = 0
    while block := packed.read(_COPY_BYTES):
        written += len(block)
        if written > limit_bytes:
            raise OSError(f"it unpacks to more than {limit_bytes} bytes")
        plain.write(block)
