"""The `source: {kind: table}` block of a job file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from s1batch.config import Texts, placement
from s1batch.readers.spec import ReaderSetting, SourceConfig

if TYPE_CHECKING:
    from s1batch.readers.base import Reader


class TableSource(SourceConfig):
    """Rows of Parquet, Arrow (Feather), CSV or JSONL files; each row is one question."""

    kind: Literal["table"]
    path: Texts = Field(min_length=1, description="one or several files or globs, relative to the job file")
    columns: tuple[str, ...] | None = Field(
        None, min_length=1, description="the fields that the prompt may use; left out: all"
    )
    images: Texts = Field(
        (), description="columns that hold an image each: a path below `image_root`, a list of them, or the bytes"
    )
    image_root: str | None = placement(
        None, description="folder that paths of images are relative to (default: the folder of the table)"
    )
    series: Texts = Field(
        (),
        description="columns that hold a time series each: numbers, lists of numbers (time, channel), or a path below "
        "`series_root` (.npy, .csv, .txt, .parquet)",
    )
    series_root: str | None = placement(
        None, description="folder that paths of series are relative to (default: the folder of the table)"
    )
    rate_hz: float | str | None = Field(
        None, description="samples per second of the series: a number, or the column that tells"
    )
    units: str = Field("", description="physical unit of the series")
    format: Literal["auto", "parquet", "arrow", "csv", "jsonl"] = Field(
        "auto", description="auto goes by the name: .parquet, .arrow, .feather, .ipc, .csv, .tsv, .jsonl, .ndjson"
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="between the fields of a CSV; left out: a comma, in .tsv a tab"
    )
    root: str | None = placement(
        None, description="what paths are kept relative to (default: the folder that all of `path` lies below)"
    )

    @model_validator(mode="after")
    def _media_are_read(self) -> TableSource:
        rate = (self.rate_hz,) if isinstance(self.rate_hz, str) else ()
        for field, names in (("images", self.images), ("series", self.series), ("rate_hz", rate)):
            left_out = [name for name in names if self.columns is not None and name not in self.columns]
            if left_out:
                raise ValueError(f"{field} names {', '.join(left_out)}, which columns leaves out")
        if self.series and self.rate_hz is None:
            raise ValueError("series needs rate_hz: samples per second, or the column that tells")
        if isinstance(self.rate_hz, float) and not 0 < self.rate_hz < math.inf:
            raise ValueError(f"rate_hz is {self.rate_hz:g}; it must be a positive number of samples per second")
        return self

    def build(self, setting: ReaderSetting) -> Reader:
        """Make the reader of tables."""
        from s1batch.readers.tables.reader import TableReader

        return TableReader(self, setting.base_dir)
