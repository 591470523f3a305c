"""Compressed frames of DICOM that pydicom itself has no decoder for: JPEG-LS, lossless JPEG, JPEG of 12 bits."""

from __future__ import annotations

from typing import Any

import numpy as np

_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_EXTENDED = ("1.2.840.10008.1.2.4.51",)


def decoded_frame(path: str, frame: int, frames: int) -> Any:
    """Decode a frame through imagecodecs.

    Raises:
        RuntimeError: There is no decoder for it here, or its colours are none that are undone here.
        Exception: Whatever the decoder raises on damaged data.
    """
    import pydicom
    from pydicom.encaps import get_frame

    data = pydicom.dcmread(path, force=True)
    syntax = str(data.file_meta.TransferSyntaxUID)
    kind = str(data.get("PhotometricInterpretation", ""))
    if syntax not in (*_JPEG_LS, *_LOSSLESS, *_EXTENDED) or kind not in ("MONOCHROME1", "MONOCHROME2", "RGB"):
        name = data.file_meta.TransferSyntaxUID.name
        raise RuntimeError(f"there is no decoder for {name} with {kind or 'no stated'} colours")
    try:
        import imagecodecs
    except ImportError as error:
        raise RuntimeError("this compression needs imagecodecs: pip install 's1batch[images]'") from error
    coded = get_frame(data.PixelData, frame, number_of_frames=frames)
    if syntax in _JPEG_LS:
        pixels = imagecodecs.jpegls_decode(coded)
    elif syntax in _LOSSLESS:
        pixels = imagecodecs.ljpeg_decode(coded)
    else:
        pixels = imagecodecs.jpeg_decode(coded)
    if int(data.get("PixelRepresentation", 0)) == 1:
        # Two's complement in as many bits as are stored.
        unused = 8 * pixels.dtype.itemsize - int(data.BitsStored)
        signed = pixels.view(np.dtype(f"i{pixels.dtype.itemsize}"))
        pixels = (signed << unused) >> unused
    return pixels
