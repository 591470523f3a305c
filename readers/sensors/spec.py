"""The `source: {kind: sensors}` block of a job file."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from s1batch.config import Config, Texts, placement
from s1batch.errors import JobFileError
from s1batch.readers.spec import ReaderSetting, SourceConfig

if TYPE_CHECKING:
    from s1batch.readers.base import Reader

_SECRETS = frozenset({"key", "secret", "token", "password", "username", "aws_access_key_id", "aws_secret_access_key"})


class IndexRange(Config):
    """Entries of a dimension by number, half-open."""

    start: int = Field(0, ge=0)
    stop: int = Field(ge=1)

    @model_validator(mode="after")
    def _check(self) -> IndexRange:
        if self.stop <= self.start:
            raise ValueError("stop must be larger than start")
        return self


Label = str | int | float
Selection = IndexRange | tuple[Label, ...] | Label


class SensorsSource(SourceConfig):
    """Arrays of sensors in Zarr (2 and 3), NetCDF (3 and 4) and HDF5, on disk or at any URL that fsspec knows."""

    windowed: ClassVar[bool] = True

    kind: Literal["sensors"]
    paths: Texts = Field(
        min_length=1, description="stores, files, globs or URLs (s3://bucket/*.zarr), relative to the job file"
    )
    root: str | None = placement(None, description="what paths are kept relative to (default: their common folder)")
    storage_options: dict[str, Any] = placement(
        {}, description="what fsspec needs to open URLs, such as endpoint_url; never secrets"
    )
    retries: int = placement(4, ge=0, le=20, description="how often a store that does not answer is tried again")
    variables: Texts | None = Field(
        None, min_length=1, description="shell patterns of `group/variable` or `variable`; left out: all with a time"
    )
    time: str | None = Field(
        None, description="dimension that is time, or the 1-D variable that holds the times; left out: found by CF"
    )
    channels: Texts | None = Field(
        None, description="dimensions whose entries are channels; left out: all that are not time and keep several"
    )
    group: Literal["together", "each"] = Field(
        "together", description="all channels of a variable in one series, or each by itself"
    )
    select: dict[str, Selection] = Field(
        {}, description="entries of other dimensions: a label, a list of labels, or {start, stop} by number"
    )
    starttime: datetime | None = Field(None, description="UTC; samples before are not selected")
    endtime: datetime | None = Field(None, description="UTC; samples from here on are not selected")
    rate_hz: float | None = Field(
        None, gt=0, description="rate of arrays without times; with `irregular: resample` that of the even grid"
    )
    jitter: float = Field(
        0.1, gt=0, lt=0.5, description="how far times may lie from an even axis, as a share of the sample interval"
    )
    irregular: Literal["refuse", "resample"] = Field(
        "refuse", description="arrays whose times are not even: one refused row, or linear interpolation onto a grid"
    )
    nan: Literal["refuse", "interpolate", "mask"] = Field(
        "refuse",
        description="windows with missing values: refused; interpolated over at most `nan_longest` samples; or "
        "replaced by the mean of the channel in the window",
    )
    nan_longest: int = Field(10, ge=1, description="longest stretch in samples that `nan: interpolate` bridges")
    missing: Literal["fill", "refuse"] = Field(
        "fill", description="chunks that a Zarr store does not hold: its fill value, as Zarr defines, or a refusal"
    )
    missing_values: tuple[float, ...] = Field(
        (), description="stored numbers that stand for no value, besides _FillValue, missing_value and valid_range"
    )

    @model_validator(mode="after")
    def _check(self) -> SensorsSource:
        secrets = sorted(_SECRETS & self.storage_options.keys())
        if secrets:
            raise ValueError(
                f"storage_options.{secrets[0]}: secrets do not belong into a job file; give them in the environment"
            )
        if self.time in self.select:
            raise ValueError(f"select names the time {self.time}; use starttime and endtime")
        remote = ["://" in path for path in self.paths]
        if any(remote) and not all(remote):
            raise ValueError("paths are all local or all URLs; make two jobs")
        if self.starttime is not None and self.endtime is not None and self.starttime >= self.endtime:
            raise ValueError("endtime must be later than starttime")
        return self

    def build(self, setting: ReaderSetting) -> Reader:
        """Make the reader of sensor arrays."""
        from s1batch.readers.sensors.reader import SensorsReader

        policy = setting.long_series.policy
        if policy == "coarse_to_fine":
            raise JobFileError(
                "long_series: coarse_to_fine reads waveforms only; with `source: {kind: sensors}` use split, decimate "
                "or refuse"
            )
        return SensorsReader(self, setting.window, setting.base_dir, setting.long_series)
