"""The `source: {kind: table}` block of a job file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from s1batch.config import Config, placement


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class TableSource(Config):
    """Rows of Parquet, CSV or JSONL files; each row is one question."""

    kind: Literal["table"]
    path: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        min_length=1, description="one or several files or globs, relative to the job file"
    )
    columns: tuple[str, ...] | None = Field(
        None, min_length=1, description="the fields that the prompt may use; left out: all"
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
