"""What is known of a page of an image file before its pixels are decoded, and the seam of the formats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from s1batch.geometry import Transform

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

    from s1batch.readers.images.tiles import Box

PageStatus = Literal["image", "reduced", "mask"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFacts:
    """One page, frame or plane of a file.

    Attributes:
        width: Columns, as the image is seen (EXIF rotation applied).
        height: Rows.
        decode_pixels: Pixels that must be decoded at once to see any of them.
        lossy: Whether its pixels were compressed with loss, as photographs are.
        status: `reduced` is a smaller copy of another page, `mask` says which pixels of another one are valid.
        crs: Coordinate system such as `EPSG:32633`; empty where there is none.
        transform: From pixels to its coordinates.
        pixel_size: Size of a pixel along x and y.
        pixel_unit: Its unit; empty where the coordinate system has it.
    """

    width: int
    height: int
    decode_pixels: int
    lossy: bool = False
    status: PageStatus = "image"
    crs: str = ""
    transform: Transform | None = None
    pixel_size: tuple[float, float] | None = None
    pixel_unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Values:
    """Pixels as they are stored, with what is needed to show them.

    Attributes:
        values: (H, W) or (H, W, 3).
        nodata: Value that stands for "nothing here"; NaN always does.
        inverted: Whether the lowest value is white.
        window: Lowest and highest value that the file asks to be shown.
        levels: Largest value of pixels of at most 8 bits, which are shown as they are; None for deeper ones.
    """

    values: NDArray[Any]
    nodata: float | None = None
    inverted: bool = False
    window: tuple[float, float] | None = None
    levels: int | None = None


class StoredImage(Protocol):
    """An open image file: a context manager, used by one thread at a time.

    Attributes:
        format: `jpeg`, `png`, `webp`, `tiff`, `fits` or `dicom`.
    """

    format: str

    def pages(self) -> Iterator[PageFacts]:
        """Yield the pages in the order of the file, from headers alone.

        Raises:
            SourceError: The file, or what follows the pages that came, is not readable.
        """

    def facts(self, page: int) -> PageFacts:
        """Return what is known of one page.

        Raises:
            SourceError: There is no such page, or it is not readable.
        """

    def close(self) -> None:
        """Let the file go."""


class StoredPicture(StoredImage, Protocol):
    """A file whose pixels have 8 bits."""

    def picture(self, page: int, box: Box, size: tuple[int, int]) -> tuple[Picture, str]:
        """Return a box as grey or RGB, decoded to about `size` or larger, and what was converted, in words.

        Raises:
            SourceError: The pixels cannot be decoded.
        """


class StoredValues(StoredImage, Protocol):
    """A file whose pixels are numbers of any kind."""

    def values(self, page: int, box: Box) -> Values:
        """Return the numbers of a box.

        Raises:
            SourceError: They cannot be decoded.
        """
