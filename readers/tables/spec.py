"""The `source: {kind: table}` block of a job file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from s1batch.config import placement
from s1batch.readers.spec import ReaderSetting, SourceConfig

if TYPE_CHECKING:
    from s1batch.readers.base import Reader


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class TableSource(SourceConfig):
    """Rows of Parquet, CSV or JSONL files; each row is one question."""

    kind: Literal["table"]
    path: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        min_length=1, description="one or several files or globs, relative to the job file"
    )
    columns: tuple[str, ...] | None = Field(
        None, min_length=1, description="the fields that the prompt may use; left out: all"
    )
    images: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="columns that hold an image each: a path below `image_root`, a list of them, or the bytes"
    )
    image_root: str | None = placement(
        None, description="folder that paths of images are relative to (default: the folder of the table)"
    )
    format: Literal["auto", "parquet", "csv", "jsonl"] = Field(
        "auto", description="auto goes by the name: .parquet, .csv, .tsv, .jsonl, .ndjson"
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="between the fields of a CSV; left out: a comma, in .tsv a tab"
    )
    root: str | None = placement(
        None, description="what paths are kept relative to (default: the folder that all of `path` lies below)"
    )

    @model_validator(mode="after")
    def _images_are_read(self) -> TableSource:
        left_out = [name for name in self.images if self.columns is not None and name not in self.columns]
        if left_out:
            raise ValueError(f"images names {', '.join(left_out)}, which columns leaves out")
        return self

    def build(self, setting: ReaderSetting) -> Reader:
        """Make the reader of tables."""
        from s1batch.readers.tables.reader import TableReader

        return TableReader(self, setting.base_dir)
