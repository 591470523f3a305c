"""Answers merged over overlapping chunks, beside the rows that they were made of."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from s1batch.jobs.base import Job
from s1batch.results.atomic import make_folder
from s1batch.results.layout import Layout
from s1batch.results.rows_file import naming_damage, write_table


def merge_rows(path: str | os.PathLike[str], rows: pl.LazyFrame, job: Job) -> int | None:
    """Write the merged answers of rows; of these, only what the job looks at is read.

    Returns:
        How many merged answers there are; None when the job has nothing to merge.
    """
    with naming_damage(Path(path)):
        names = [name for name in rows.collect_schema().names() if name in job.merge_columns]
        looked_at = rows.select(names).collect() if names else None
    frame = None if looked_at is None else job.merge(looked_at)
    if frame is None:
        return None
    write_merged(path, frame)
    return frame.height


def write_merged(path: str | os.PathLike[str], frame: pl.DataFrame) -> Path:
    """Write merged answers, replacing earlier ones as a whole.

    Args:
        path: The results directory.
        frame: At least the columns `group_id` and `source_chunk_keys` (lists of chunk keys).

    Returns:
        The file.

    Raises:
        ValueError: A column is missing, which is a mistake in the job.
        ResultsError: The file cannot be written.
    """
    for name in ("group_id", "source_chunk_keys"):
        if name not in frame.columns:
            raise ValueError(f"merged answers have no column {name}")
    layout = Layout(Path(path))
    make_folder(layout.merged)
    target = layout.merged_rows()
    write_table(target, frame.to_arrow(compat_level=pl.CompatLevel.oldest()))
    return target
