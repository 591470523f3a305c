"""The `source: {kind: seismic}` block of a job file."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from s1batch.config import Config, placement
from s1batch.readers.spec import ReaderSetting, SourceConfig

if TYPE_CHECKING:
    from s1batch.readers.base import Reader


class FilterSpec(Config):
    """A Butterworth filter, applied before windows are cut (with a margin, so that edges do not ring)."""

    type: Literal["bandpass", "highpass", "lowpass"]
    freqmin_hz: float | None = Field(None, gt=0)
    freqmax_hz: float | None = Field(None, gt=0)
    corners: int = Field(4, ge=1, le=10)
    zerophase: bool = True

    @model_validator(mode="after")
    def _check(self) -> FilterSpec:
        if self.type in ("bandpass", "highpass") and self.freqmin_hz is None:
            raise ValueError(f"filter.freqmin_hz is needed for a {self.type}")
        if self.type in ("bandpass", "lowpass") and self.freqmax_hz is None:
            raise ValueError(f"filter.freqmax_hz is needed for a {self.type}")
        if self.type == "bandpass" and self.freqmin_hz >= self.freqmax_hz:  # type: ignore[operator]
            raise ValueError("filter.freqmin_hz must be below filter.freqmax_hz")
        return self


class ResponseSpec(Config):
    """Removal of the instrument response, with ObsPy."""

    inventory: str = Field(description="StationXML file (or any that ObsPy reads), relative to the job file")
    output: Literal["DISP", "VEL", "ACC"] = "VEL"
    pre_filt_hz: tuple[float, float, float, float] | None = None
    water_level_db: float | None = 60.0


Patterns = Annotated[tuple[str, ...], Field(min_length=1)]


class SeismicSource(SourceConfig):
    """Seismic waveforms: MiniSEED, and every other format that ObsPy reads.

    Exactly one of `paths`, `sds` and `manifest` says where they are.
    """

    windowed: ClassVar[bool] = True
    waveforms: ClassVar[bool] = True

    kind: Literal["seismic"]
    paths: tuple[str, ...] | None = Field(None, description="files or globs, relative to the job file")
    sds: str | None = placement(None, description="root of an SDS archive (YEAR/NET/STA/CHAN.D/...)")
    manifest: str | None = Field(None, description="CSV or Parquet with a column `path`, relative to it")
    root: str | None = placement(
        None, description="what paths are kept relative to (default: the deepest common folder)"
    )
    network: Patterns = Field(("*",), description="shell patterns")
    station: Patterns = Field(("*",), description="shell patterns")
    location: Patterns = Field(("*",), description="shell patterns; -- is the empty code")
    channel: Patterns = Field(("*",), description="shell patterns")
    starttime: datetime | None = Field(None, description="UTC; samples before are not selected")
    endtime: datetime | None = Field(None, description="UTC; samples from here on are not selected")
    components: str = Field("ZNE", min_length=1, description="order of the channels in (T, C); Z12 stands for ZNE")
    aliases: dict[str, str] = Field({}, description="further channel codes: {'0': 'Z'}")
    missing: Literal["fill", "refuse"] = Field("fill", description="a missing component: zeros, or a refusal")
    gap_fill: Literal["mean", "zero", "interpolate"] = Field("mean", description="what stands in gaps inside a window")
    rate_hz: float | None = Field(None, gt=0, description="resample to this rate, anti-aliased; left out: as recorded")
    detrend: Literal["none", "constant", "linear"] = "none"
    filter: FilterSpec | None = None
    response: ResponseSpec | None = None
    hash: bool = Field(False, description="record the SHA-256 of every source file")

    @model_validator(mode="after")
    def _check(self) -> SeismicSource:
        if sum(value is not None for value in (self.paths, self.sds, self.manifest)) != 1:
            raise ValueError("give exactly one of paths, sds and manifest")
        if len(set(self.components)) != len(self.components):
            raise ValueError("components names a component twice")
        return self

    def build(self, setting: ReaderSetting) -> Reader:
        """Make the reader of waveforms."""
        from s1batch.readers.seismic.reader import SeismicReader

        return SeismicReader(self, setting.window, setting.base_dir, setting.long_series)
