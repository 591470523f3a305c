"""Writes a first job file for the data that a folder holds."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from s1batch.errors import SourceError, UsageError

Kind = Literal["seismic", "sensors", "papers", "images", "table"]

LOOK_AT = 2000

_ENGINE = """\
engine: {{kind: reference}}      # the embedded model; on a cluster: {{kind: http, urls: [http://node0:23333/v1]}}
output: results/{name}
"""

_TEMPLATES: dict[Kind, str] = {
    "seismic": """\
# A first job: earthquake detection and P and S picks. Every field: s1batch schema
name: {name}
source:
  kind: seismic
  {where}
  components: ZNE              # order of the channels; missing ones are filled with zeros and recorded
  rate_hz: 102                 # resample: the embedded model knows this rate only; left out: as recorded
window: {{length: 30s, overlap: 50%, tail: shift}}
job: {{kind: seismic-pick}}      # prompt, answer columns and interpretation come with it
""",
    "sensors": """\
# A first job: anomalies in windows of sensor arrays. Every field: s1batch schema
name: {name}
source:
  kind: sensors
  {where}
  # variables: [temperature]   # shell patterns; left out: every array of numbers that has a time
  group: together              # all channels in one series; each: every channel by itself
  nan: interpolate             # or mask, or refuse; the share of missing values is recorded
window: {{length: 6000, overlap: 10%, tail: shift}}   # samples; or 60s
job: {{kind: sensor-anomaly}}    # prompt, answer columns and interpretation come with it
""",
    "papers": """\
# A first job: claims with quotes that are checked against the text. Every field: s1batch schema
name: {name}
source:
  kind: papers
  {where}
  passages: {{tokens: 4000, overlap: 200}}   # tokens of the model that answers; or passages: whole
job: {{kind: paper-extract}}     # prompt, answer columns and interpretation come with it
""",
    "images": """\
# A first job: a caption and the objects of every image. Every field: s1batch schema
name: {name}
source:
  kind: images
  {where}
  # tile: {{size: 1024, overlap: 64}}   # cut larger images; left out: each is sent whole
job: {{kind: image-describe}}    # prompt, answer columns and interpretation come with it
""",
    "table": """\
# A first job: a question about every row of a table. Every field: s1batch schema
name: {name}
source: {{kind: table, {where}}}
job:
  kind: ask
  prompt: "Describe this record: {{{{ {column} }}}}"
  # schema: {{type: object, properties: {{kind: {{type: string}}}}, required: [kind]}}
""",
}

_WORDS: dict[Kind, tuple[str, str]] = {
    "seismic": ("waveform file", "waveform files"),
    "sensors": ("store of arrays", "stores of arrays"),
    "papers": ("file of papers", "files of papers"),
    "images": ("image", "images"),
    "table": ("table", "tables"),
}

_TABLES = {".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".arrow", ".feather"}
_ARRAYS = {".nc", ".nc4", ".cdf", ".h5", ".hdf5"}
_PAPERS = {".pdf", ".xml", ".nxml", ".tei", ".tex"}
_IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".fits", ".fit", ".dcm"}
_ZARR = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
_TEXT_FIELDS = {"text", "abstract", "content", "fulltext", "body_text"}


@dataclass(slots=True)
class _Found:
    """What lies in a folder.

    Attributes:
        counts: Files by kind.
        suffixes: Their endings by kind.
        formats: Formats of waveforms.
        table: The first table.
    """

    counts: Counter[Kind] = field(default_factory=Counter)
    suffixes: dict[Kind, set[str]] = field(default_factory=dict)
    formats: Counter[str] = field(default_factory=Counter)
    table: Path | None = None

    def add(self, kind: Kind, ending: str) -> None:
        self.counts[kind] += 1
        self.suffixes.setdefault(kind, set()).add(ending)


def write_job_file(folder: Path, output: Path) -> str:
    """Look at the first files of a folder and write a job file for the kind of data that most of them hold.

    Returns:
        A line that says what was found and what to do next.

    Raises:
        UsageError: Nothing that s1batch reads is there, or the file exists already.
    """
    if output.exists():
        raise UsageError(f"{output} exists already; give another name with -o")
    found = _look(folder)
    if not found.counts:
        raise UsageError(
            f"{folder}: no waveforms, sensor arrays, papers, images or tables among the first {LOOK_AT} files"
        )
    kind = found.counts.most_common(1)[0][0]
    where = os.path.relpath(folder, output.resolve().parent)
    name = folder.resolve().name or "job"
    column = _first_column(found.table) if kind == "table" and found.table is not None else ""
    text = _TEMPLATES[kind] + _ENGINE
    output.write_text(
        text.format(name=name, where=_where(kind, found, folder, where, output), column=column), encoding="utf-8"
    )
    what = ", ".join(_counted(each, count, found) for each, count in found.counts.most_common())
    return f"{output}: written for {what} in {folder}; next: s1batch plan {output}"


def _look(folder: Path) -> _Found:
    from s1batch.readers.seismic.detect import detect_format

    found = _Found()
    for path in _files(folder):
        ending = path.suffix.lower()
        if path.is_dir():
            found.add("sensors", ".zarr")
        elif ending in _ARRAYS:
            found.add("sensors", ending)
        elif ending in _IMAGES:
            found.add("images", ending)
        elif ending in _PAPERS or _is_corpus(path):
            found.add("papers", "".join(path.suffixes[-2:]).lower() if ending in (".gz", ".zst") else ending)
        elif ending in _TABLES:
            found.add("table", ending)
            found.table = found.table or path
        else:
            try:
                found.formats[detect_format(str(path))] += 1
            except SourceError:
                continue
            found.add("seismic", ending)
    return found


def _files(folder: Path) -> list[Path]:
    """Return the first files below a folder, by name; a Zarr store counts as one."""
    found: list[Path] = []
    for base, folders, names in os.walk(folder):
        if any(name in names for name in _ZARR):
            found.append(Path(base))
            folders.clear()
            continue
        folders.sort()
        found += [Path(base, name) for name in sorted(names)]
        if len(found) >= LOOK_AT:
            break
    return found[:LOOK_AT]


def _is_corpus(path: Path) -> bool:
    """Whether lines of JSON hold texts of papers, rather than rows of a table."""
    import orjson

    names = path.name.lower()
    if names.endswith((".jsonl.gz", ".jsonl.zst", ".ndjson.gz", ".ndjson.zst")):
        return True
    if not names.endswith((".jsonl", ".ndjson")):
        return False
    try:
        with path.open("rb") as file:
            first = orjson.loads(file.readline(10_000_000))
    except (OSError, orjson.JSONDecodeError):
        return False
    return isinstance(first, dict) and "title" in first and not _TEXT_FIELDS.isdisjoint(first)


def _where(kind: Kind, found: _Found, folder: Path, where: str, output: Path) -> str:
    if kind == "seismic":
        return f"sds: {where}" if _is_sds(folder) else f'paths: ["{where}/**/*"]'
    if kind == "table" and found.table is not None:
        return f"path: {os.path.relpath(found.table, output.resolve().parent)}"
    return "paths: [" + ", ".join(f'"{where}/**/*{ending}"' for ending in sorted(found.suffixes[kind])) + "]"


def _counted(kind: Kind, count: int, found: _Found) -> str:
    if kind == "seismic":
        return ", ".join(f"{number} {name}" for name, number in found.formats.most_common())
    return f"{count} {_WORDS[kind][count != 1]}"


def _is_sds(folder: Path) -> bool:
    return any(
        year.name.isdigit() and len(year.name) == 4 and any(year.glob("*/*/*.D"))
        for year in folder.iterdir()
        if year.is_dir()
    )


def _first_column(path: Path) -> str:
    import polars as pl

    match path.suffix.lower():
        case ".parquet":
            frame = pl.scan_parquet(path)
        case ".csv" | ".tsv":
            frame = pl.scan_csv(path, separator="\t" if path.suffix.lower() == ".tsv" else ",")
        case ".arrow" | ".feather":
            frame = pl.scan_ipc(path)
        case _:
            frame = pl.scan_ndjson(path)
    return frame.collect_schema().names()[0]
