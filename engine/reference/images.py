"""From an encoded image to the pixels of its patches, as the image processor of Intern-S1-Pro makes them.

    decode -> RGB -> bicubic to `tokens.image_size` -> patches of 16 x 16, in blocks of 2 x 2 -> (x / 255 - 0.5) / 0.5

Pixels are taken as they are stored: no turn by an orientation tag, as in LMDeploy. Works without torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s1batch.engine.images import opened
from s1batch.engine.tokens import IMAGE_PATCH, image_size
from s1batch.records import ImagePart

FRAMES = 2
"""Frames of a patch; a still image is shown twice."""

MEAN, DEVIATION = 0.5, 0.5
"""Of every colour, after division by 255 (`image_mean`, `image_std` in preprocessor_config.json)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImagePatches:
    """An image cut into patches.

    Attributes:
        rows: Patches along the height; even.
        columns: Patches along the width; even.
        pixels_PV: uint8, (rows * columns, 3 * 16 * 16): colour, then row, then column. The patches are ordered by
            blocks of 2 x 2, in which they become one token.
    """

    rows: int
    columns: int
    pixels_PV: NDArray[np.uint8]


def cut(part: ImagePart) -> ImagePatches:
    """Decode an image and cut it into patches.

    Raises:
        EngineError: As in `s1batch.engine.images.measured`, or the image is damaged.
    """
    from PIL import Image

    with opened(part) as picture:
        size = image_size(*picture.size)
        pixels_hwc = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    rows, columns = size[1] // IMAGE_PATCH, size[0] // IMAGE_PATCH
    blocks = pixels_hwc.reshape(rows // 2, 2, IMAGE_PATCH, columns // 2, 2, IMAGE_PATCH, 3)
    pixels_PV = blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, -1)
    return ImagePatches(rows=rows, columns=columns, pixels_PV=pixels_PV)


def normalised(pixels_PV: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return patches as the tower takes them: (P, 3 * 2 * 16 * 16), float32, each frame the same."""
    scaled = (pixels_PV.astype(np.float32) / np.float32(255) - np.float32(MEAN)) / np.float32(DEVIATION)
    colours = scaled.reshape(len(scaled), 3, 1, -1)
    return np.repeat(colours, FRAMES, axis=2).reshape(len(scaled), -1)
