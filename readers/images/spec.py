"""The `source: {kind: images}` block of a job file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from s1batch.config import Config, Texts, placement
from s1batch.readers.spec import ReaderSetting, SourceConfig

if TYPE_CHECKING:
    from s1batch.readers.base import Reader

LARGEST_USEFUL_PIXELS = 16_777_216
"""Pixels above which the model's processor scales an image down itself (`size` in its preprocessor_config.json)."""

Scaling = Literal["percentile", "minmax", "window", "zscale"]


class TileSpec(Config):
    """How large images are cut."""

    size: int = Field(1024, ge=32, le=4096, description="side of a tile in pixels of the original")
    overlap: int = Field(64, ge=0, description="pixels that neighbouring tiles share")
    edge: Literal["shift", "pad"] = Field(
        "shift", description="the last tile of a row: moved back to end with the image, or filled up with black"
    )

    @model_validator(mode="after")
    def _check(self) -> TileSpec:
        if self.overlap > self.size // 2:
            raise ValueError(f"tile.overlap is {self.overlap}; at most half of tile.size ({self.size // 2})")
        return self


class ImageSource(SourceConfig):
    """Image files: JPEG, PNG, WebP, TIFF and GeoTIFF, FITS, DICOM; each image, page or tile is one question."""

    kind: Literal["images"]
    paths: Texts | None = Field(None, min_length=1, description="folders, files or globs, relative to the job file")
    manifest: str | None = Field(
        None, description="CSV or Parquet with a column `path`, relative to it; other columns become metadata"
    )
    root: str | None = placement(
        None, description="what paths are kept relative to, and must lie below (default: the folder of `paths`)"
    )
    sidecars: bool = Field(True, description="join NAME.txt (caption), NAME.json and NAME.csv (metadata) to NAME.*")
    pages: Literal["all", "first"] = Field("all", description="pages, frames and planes of a file: all, or the first")
    tile: TileSpec | None = Field(None, description="cut larger images into tiles; left out: each is sent whole")
    overview: bool = Field(False, description="also send each tiled image whole, scaled down to the size of a tile")
    max_side: int | None = Field(None, ge=32, description="longest side as sent, in pixels")
    max_pixels: int = Field(LARGEST_USEFUL_PIXELS, ge=1024, description="most pixels as sent; what is larger is scaled")
    max_decode_pixels: int = Field(
        200_000_000, ge=1024, description="most pixels that are decoded at once; an image that needs more is refused"
    )
    scaling: Scaling = Field(
        "percentile", description="how values beyond 8 bits become grey levels: percentile, minmax, window or zscale"
    )
    percentiles: tuple[float, float] = Field((0.5, 99.5), description="values of `scaling: percentile`, per image")
    value_window: tuple[float, float] | None = Field(
        None, description="lowest and highest value of `scaling: window`; left out: the file's own (DICOM)"
    )
    bands: tuple[int, ...] | None = Field(
        None, description="one or three bands of images that have several, from 0; left out: the first three, or one"
    )

    @model_validator(mode="after")
    def _check(self) -> ImageSource:
        if (self.paths is None) == (self.manifest is None):
            raise ValueError("give exactly one of paths and manifest")
        if self.overview and self.tile is None:
            raise ValueError("overview has no meaning without tile: images are sent whole")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError("percentiles are two numbers, 0 <= low < high <= 100")
        if self.value_window is not None and not self.value_window[0] < self.value_window[1]:
            raise ValueError("value_window is two numbers, low < high")
        if self.value_window is not None and self.scaling != "window":
            raise ValueError(f"value_window has no meaning with `scaling: {self.scaling}`; leave it out")
        if self.bands is not None and (len(self.bands) not in (1, 3) or min(self.bands) < 0):
            raise ValueError("bands are one or three numbers, from 0")
        return self

    def build(self, setting: ReaderSetting) -> Reader:
        """Make the reader of images."""
        from s1batch.readers.images.reader import ImageReader

        return ImageReader(self, setting.base_dir)
