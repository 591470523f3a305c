"""FITS through astropy: every plane of every image HDU is a page.

Values are physical ones (BSCALE and BZERO applied, BLANK as NaN). Rows are sent as they are stored: the first one,
which astronomers draw at the bottom, is at the top, so that pixel coordinates are those of the array.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from s1batch.errors import SourceError
from s1batch.readers.extras import need
from s1batch.readers.images.facts import PageFacts, Values
from s1batch.readers.images.quiet import quiet

if TYPE_CHECKING:
    from s1batch.readers.images.tiles import Box

_DAMAGE = (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, RuntimeError, AttributeError)


class FitsFile:
    """An open FITS file.

    Args:
        path: The file.

    Raises:
        MissingExtra: astropy is not installed.
        SourceError: The file cannot be read.
    """

    format = "fits"

    def __init__(self, path: str) -> None:
        fits = need("astropy.io.fits", "images", "FITS files")
        self._size = os.stat(path).st_size
        # Not mapped: a file that becomes shorter while it is mapped would end the process.
        with quiet(), self._readable("the FITS file cannot be read"):
            self._file = fits.open(path, mode="readonly", memmap=False, lazy_load_hdus=True)
        self._planes: list[tuple[int, int]] | None = None

    def pages(self) -> Iterator[PageFacts]:
        """Yield every plane of every image HDU; HDUs without an image are no pages."""
        self._planes = []
        with quiet(), self._readable("an HDU of the FITS file cannot be read"):
            number = 0
            while True:
                try:
                    hdu = self._file[number]
                except IndexError:
                    break
                for plane in range(self._planes_of(hdu)):
                    self._planes.append((number, plane))
                    yield self._facts(hdu)
                number += 1
        if not self._planes:
            raise SourceError("no_match", "the FITS file holds no image")

    def facts(self, page: int) -> PageFacts:
        """Return what the header of a page's HDU says."""
        with quiet(), self._readable("the FITS file cannot be read"):
            return self._facts(self._at(page)[0])

    def values(self, page: int, box: Box) -> Values:
        """Return a box of a page; of files that are not compressed only its rows are read."""
        with quiet(), self._readable("the FITS image cannot be decoded"):
            hdu, plane = self._at(page)
            rows, columns = slice(box.y, box.y + box.height), slice(box.x, box.x + box.width)
            place = np.unravel_index(plane, hdu.shape[:-2]) if len(hdu.shape) > 2 else ()
            found = np.asarray(hdu.section[(*(int(index) for index in place), rows, columns)])
            return Values(values=found)

    def close(self) -> None:
        """Close the file."""
        with quiet():
            self._file.close()

    def _at(self, page: int) -> tuple[Any, int]:
        if self._planes is None:
            for _ in self.pages():
                pass
        planes = self._planes or []
        if page >= len(planes):
            raise SourceError("source_changed", f"the FITS file has no plane {page} any more")
        number, plane = planes[page]
        return self._file[number], plane

    def _planes_of(self, hdu: Any) -> int:
        """Return how many images an HDU holds."""
        shape = hdu.shape if hdu.is_image else ()
        if len(shape) < 2 or math.prod(shape) == 0:
            return 0
        return math.prod(shape[:-2])

    def _facts(self, hdu: Any) -> PageFacts:
        height, width = hdu.shape[-2:]
        info = hdu.fileinfo()
        if info is not None and info["datLoc"] + _stored_bytes(hdu) > self._size:
            raise SourceError("decode_error", "the FITS file is cut off")
        return PageFacts(width=width, height=height, decode_pixels=width, **_pixel_size(hdu.header))

    def _readable(self, what: str) -> _Readable:
        return _Readable(what)


class _Readable:
    """A context that turns what astropy raises on damaged files into a `SourceError`."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SourceError) or error is None:
            return
        from astropy.io.fits import VerifyError

        if isinstance(error, (*_DAMAGE, VerifyError, Warning)):
            raise SourceError("decode_error", f"{self._what}: {error}") from error


def _stored_bytes(hdu: Any) -> int:
    """Bytes of an HDU's data that must be there; a compressed image is a table, whose decoder finds what is missing."""
    from astropy.io.fits import CompImageHDU

    if isinstance(hdu, CompImageHDU):
        return 0
    bits = abs(int(hdu.header["BITPIX"]))
    return math.prod(int(side) for side in hdu.shape) * bits // 8


def _pixel_size(header: Any) -> dict[str, Any]:
    """Return the size of a pixel along x and y, from CD or CDELT, in the unit of the header (degrees on the sky)."""
    try:
        sides = []
        for axis in (1, 2):
            column = [header.get(f"CD{row}_{axis}") for row in (1, 2)]
            if all(value is None for value in column):
                sides.append(abs(float(header[f"CDELT{axis}"])))
            else:
                sides.append(math.hypot(*(float(value or 0) for value in column)))
    except (KeyError, TypeError, ValueError):
        return {}
    if not all(side > 0 for side in sides):
        return {}
    unit = str(header.get("CUNIT1", "deg" if str(header.get("CTYPE1", "")).startswith(("RA", "GLON")) else ""))
    return {"pixel_size": (sides[0], sides[1]), "pixel_unit": unit}
