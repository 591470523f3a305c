"""TIFF of any kind through tifffile, whose decoders alone were right in every case that was tried.

Only the tiles or strips that a box touches are read and decoded. Pixels of at most 8 bits are shown as they are:
palettes, CMYK, YCbCr and Lab become RGB, transparency is laid over white. Of several bands the chosen ones are shown.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from s1batch.errors import SourceError
from s1batch.readers.extras import need
from s1batch.readers.images.facts import PageFacts, PageStatus, Values
from s1batch.readers.images.geotiff import pixel_size, read_crs, read_nodata, read_transform
from s1batch.readers.images.quiet import hush
from s1batch.readers.images.raster import turned_array
from s1batch.readers.images.tiff_colour import shown_colours
from s1batch.readers.images.tiles import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT_BYTES = 96 * 2**20
"""Decoded tiles and strips that are kept: neighbouring boxes touch the same ones."""

_LOSSY = frozenset({6, 7, 33007, 34892, 50001})
"""Codes of compression that photographs have: JPEG of several kinds, WebP."""

_MM_PER_UNIT = {2: 25.4, 3: 10.0}
_REDUCED, _MASK = 1, 4


class TiffFile:
    """An open TIFF.

    Args:
        path: The file.
        bands: Which bands are shown of those with several; None: the first three, or the first.

    Raises:
        MissingExtra: tifffile is not installed.
        SourceError: The file is no TIFF that can be read.
    """

    format = "tiff"

    def __init__(self, path: str, bands: Sequence[int] | None = None) -> None:
        tifffile = need("tifffile", "images", "TIFF files")
        hush("tifffile")
        self._damage = (tifffile.TiffFileError, ValueError, OSError, RuntimeError, IndexError, KeyError, TypeError)
        self._bands = bands
        self._kept: OrderedDict[tuple[int, int], NDArray[Any] | None] = OrderedDict()
        self._kept_bytes = 0
        self._page: tuple[int, Any] | None = None
        try:
            self._size = os.stat(path).st_size
            self._tiff = tifffile.TiffFile(path)
            self._stacked = _stacked_frames(self._tiff)
        except self._damage as error:
            raise SourceError("not_readable", f"the TIFF cannot be read: {error}") from error

    def pages(self) -> Iterator[PageFacts]:
        """Yield the pages; smaller copies and masks of others say so."""
        try:
            if self._stacked:
                for number in range(self._stacked):
                    yield self.facts(number)
                return
            for page in self._tiff.pages:
                yield self._facts(page)
        except self._damage as error:
            raise SourceError("not_readable", f"a page of the TIFF cannot be read: {error}") from error

    def facts(self, page: int) -> PageFacts:
        """Return what the tags of a page say."""
        return self._facts(self._at(page))

    def values(self, page: int, box: Box) -> Values:
        """Return a box of a page."""
        found = self._at(page)
        try:
            if (orientation := _orientation(found)) > 1:
                whole = turned_array(self._stored(page, found, Box(0, 0, *_size(found))), orientation)
                stored = whole[box.y : box.y + box.height, box.x : box.x + box.width]
            else:
                stored = self._stored(page, found, box)
            return shown_colours(found, stored, self._bands, read_nodata(found.tags))
        except SourceError:
            raise
        except MemoryError as error:
            raise SourceError("decode_error", "a tile or strip of the TIFF does not fit into memory") from error
        except Exception as error:  # the codecs have errors of their own
            raise SourceError("decode_error", f"page {page} of the TIFF cannot be decoded: {error}") from error

    def close(self) -> None:
        """Close the file and forget what was decoded."""
        self._kept.clear()
        self._page = None
        self._tiff.close()

    def _at(self, page: int) -> Any:
        if self._page is None or self._page[0] != page:
            try:
                self._page = (page, self._tiff.pages[0 if self._stacked else page])
            except self._damage as error:
                raise SourceError("source_changed", f"the TIFF has no page {page} any more: {error}") from error
        return self._page[1]

    def _facts(self, page: Any) -> PageFacts:
        if page.dtype is None or page.samplesperpixel < 1 or page.imagedepth != 1:
            raise SourceError("not_readable", "pixels of a type that cannot be shown")
        width, height = _size(page)
        if not width or not height:
            raise SourceError("not_readable", "a page of the TIFF has no pixels")
        orientation = _orientation(page)
        decode_pixels = width * height
        if orientation == 1:
            if page.is_tiled:
                decode_pixels = page.tilewidth * page.tilelength
            elif _is_plain(page):
                decode_pixels = width
            else:
                decode_pixels = min(page.rowsperstrip, height) * width
        transform = read_transform(page.tags) if orientation == 1 else None
        size, unit = (pixel_size(transform), "") if transform else _resolution(page)
        seen = (height, width) if orientation >= 5 else (width, height)
        status: PageStatus = (
            "mask" if page.subfiletype & _MASK else "reduced" if page.subfiletype & _REDUCED else "image"
        )
        return PageFacts(
            width=seen[0],
            height=seen[1],
            decode_pixels=decode_pixels,
            lossy=int(page.compression) in _LOSSY,
            status=status,
            crs=read_crs(page.tags),
            transform=transform,
            pixel_size=size,
            pixel_unit=unit,
        )

    def _stored(self, number: int, page: Any, box: Box) -> NDArray[Any]:
        """Return a box as (H, W, samples), as it is stored and turned."""
        if _is_plain(page):
            return self._plain(number, page, box)
        width, height = _size(page)
        separate = page.planarconfig == 2 and page.samplesperpixel > 1
        planes = page.samplesperpixel if separate else 1
        if page.is_tiled:
            wide, tall = page.tilewidth, page.tilelength
        else:
            wide, tall = width, min(page.rowsperstrip, height)
        across, down = -(-width // wide), -(-height // tall)
        samples = 1 if separate else page.samplesperpixel
        found = np.zeros((box.height, box.width, planes * samples), page.dtype)
        nodata = read_nodata(page.tags)
        for plane in range(planes):
            for row in range(box.y // tall, -(-(box.y + box.height) // tall)):
                for column in range(box.x // wide, -(-(box.x + box.width) // wide)):
                    index = (plane * down + row) * across + column
                    segment = self._segment(number, page, index)
                    x, y = column * wide - box.x, row * tall - box.y
                    left, top = max(x, 0), max(y, 0)
                    right, bottom = min(x + wide, box.width), min(y + tall, box.height)
                    bands = slice(plane * samples, (plane + 1) * samples)
                    if segment is None:
                        # A tile that was never written, as GDAL leaves them out.
                        found[top:bottom, left:right, bands] = 0 if nodata is None else nodata
                        continue
                    part = segment[top - y : bottom - y, left - x : right - x]
                    if part.shape[:2] != (bottom - top, right - left):
                        raise SourceError("decode_error", f"tile or strip {index} of the TIFF is cut off")
                    found[top:bottom, left:right, bands] = part
        return found

    def _segment(self, number: int, page: Any, index: int) -> NDArray[Any] | None:
        """Return a decoded tile or strip (H, W, samples); None for one that is not there."""
        key = (number, index)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if not count:
            return None
        if offset + count > self._size:
            raise SourceError("decode_error", f"the TIFF is cut off before tile or strip {index}")
        # Not by its own position: tifffile reads tags that it did not need so far whenever it comes to need them.
        coded = os.pread(self._tiff.filehandle.fileno(), count, offset)
        segment = page.decode(coded, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)[0]
        if segment is None:
            return None
        found: NDArray[Any] = segment[0]
        self._kept[key] = found
        self._kept_bytes += found.nbytes
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            old = self._kept.popitem(last=False)[1]
            self._kept_bytes -= 0 if old is None else old.nbytes
        return found

    def _plain(self, number: int, page: Any, box: Box) -> NDArray[Any]:
        """Read a box of a page that is not compressed and stands in one piece, row by row."""
        width, height = _size(page)
        dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
        separate = page.planarconfig == 2 and page.samplesperpixel > 1
        planes, samples = (page.samplesperpixel, 1) if separate else (1, page.samplesperpixel)
        pixel = samples * dtype.itemsize
        begin = page.dataoffsets[0] + (number * width * height * planes * pixel if self._stacked else 0)
        if begin + width * height * planes * pixel > self._size:
            raise SourceError("decode_error", "the TIFF is cut off")
        found = np.empty((box.height, box.width, planes * samples), dtype)
        descriptor = self._tiff.filehandle.fileno()
        for plane in range(planes):
            first = begin + (plane * height + box.y) * width * pixel
            if box.width == width:
                rows = [os.pread(descriptor, box.height * width * pixel, first)]
            else:
                rows = [
                    os.pread(descriptor, box.width * pixel, first + (y * width + box.x) * pixel)
                    for y in range(box.height)
                ]
            values = np.frombuffer(b"".join(rows), dtype).reshape(box.height, box.width, samples)
            found[..., plane * samples : (plane + 1) * samples] = values
        return found


def _size(page: Any) -> tuple[int, int]:
    """Width and height as stored."""
    return int(page.imagewidth), int(page.imagelength)


def _is_plain(page: Any) -> bool:
    return (
        bool(page.is_contiguous) and int(page.compression) == 1 and page.bitspersample % 8 == 0 and page.fillorder == 1
    )


def _orientation(page: Any) -> int:
    tag = page.tags.get(274)
    value = 1 if tag is None else int(tag.value)
    return value if 1 <= value <= 8 else 1


def _resolution(page: Any) -> tuple[tuple[float, float] | None, str]:
    """Return the size of a pixel in mm, where the file states a resolution per inch or cm."""
    tags = page.tags
    unit = tags.get(296)
    scale = _MM_PER_UNIT.get(int(unit.value)) if unit is not None else None
    found = [tags.get(code) for code in (282, 283)]
    if scale is None or any(tag is None for tag in found):
        return None, ""
    try:
        per_unit = [tag.value[0] / tag.value[1] for tag in found]
        return (scale / per_unit[0], scale / per_unit[1]), "mm"
    except (ZeroDivisionError, TypeError, IndexError):
        return None, ""


def _stacked_frames(tiff: Any) -> int:
    """Return how many frames stand behind one directory, as ImageJ writes large stacks; 0 where it is otherwise."""
    if not tiff.is_imagej:
        return 0
    count = int((tiff.imagej_metadata or {}).get("images", 1))
    first = tiff.pages[0]
    return count if count > 1 and len(tiff.pages) == 1 and _is_plain(first) else 0
