"""Onsets from tables.

A line says where: a station id (NET.STA.LOC.CHA, the later parts optional), station codes in columns, or a file of the
archive. And it says when, in one of two forms:

- long: one line for each onset, with its phase and its time, as QuakeFlow and SeisBench write picks;
- wide: one line for each record, with a column for each phase that holds a time or a sample (`p_index`,
  `trace_P_arrival_sample`), as SeisBench's metadata tables do.

A sample counts from the line's start time (else the file's) at the line's rate (else the file's). Times are ISO 8601
(UTC unless they name an offset), or seconds since 1970. Names of columns are compared without regard to case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from s1batch.errors import UsageError
from s1batch.jobs.scoring.archive_files import ArchiveFiles, FileFacts
from s1batch.jobs.scoring.phases import PHASES, Phase, onset_phase
from s1batch.jobs.scoring.truth import ONSETS, Truth
from s1batch.jobs.scoring.truth_times import parse_time_ns

ALIASES: Mapping[str, tuple[str, ...]] = {
    "station_id": ("station_id", "seed_id", "trace_id"),
    "network": ("network", "net", "network_code", "station_network_code"),
    "station": ("station", "sta", "station_code", "station_name"),
    "location": ("location", "loc", "location_code", "station_location_code"),
    "channel": ("channel", "channels", "band", "channel_code", "instrument", "trace_channel"),
    "file": ("file", "filename", "file_name", "fname", "path", "trace_name"),
    "phase": ("phase_type", "phase", "phase_hint", "phase_name", "type"),
    "time": ("phase_time", "time", "pick_time", "arrival_time", "timestamp"),
    "index": ("phase_index", "index", "sample", "phase_sample"),
    "start": ("start_time", "starttime", "start", "begin_time", "trace_start_time"),
    "rate": ("rate_hz", "sampling_rate", "sampling_rate_hz", "trace_sampling_rate_hz"),
}
"""What a column may be called; where a table has several of a kind, the first in this order counts."""

UNDERSTOOD = "; ".join(
    [f"{kind}: {', '.join(names)}" for kind, names in ALIASES.items()]
    + ["onsets in columns: p_index, s_index, p_time, s_time, p_arrival_sample, trace_Pg_arrival_sample and their like"]
)

_WIDE = re.compile(r"(?:trace_)?(?P<phase>[^_]+)_(?:arrival_)?(?P<unit>sample|index|time)", re.IGNORECASE)
NOTHING = frozenset({"nan", "nat", "none", "null", "na", "n/a", "-"})
"""What stands for no value in a column of numbers or times; a code may well be NA."""


def read_table(path: Path) -> pl.DataFrame:
    """Read a CSV file (comma, semicolon or tab) or a Parquet file.

    Raises:
        UsageError: It is neither.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return pl.read_parquet(path, glob=False)
        with path.open(encoding="utf-8-sig") as file:
            head = file.readline()
        separator = max(",;\t", key=head.count)
        return pl.read_csv(path, separator=separator, infer_schema=False, glob=False)
    except (OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"{path}: no table of truth can be read there: {' '.join(str(error).split())}") from error


def table_onsets(table: pl.DataFrame, files: ArchiveFiles, name: str) -> Truth:
    """Return the onsets of a table.

    Args:
        table: Its lines.
        files: The archive, for lines that name a file.
        name: What messages call the table.

    Raises:
        UsageError: Its columns say neither where nor when, or a value is malformed.
    """
    form = _Form.of(table.columns, name)
    plain = pl.DataFrame([text_column(table[column]) for column in form.used])
    onsets: list[tuple[str, str, str, str, str, int]] = []
    other = unplaced = 0
    for number, line in enumerate(plain.iter_rows(named=True), start=2):
        reader = _Line(line, form, files, f"{name}, line {number}")
        found, ignored = reader.phases()
        other += ignored
        for phase, value, is_time in found:
            place, time_ns = reader.place(), reader.time_ns(value, is_time)
            if place is None or time_ns is None:
                unplaced += 1
            else:
                onsets.append((*place, phase, time_ns))
    return Truth(onsets=pl.DataFrame(onsets, schema=ONSETS, orient="row"), other_phases=other, unplaced=unplaced)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """Which column holds what: by kind, and for the wide form (column, phase, whether it is a time)."""

    columns: Mapping[str, str]
    wide: tuple[tuple[str, Phase, bool], ...]
    ignored: tuple[str, ...]

    @property
    def used(self) -> list[str]:
        return list(dict.fromkeys([*self.columns.values(), *(column for column, _, _ in self.wide), *self.ignored]))

    @classmethod
    def of(cls, names: list[str], table: str) -> _Form:
        lower = {name.strip().lower(): name for name in reversed(names)}
        columns = {
            kind: lower[next(alias for alias in aliases if alias in lower)]
            for kind, aliases in ALIASES.items()
            if any(alias in lower for alias in aliases)
        }
        wide: list[tuple[str, Phase, bool]] = []
        ignored: list[str] = []
        for key, name in lower.items():
            match = _WIDE.fullmatch(key)
            if match is None or name in columns.values():
                continue
            phase = onset_phase(match["phase"])
            if phase is not None:
                wide.append((name, phase, match["unit"] == "time"))
            elif re.fullmatch(r"(?i)trace_\w+_arrival_\w+", key):
                ignored.append(name)
        is_long = "phase" in columns and bool({"time", "index"} & columns.keys())
        missing = []
        if not {"station_id", "station", "file"} & columns.keys():
            missing.append("where an onset is (a station or a file)")
        if not wide and not is_long:
            missing.append("when it is (phase and time, or columns such as p_index)")
        if missing:
            raise UsageError(
                f"{table}: this table does not say {' and '.join(missing)}. "
                f"Columns found: {', '.join(names) or 'none'}. Columns understood: {UNDERSTOOD}"
            )
        if wide:  # such a table has no phase column, or one that says something else
            columns = {kind: name for kind, name in columns.items() if kind not in ("phase", "time", "index")}
        return cls(columns=columns, wide=tuple(wide), ignored=tuple(ignored))


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a table, and how to read it."""

    values: Mapping[str, str]
    form: _Form
    files: ArchiveFiles
    where: str

    def phases(self) -> tuple[list[tuple[Phase, str, bool]], int]:
        """Return (phase, value, whether it is a time) of each onset, and how many entries are no onsets.

        In the wide form the earliest of the columns for one wave counts, as the onset that arrives first.
        """
        if not self.form.wide:
            value, is_time = self._value(self.form.columns.get("time")), True
            if not value:
                value, is_time = self._value(self.form.columns.get("index")), False
            name = self._get("phase")
            if not value or not name:
                return [], 0
            phase = onset_phase(name)
            return ([], 1) if phase is None else ([(phase, value, is_time)], 0)
        found: list[tuple[Phase, str, bool]] = []
        ignored = sum(bool(self._value(column)) for column in self.form.ignored)
        for phase in PHASES:
            entries = [
                (phase, self._value(column), is_time)
                for column, kind, is_time in self.form.wide
                if kind == phase and self._value(column)
            ]
            # A time and a sample of one onset say the same; the time needs no file to count in.
            entries = [entry for entry in entries if entry[2]] or entries
            if entries:
                found.append(min(entries, key=self._order))
                ignored += len(entries) - 1
        return found, ignored

    def place(self) -> tuple[str, str, str, str] | None:
        """Return network, station, location and band; None when they hang on a file that is not there."""
        identifier = self._get("station_id") or self._get("station")
        if "." in identifier:
            network, station, location, channel = _split(identifier)
        elif identifier:
            network, station, location, channel = "", self._get("station") or identifier, "", ""
        else:
            facts = self._file()
            if facts is None:
                return None
            network, station, location, channel = _split(facts.source)
        return (
            self._get("network") or network,
            station,
            (self._get("location") or location).strip("-"),
            (self._get("channel") or channel)[:2],
        )

    def time_ns(self, value: str, is_time: bool) -> int | None:
        """Return the time of an onset; None when it hangs on a file that is not there."""
        if is_time:
            return self._time(value)
        sample = self._number(value)
        start, rate = (self._value(self.form.columns.get(kind)) for kind in ("start", "rate"))
        facts = None if start and rate else self._file()
        if facts is None and not (start and rate):
            if "file" not in self.form.columns:
                raise UsageError(
                    f"{self.where}: sample {value} needs a start time and a rate, or the file it counts in"
                )
            return None
        start_ns = self._time(start) if start else facts.start_ns  # type: ignore[union-attr]
        rate_hz = self._number(rate) if rate else facts.rate_hz  # type: ignore[union-attr]
        if rate_hz <= 0:
            raise UsageError(f"{self.where}: {rate_hz:g} is no sampling rate")
        return start_ns + round(sample * 1e9 / rate_hz)

    def _get(self, kind: str) -> str:
        column = self.form.columns.get(kind)
        return self.values[column] if column is not None else ""

    def _value(self, column: str | None) -> str:
        """Return a number or a time as text, empty where there is none."""
        text = self.values[column] if column is not None else ""
        return "" if text.lower() in NOTHING else text

    def _file(self) -> FileFacts | None:
        name = self._get("file")
        return self.files.find(name) if name else None

    def _order(self, entry: tuple[Phase, str, bool]) -> float:
        return self._time(entry[1]) if entry[2] else self._number(entry[1])

    def _number(self, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not abs(number) < float("inf"):
            raise UsageError(f"{self.where}: {text!r} is no number")
        return number

    def _time(self, text: str) -> int:
        return parse_time_ns(text, self.where)


def _split(identifier: str) -> tuple[str, str, str, str]:
    network, station, location, channel = (part.strip() for part in (identifier + "...").split(".")[:4])
    return network, station, location, channel


def text_column(column: pl.Series) -> pl.Series:
    """Return a column as text; null is empty."""
    if isinstance(column.dtype, pl.Datetime):
        zoned = (
            column.dt.replace_time_zone("UTC") if column.dtype.time_zone is None else column.dt.convert_time_zone("UTC")
        )
        column = zoned.dt.cast_time_unit("ns").dt.strftime("%Y-%m-%dT%H:%M:%S%.9fZ")
    elif isinstance(column.dtype, pl.List):
        column = column.list.join(",")
    return column.cast(pl.String).fill_null("").str.strip_chars()
