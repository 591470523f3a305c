"""Reads truth: P and S onsets from tables, QuakeML, or a folder of them.

Tables (CSV with comma, semicolon or tab, Parquet) are described in `s1batch.jobs.scoring.truth_table`, event files in
`s1batch.jobs.scoring.truth_events`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from s1batch.errors import UsageError
from s1batch.jobs.scoring.archive_files import ArchiveFiles

ONSETS = pl.Schema(
    {
        "network": pl.String,
        "station": pl.String,
        "location": pl.String,
        "band": pl.String,
        "phase": pl.String,
        "time_ns": pl.Int64,
    }
)
"""Columns of a table of onsets; empty text in `network`, `location` or `band` means that the truth does not say."""

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
EVENT_SUFFIXES = (".xml", ".quakeml", ".qml", ".scml", ".sc3ml")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """Onsets, and what the truth held besides.

    Attributes:
        onsets: Table with the columns `ONSETS`.
        other_phases: Entries left out because their phase is neither a direct P nor a direct S, or follows a direct
            one of the same wave and event.
        unplaced: Entries left out because they count samples of a file that is not in the archive.
        skipped: Files of a folder that hold no picks by their format.
    """

    onsets: pl.DataFrame
    other_phases: int = 0
    unplaced: int = 0
    skipped: tuple[str, ...] = ()


def read_truth(source: str | Path | pl.DataFrame, files: ArchiveFiles) -> Truth:
    """Read the truth.

    Args:
        source: A file, a folder (all tables and event files below it count), or a table.
        files: The archive that was scored, for entries that count samples of its files.

    Raises:
        UsageError: The truth cannot be read, or is in no form that is understood.
    """
    from s1batch.jobs.scoring.truth_table import read_table, table_onsets

    if isinstance(source, pl.DataFrame):
        return table_onsets(source, files, "the truth table")
    path = Path(source)
    if path.is_dir():
        return _read_folder(path, files)
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file or folder of truth")
    if path.suffix.lower() in TABLE_SUFFIXES:
        return table_onsets(read_table(path), files, str(path))
    from s1batch.jobs.scoring.truth_events import event_format, event_onsets

    kind = event_format(path)
    if kind is not None:
        return event_onsets(path, kind)
    if path.suffix.lower() in EVENT_SUFFIXES:
        raise UsageError(f"{path}: neither QuakeML nor another event format that is understood")
    return table_onsets(read_table(path), files, str(path))


def _read_folder(folder: Path, files: ArchiveFiles) -> Truth:
    from s1batch.jobs.scoring.truth_events import event_format

    found: list[Truth] = []
    skipped: list[str] = []
    for path in sorted(folder.rglob("*")):
        suffix = path.suffix.lower()
        if not path.is_file() or suffix not in TABLE_SUFFIXES + EVENT_SUFFIXES:
            continue
        if suffix in EVENT_SUFFIXES and event_format(path) is None:
            skipped.append(str(path.relative_to(folder)))
            continue
        found.append(read_truth(path, files))
    if not found:
        raise UsageError(
            f"{folder}: no truth there; tables end in {', '.join(TABLE_SUFFIXES)}, event files in "
            f"{', '.join(EVENT_SUFFIXES)}"
        )
    return _together(found, skipped)


def _together(found: Sequence[Truth], skipped: Sequence[str]) -> Truth:
    return Truth(
        onsets=pl.concat([truth.onsets for truth in found]),
        other_phases=sum(truth.other_phases for truth in found),
        unplaced=sum(truth.unplaced for truth in found),
        skipped=tuple(skipped),
    )
