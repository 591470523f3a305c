"""`ds.s1.infer(...)`: the `ask` job over windows of an xarray object."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from s1batch.object_runs import STATE_COLUMNS, ask_block, folder_for, run_in

if TYPE_CHECKING:
    import polars as pl

NAMESPACE = "s1"
_PLACE = ("variable", "channels", "start", "end", "span_start", "span_end")


class ArraysNamespace:
    """What `Dataset.s1` and `DataArray.s1` offer."""

    def __init__(self, arrays: xr.Dataset | xr.DataArray) -> None:
        self._arrays = arrays

    def infer(
        self,
        prompt: str,
        *,
        window: Mapping[str, Any] | str = "60s",
        source: Mapping[str, Any] | None = None,
        schema: Mapping[str, Any] | str | type | None = None,
        system: str | None = None,
        engine: Mapping[str, Any] | str = "reference",
        sampling: Mapping[str, Any] | None = None,
        seed: int = 0,
        output: str | Path | None = None,
    ) -> pl.DataFrame:
        """Ask about every window.

        Args:
            prompt: Jinja2 template over the lineage of a window, such as `"{{ variable }} in {{ units }}?"`.
            window: `window` block of a job file, or just its length.
            source: Further fields of a `source: {kind: sensors}` block: `variables`, `time`, `channels`, `group`, ...
            schema: JSON Schema, `module:Model`, or a pydantic model class; its properties become columns.
            system: System prompt.
            engine: `engine` block of a job file, or just its kind.
            sampling: `sampling` block of a job file.
            seed: Seed of the sampling.
            output: Results folder. With one, a second call goes on where the first was stopped and asks nothing
                twice; without one, the results are kept only in the frame that is returned.

        Returns:
            One row for each window: variable, channels, start and end (UTC), span_start and span_end (steps), the
            schema's columns, and outcome, reason, detail, text and reasoning.

        Raises:
            JobFileError: An argument is wrong.

        Example:
            >>> ds = xr.Dataset({"heat": (("time",), heat)}, coords={"time": times})  # doctest: +SKIP
            >>> ds.s1.infer("Does {{ variable }} rise?", window="10min", output="answers")  # doctest: +SKIP
        """
        with folder_for(output) as folder:
            store = folder / "input.zarr"
            _write_once(self._dataset(), store)
            results = run_in(
                folder,
                name="arrays",
                source={"kind": "sensors", "paths": [store.name], **(source or {})},
                window={"length": window} if isinstance(window, str) else window,
                task=ask_block(prompt, schema=schema, system=system, sampling=sampling, seed=seed),
                engine=engine,
            )
            names = [*_PLACE, *(column.name for column in results.schema.answer), *STATE_COLUMNS]
            return results.scan().select(names).collect()

    def _dataset(self) -> xr.Dataset:
        if isinstance(self._arrays, xr.Dataset):
            return self._arrays
        return self._arrays.to_dataset(name=str(self._arrays.name or "values"))


def register() -> None:
    """Register `Dataset.s1` and `DataArray.s1`; again is harmless."""
    if not hasattr(xr.Dataset, NAMESPACE):
        xr.register_dataset_accessor(NAMESPACE)(ArraysNamespace)
    if not hasattr(xr.DataArray, NAMESPACE):
        xr.register_dataarray_accessor(NAMESPACE)(ArraysNamespace)


def _write_once(dataset: xr.Dataset, store: Path) -> None:
    """Write the arrays, unless the same ones are there: rewriting would change the store's time, and so the plan."""
    plain = dataset.drop_encoding()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about types that Zarr's standard does not name
        if store.exists():
            with xr.open_zarr(store, chunks=None, consolidated=False) as there:
                if there.load().identical(plain):
                    return
        plain.to_zarr(store, mode="w", zarr_format=3, consolidated=False)
