"""Results in other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from s1batch.api import Results
from s1batch.errors import UsageError

Kind = Literal["csv", "parquet", "jsonl", "quakeflow"]

_BY_SUFFIX: dict[str, Kind] = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}


def export_results(results: Results, output: Path, kind: Kind | None = None, *, merged: bool = False) -> int:
    """Write the rows, or the merged answers, to one file.

    Args:
        results: What to export.
        output: The file; written as a whole or not at all.
        kind: csv, parquet, jsonl or quakeflow; None takes it from the suffix.
        merged: Merged answers instead of rows.

    Returns:
        How many rows were written.

    Raises:
        UsageError: The format is not known, or does not go with the job.
    """
    from s1batch.results.export import export_rows
    from s1batch.results.rows_file import naming_damage

    kind = kind or _BY_SUFFIX.get(output.suffix.lower())
    if kind is None:
        raise UsageError(f"{output}: no format is known by this suffix; give --format csv, parquet, jsonl or quakeflow")
    if kind == "quakeflow":
        if results.loaded.spec.job.kind != "seismic-pick":
            raise UsageError("--format quakeflow needs the results of a seismic-pick job")
        with naming_damage(results.path):
            return export_rows(results.picks().lazy(), output, "csv")
    rows = results.merged() if merged else results.scan()
    with naming_damage(results.path):
        return export_rows(rows, output, kind)
