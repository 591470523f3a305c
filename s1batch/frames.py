"""`df.s1.infer(...)`: the `ask` job over the rows of a polars frame, lazy or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from s1batch.object_runs import STATE_COLUMNS, ask_block, folder_for, run_in

NAMESPACE = "s1"


class FrameNamespace:
    """What `DataFrame.s1` and `LazyFrame.s1` offer."""

    def __init__(self, frame: pl.DataFrame | pl.LazyFrame) -> None:
        self._given = frame

    def infer(
        self,
        prompt: str,
        *,
        schema: Mapping[str, Any] | str | type | None = None,
        system: str | None = None,
        engine: Mapping[str, Any] | str = "reference",
        sampling: Mapping[str, Any] | None = None,
        seed: int = 0,
        output: str | Path | None = None,
        prefix: str = "",
        images: str | Sequence[str] = (),
        series: str | Sequence[str] = (),
        rate_hz: float | str | None = None,
        units: str = "",
        image_root: str | Path = ".",
        series_root: str | Path = ".",
        render: str = "series",
        plot: str | None = None,
    ) -> pl.DataFrame:
        """Ask about every row; a lazy frame is collected first.

        Args:
            prompt: Jinja2 template over the frame's columns, such as `"Is {{ name }} a mineral?"`.
            schema: JSON Schema, `module:Model`, or a pydantic model class; its properties become columns.
            system: System prompt.
            engine: `engine` block of a job file, or just its kind.
            sampling: `sampling` block of a job file.
            seed: Seed of the sampling.
            output: Results folder. With one, a second call goes on where the first was stopped and asks nothing
                twice; without one, the results are kept only in the frame that is returned.
            prefix: Put before the names of the new columns.
            images: Columns of images: paths below `image_root`, or the bytes.
            series: Columns of time series: lists or arrays of numbers, lists of lists (time, channel), or paths below
                `series_root`.
            rate_hz: Samples per second of the series, or the column that tells.
            units: Physical unit of the series.
            image_root: Folder that paths of images are relative to.
            series_root: Folder that paths of series are relative to.
            render: `series`, `image` (a plot in place of each series), or `both`.
            plot: `waveform`, `spectrogram` or `recurrence`.

        Returns:
            The frame with the schema's columns and outcome, reason, detail, text and reasoning; one row for each row,
            in the same order. Rows without an answer have nulls there, and say why in `outcome` and `reason`.

        Raises:
            JobFileError: An argument is wrong, or a new column has the name of an old one.

        Example:
            >>> df = pl.DataFrame({"name": ["quartz", "oak"]})
            >>> df.s1.infer("Is {{ name }} a mineral?", engine="replay", output="answers")  # doctest: +SKIP
        """
        from s1batch.errors import JobFileError

        frame = self._given.collect() if isinstance(self._given, pl.LazyFrame) else self._given
        with folder_for(output) as folder:
            table = folder / "input.parquet"
            _write_once(frame, table)
            task = ask_block(prompt, schema=schema, system=system, sampling=sampling, seed=seed)
            if render != "series":
                task |= {"render": render} | ({"plot": plot} if plot is not None else {})
            source: dict[str, Any] = {"kind": "table", "path": table.name}
            if images:
                source |= {"images": _names(images), "image_root": str(Path(image_root).resolve())}
            if series:
                source |= {"series": _names(series), "series_root": str(Path(series_root).resolve())}
                source |= {"rate_hz": rate_hz, "units": units}
            results = run_in(folder, name="frame", source=source, task=task, engine=engine)
            names = [*(column.name for column in results.schema.answer), *STATE_COLUMNS]
            rows = results.scan().sort("row_index").select(names).collect()
        clash = [name for name in names if prefix + name in frame.columns]
        if clash:
            raise JobFileError(f"the frame has columns named {', '.join(clash)} already; give a prefix")
        return frame.hstack(rows.rename({name: prefix + name for name in names}).get_columns())


def register() -> None:
    """Register `DataFrame.s1` and `LazyFrame.s1`; again is harmless."""
    if not hasattr(pl.DataFrame, NAMESPACE):
        pl.api.register_dataframe_namespace(NAMESPACE)(FrameNamespace)
        pl.api.register_lazyframe_namespace(NAMESPACE)(FrameNamespace)


def _names(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _write_once(frame: pl.DataFrame, path: Path) -> None:
    """Write the frame, unless the same one is there: rewriting would change the file's time, and so the plan."""
    if path.exists() and pl.read_parquet(path).equals(frame):
        return
    frame.write_parquet(path)
