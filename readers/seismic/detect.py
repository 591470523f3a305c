"""What format a waveform file has, told from its content.

ObsPy's own detection would also try pickles, and unpickling runs whatever code a file holds. So s1batch never lets
ObsPy guess: MiniSEED is recognised here, other formats by asking ObsPy's `isFormat` functions, all but the one for
pickles, and every read then names its format.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points

from s1batch.errors import SourceError
from s1batch.paths import encode_path
from s1batch.readers.seismic.compressed import unpacked
from s1batch.readers.seismic.record_headers import (
    file_size,
    find_record,
    is_control_header,
    is_record,
    starts_behind_blanks,
)

MSEED = "MSEED"

_GROUP = "obspy.plugin.waveform"
_NEVER = frozenset({MSEED, "PICKLE"})
_HEAD_BYTES = 128
_DAMAGED_START_BYTES = 1 << 16


def detect_format(path: str) -> str:
    """Return ObsPy's name of a file's format: MSEED, SAC, GSE2, KNET, SEGY, ...

    Args:
        path: The file; with `.gz` or `.bz2` at the end of its name, what it unpacks to counts.

    Raises:
        SourceError: `empty_file`, `not_readable` or `unknown_format`.
    """
    with unpacked(path) as plain:
        return detect_plain(plain, encode_path(path))


def detect_plain(path: str, shown: str) -> str:
    """Return the format of a file that is not compressed.

    Args:
        path: The file.
        shown: What messages call it.

    Raises:
        SourceError: `empty_file`, `not_readable` or `unknown_format`.
    """
    try:
        size = file_size(path)
        with open(path, "rb") as stream:
            head = stream.read(_HEAD_BYTES)
        if size == 0 or not head:
            raise SourceError("empty_file", f"{shown} is empty")
        if _is_miniseed(path, head, size):
            return MSEED
        for format_name, check in _checks():
            if _accepts(check, path):
                return format_name
    except OSError as error:
        raise SourceError("not_readable", f"{shown} cannot be opened: {error.strerror or error}") from error
    raise SourceError("unknown_format", f"{shown} is in no waveform format that is known; leave it out of the paths")


def _is_miniseed(path: str, head: bytes, size: int) -> bool:
    if is_record(head):
        return True
    if is_control_header(head):
        return find_record(path, 0, size) is not None
    if not head.strip(b" \x00"):
        return starts_behind_blanks(path)
    # The start may be damaged; this comes before ObsPy's checks because some of them take nearly anything.
    return find_record(path, 0, min(size, _DAMAGED_START_BYTES)) is not None


@cache
def _checks() -> tuple[tuple[str, Callable[[str], bool]], ...]:
    from obspy.core.util.base import WAVEFORM_PREFERRED_ORDER

    known = {point.name for point in entry_points(group=_GROUP)} - _NEVER
    order = [name for name in WAVEFORM_PREFERRED_ORDER if name in known]
    order += sorted(known.difference(order))
    found = []
    for name in order:
        for point in entry_points(group=f"{_GROUP}.{name}", name="isFormat"):
            found.append((name, point.load()))
            break
    return tuple(found)


def _accepts(check: Callable[[str], bool], path: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return bool(check(path))
        except Exception:  # noqa: BLE001 - a plug-in that trips over foreign bytes has said that they are not its format
            return False
