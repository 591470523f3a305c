"""DICOM through pydicom: every frame is a page.

Grey values are those of the modality (rescale slope and intercept, or its table, applied); MONOCHROME1 is inverted;
colours become RGB. The presentation window of the file is used by `scaling: window`. Nothing but pixels and their size
is taken: no name, date or number of a patient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from s1batch.errors import MissingExtra, SourceError
from s1batch.readers.extras import need
from s1batch.readers.images.dicom_codecs import decoded_frame
from s1batch.readers.images.facts import PageFacts, Values
from s1batch.readers.images.quiet import quiet

if TYPE_CHECKING:
    from s1batch.readers.images.tiles import Box

_LOSSY_SYNTAXES = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
"""JPEG baseline and extended."""


class DicomFile:
    """An open DICOM file.

    Args:
        path: The file.

    Raises:
        MissingExtra: pydicom is not installed.
        SourceError: The file cannot be read, or holds no image.
    """

    format = "dicom"

    def __init__(self, path: str) -> None:
        pydicom = need("pydicom", "images", "DICOM files")
        self._path = path
        self._held: tuple[int, Values] | None = None
        try:
            with quiet():
                self._head = pydicom.dcmread(path, stop_before_pixels=True, force=True)
                self._width, self._height = int(self._head.get("Columns", 0) or 0), int(self._head.get("Rows", 0) or 0)
                self._frames = max(int(self._head.get("NumberOfFrames", 1) or 1), 1)
        except Exception as error:  # pydicom raises whatever a damaged element leads it to
            raise SourceError("not_readable", f"the DICOM file cannot be read: {error}") from error
        if self._width < 1 or self._height < 1:
            raise SourceError("no_match", "the DICOM file holds no image")

    def pages(self) -> Iterator[PageFacts]:
        """Yield the frames."""
        for _ in range(self._frames):
            yield self.facts(0)

    def facts(self, page: int) -> PageFacts:
        """Return what the header says; it is the same for all frames."""
        if page >= self._frames:
            raise SourceError("source_changed", f"the DICOM file has no frame {page} any more")
        spacing = _numbers(self._head.get("PixelSpacing") or self._head.get("ImagerPixelSpacing"))
        syntax = str(getattr(getattr(self._head, "file_meta", None), "TransferSyntaxUID", ""))
        return PageFacts(
            width=self._width,
            height=self._height,
            decode_pixels=self._width * self._height,
            lossy=syntax in _LOSSY_SYNTAXES and int(self._head.get("BitsStored", 16) or 16) == 8,
            # The standard has the distance between rows first.
            pixel_size=(spacing[1], spacing[0]) if len(spacing) == 2 else None,
            pixel_unit="mm" if len(spacing) == 2 else "",
        )

    def values(self, page: int, box: Box) -> Values:
        """Return a box of a frame."""
        if self._held is None or self._held[0] != page:
            self._held = None
            try:
                with quiet():
                    self._held = (page, self._frame(page))
            except MissingExtra:
                raise
            except Exception as error:  # the decoders have errors of their own
                raise SourceError(
                    "decode_error", f"frame {page} of the DICOM file cannot be decoded: {error}"
                ) from error
        whole = self._held[1]
        part = whole.values[box.y : box.y + box.height, box.x : box.x + box.width]
        return Values(values=part, inverted=whole.inverted, window=whole.window, levels=whole.levels)

    def close(self) -> None:
        """Forget the pixels."""
        self._held = None

    def _frame(self, page: int) -> Values:
        from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
        from pydicom.pixels.utils import pixel_array

        # By path: only this frame is read.
        try:
            pixels = pixel_array(self._path, index=page)
        except (RuntimeError, NotImplementedError):
            pixels = decoded_frame(self._path, page, self._frames)
        data = self._head
        kind = str(data.get("PhotometricInterpretation", ""))
        if kind == "PALETTE COLOR":
            colours = apply_color_lut(pixels, data)
            deep = colours.dtype.itemsize > 1
            return Values(values=(colours >> 8).astype(np.uint8) if deep else colours, levels=255)
        if pixels.ndim == 3:
            levels = 255 if pixels.dtype == np.uint8 else None
            return Values(values=pixels, levels=levels)
        values = np.asarray(apply_modality_lut(pixels, data))
        levels = 255 if values.dtype == np.uint8 and int(data.get("BitsStored", 8)) == 8 else None
        return Values(values=values, inverted=kind == "MONOCHROME1", window=_window(data), levels=levels)


def _window(data: Any) -> tuple[float, float] | None:
    """Return the values that the file's first window makes black and white.

    Source: DICOM PS3.3 C.11.2.1.2: the range is [c - 0.5 - (w - 1) / 2, c - 0.5 + (w - 1) / 2], with `LINEAR_EXACT`
    [c - w / 2, c + w / 2].
    """
    centre, width = _numbers(data.get("WindowCenter")), _numbers(data.get("WindowWidth"))
    if not centre or not width or width[0] < 1:
        return None
    if str(data.get("VOILUTFunction", "") or "LINEAR") == "LINEAR":
        half = (width[0] - 1) / 2
        low, high = centre[0] - 0.5 - half, centre[0] - 0.5 + half
    else:
        low, high = centre[0] - width[0] / 2, centre[0] + width[0] / 2
    return (low, high) if high > low else None


def _numbers(value: Any) -> list[float]:
    """Return an element of one or several numbers as a list; empty where it is none."""
    try:
        given = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        return [float(each) for each in given]
    except (TypeError, ValueError):
        return []
