"""JPEG, PNG and WebP through Pillow, as upright 8-bit grey or RGB.

How colours become grey or RGB: transparency is laid over white; palettes, CMYK, YCbCr and Lab become RGB; an embedded
RGB or CMYK profile that does not call itself sRGB is converted to sRGB. Grey profiles are not looked at.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

from s1batch.errors import SourceError
from s1batch.readers.extras import need
from s1batch.readers.images.facts import PageFacts, Values
from s1batch.readers.images.headers import Header, is_srgb
from s1batch.readers.images.tiles import Box

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageFile import ImageFile

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError, TypeError)
"""What Pillow's decoders raise on damaged files; a SyntaxError is its word for a broken PNG chunk."""


class RasterFile:
    """A JPEG, PNG or WebP of 8 bits, held as its bytes.

    Args:
        data: The file.
        header: What its first bytes say.
    """

    def __init__(self, data: bytes, header: Header) -> None:
        self.format = header.format
        self._data = data
        self._header = header
        self._held: tuple[int, Picture, str] | None = None

    def pages(self) -> Iterator[PageFacts]:
        """Yield one page, or each frame of an animation."""
        frames = 1
        if self._header.animated:
            with decoding():
                frames = getattr(_open(self._data, self.format), "n_frames", 1)
        for _ in range(frames):
            yield self.facts(0)

    def facts(self, page: int) -> PageFacts:
        """Return what the header says; it is the same for all frames."""
        width, height = self._header.upright
        return PageFacts(width=width, height=height, decode_pixels=width * height, lossy=self._header.lossy)

    def picture(self, page: int, box: Box, size: tuple[int, int]) -> tuple[Picture, str]:
        """Return a box as grey or RGB, scaled by the JPEG decoder itself where `size` allows it."""
        width, height = self._header.upright
        if (box.width, box.height) == (width, height):
            with decoding():
                return self._decoded(page, size)
        if self._held is None or self._held[0] != page:
            self._held = None
            with decoding():
                self._held = (page, *self._decoded(page, (width, height)))
        _, whole, said = self._held
        return whole.crop((box.x, box.y, box.x + box.width, box.y + box.height)), said

    def close(self) -> None:
        """Forget the pixels."""
        self._held = None

    def _decoded(self, page: int, size: tuple[int, int]) -> tuple[Picture, str]:
        image: Picture = _open(self._data, self.format)
        orientation = self._header.orientation
        if page:
            image.seek(page)
        if self.format == "jpeg":
            image.draft(None, size[::-1] if orientation >= 5 else size)
        image.load()
        image, said = grey_or_rgb(image)
        if (turned := upright(image, orientation)) is not image:
            image, said = turned, [*said, "turned upright (EXIF)"]
        return image, "; ".join(said)


class DeepPng:
    """A PNG of 16 bits.

    Args:
        data: The file.
        header: What its first bytes say.

    Raises:
        MissingExtra: imagecodecs is not installed.
    """

    format = "png"

    def __init__(self, data: bytes, header: Header) -> None:
        self._codecs = need("imagecodecs", "images", "PNG files of 16 bits")
        self._data = data
        self._header = header
        self._held: Any = None

    def pages(self) -> Iterator[PageFacts]:
        """Yield its one page."""
        yield self.facts(0)

    def facts(self, page: int) -> PageFacts:
        """Return what the header says."""
        width, height = self._header.upright
        return PageFacts(width=width, height=height, decode_pixels=width * height)

    def values(self, page: int, box: Box) -> Values:
        """Return the grey or RGB values of a box; transparency is not looked at."""
        if self._held is None:
            self._held = self._decoded()
        return Values(values=self._held[box.y : box.y + box.height, box.x : box.x + box.width])

    def close(self) -> None:
        """Forget the pixels."""
        self._held = None

    def _decoded(self) -> Any:
        try:
            values = self._codecs.png_decode(self._data)
        except (self._codecs.PngError, ValueError, RuntimeError) as error:
            raise SourceError("decode_error", f"the PNG cannot be decoded: {error}") from error
        if values.ndim == 3:
            values = values[..., 0] if values.shape[2] < 3 else values[..., :3]
        return turned_array(values, self._header.orientation)


@contextmanager
def decoding() -> Iterator[None]:
    """Turn what Pillow raises on damaged files into a `SourceError`."""
    from PIL import Image, ImageFile

    # Set for the whole process by libraries that would rather see something; here half an image is none.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    except MemoryError as error:
        raise SourceError("decode_error", "the image does not fit into memory") from error
    except Image.DecompressionBombError as error:
        raise SourceError("decode_error", f"the image cannot be decoded: {error}") from error
    except _DAMAGE as error:
        raise SourceError("decode_error", f"the image cannot be decoded: {error}") from error


def grey_or_rgb(image: Picture) -> tuple[Picture, list[str]]:
    """Return an image of mode L or RGB, and in words what was converted; the rule stands at the top."""
    from PIL import Image

    said: list[str] = []
    mode = image.mode
    profile = image.info.get("icc_profile")
    if mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", clear.size, (255, 255, 255, 255))
        white.alpha_composite(clear)
        image = white.convert("L" if mode in ("L", "LA", "La") else "RGB")
        said.append("transparency over white")
    elif mode == "1":
        image = image.convert("L")
    if profile and (told := _to_srgb(image, profile)) is not None:
        image = told
        said.append("colour profile to sRGB")
    if image.mode not in ("L", "RGB"):
        said.append(f"{image.mode} to RGB")
        image = image.convert("RGB")
    return image, said


def _to_srgb(image: Picture, profile: bytes) -> Picture | None:
    """Return an image in sRGB; None where its profile says that it is, or does not fit its pixels."""
    from PIL import ImageCms

    if {b"RGB ": "RGB", b"CMYK": "CMYK"}.get(profile[16:20]) != image.mode or is_srgb(profile):
        return None
    try:
        given = ImageCms.ImageCmsProfile(BytesIO(profile))
        wanted = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, given, wanted, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def upright(image: Picture, orientation: int) -> Picture:
    """Return an image turned as EXIF's orientation says."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    turn = turns.get(orientation)
    return image if turn is None else image.transpose(turn)


def turned_array(values: Any, orientation: int) -> Any:
    """Return an array (H, W, ...) turned as EXIF's orientation says."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values


def header_by_decoder(data: bytes, name: str) -> Header:
    """Return what Pillow makes of a file whose header is an unusual one; such a file never passes as it is.

    Raises:
        SourceError: Pillow cannot read it either.
    """
    with decoding():
        image = _open(data, name)
        width, height = image.size
        orientation = int(image.getexif().get(0x0112, 1)) if name == "jpeg" else 1
        return Header(name, width, height, False, orientation, lossy=name == "jpeg")


def _open(data: bytes, name: str) -> ImageFile:
    """Open with the decoder that the magic bytes ask for; `Image.open` has a limit of its own, told by a warning."""
    from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    file = BytesIO(data)
    match name:
        case "jpeg":
            return JpegImagePlugin.JpegImageFile(file)
        case "png":
            return PngImagePlugin.PngImageFile(file)
        case _:
            return WebPImagePlugin.WebPImageFile(file)
