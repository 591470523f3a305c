"""Which format a file has, from its first bytes, and what opens it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from s1batch.errors import SourceError
from s1batch.readers.images.facts import StoredImage
from s1batch.readers.images.headers import Header, read_header
from s1batch.readers.images.raster import DeepPng, RasterFile, header_by_decoder

HEAD_BYTES = 65_536
"""What is read of a JPEG, PNG or WebP to plan it; more only where its header is longer."""

LARGEST_RASTER_BYTES = 512 * 2**20
"""Bytes of a JPEG, PNG or WebP, which are held as a whole."""

_RASTERS = ("jpeg", "png", "webp")


def detect(head: bytes, name: str = "") -> str | None:
    """Return the format of a file that begins so; None when it is none that is read here.

    Args:
        head: At least its first 132 bytes, if it has so many.
        name: Its name. It only decides about DICOM without a preamble, whose first bytes could be anything.
    """
    if head[128:132] == b"DICM":
        return "dicom"  # first: what stands before it may begin as a TIFF, for programs that know no DICOM
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if head.startswith(b"SIMPLE  ="):
        return "fits"
    if name.lower().endswith((".dcm", ".dicom")) and head[:2] in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08"):
        return "dicom"
    return None


def open_to_plan(path: str, name: str, bands: Sequence[int] | None) -> StoredImage:
    """Open an image to look at its headers.

    Args:
        path: The file.
        name: What messages call it.
        bands: See `TiffFile`.

    Raises:
        SourceError: It cannot be read, or is no image.
        MissingExtra: The library that reads it is not installed.
        OSError: It cannot be opened.
    """
    with open(path, "rb", buffering=0) as file:
        head = file.read(HEAD_BYTES)
        kind = _checked(head, name)
        if kind not in _RASTERS:
            return _open_other(kind, path, bands)
        header = read_header(head)
        if header is None or header.animated:
            _check_size(os.fstat(file.fileno()).st_size)
            head += file.read()
            header = header or read_header(head) or header_by_decoder(head, kind)
    return as_raster(head, header)


def open_to_read(path: str, name: str, bands: Sequence[int] | None) -> tuple[StoredImage | bytes, os.stat_result]:
    """Open an image to read its pixels: the bytes of a JPEG, PNG or WebP, any other file opened.

    Raises:
        SourceError: It cannot be read, or is no image.
        MissingExtra: The library that reads it is not installed.
        OSError: It cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        facts = os.fstat(descriptor)
        head = os.read(descriptor, min(facts.st_size + 1, 2**20))
        kind = _checked(head, name)
        if kind in _RASTERS:
            if len(head) < facts.st_size:
                _check_size(facts.st_size)
                parts = [head]
                while part := os.read(descriptor, 2**24):
                    parts.append(part)
                head = b"".join(parts)
            return head, facts
    finally:
        os.close(descriptor)
    return _open_other(kind, path, bands), facts


def as_raster(data: bytes, header: Header) -> StoredImage:
    """Return what decodes the bytes of a JPEG, PNG or WebP."""
    return DeepPng(data, header) if header.deep and header.format == "png" else RasterFile(data, header)


def header_of(data: bytes) -> Header:
    """Return what the bytes of a JPEG, PNG or WebP say.

    Raises:
        SourceError: They are no such image.
    """
    header = read_header(data)
    return header if header is not None else header_by_decoder(data, _checked(data, ""))


def _open_other(kind: str, path: str, bands: Sequence[int] | None) -> StoredImage:
    match kind:
        case "tiff":
            from s1batch.readers.images.tiff import TiffFile

            return TiffFile(path, bands)
        case "fits":
            from s1batch.readers.images.fits import FitsFile

            return FitsFile(path)
        case _:
            from s1batch.readers.images.dicom import DicomFile

            return DicomFile(path)


def _checked(head: bytes, name: str) -> str:
    if not head:
        raise SourceError("empty_file", "the file is empty")
    kind = detect(head, name)
    if kind is None:
        raise SourceError("unknown_format", "the file is no JPEG, PNG, WebP, TIFF, FITS or DICOM")
    return kind


def _check_size(size: int) -> None:
    if size > LARGEST_RASTER_BYTES:
        raise SourceError("not_readable", f"the file has {size:,} bytes; at most {LARGEST_RASTER_BYTES:,} are read")
