"""Writes a first job file for the data that a folder holds."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from s1batch.errors import UsageError

LOOK_AT = 2000
TABLES = {".parquet", ".csv", ".jsonl"}

_SEISMIC = """\
# A first job: earthquake detection and P and S picks. Every field: s1batch schema
name: {name}
source:
  kind: seismic
  {where}
  components: ZNE              # order of the channels; missing ones are filled with zeros and recorded
  rate_hz: 102                 # resample: the embedded model knows this rate only; left out: as recorded
window: {{length: 30s, overlap: 50%, tail: shift}}
job: {{kind: seismic-pick}}      # prompt, answer columns and interpretation come with it
engine: {{kind: reference}}      # the embedded model; on a cluster: {{kind: http, urls: [http://node0:23333/v1]}}
output: results/{name}
"""

_TABLE = """\
# A first job: a question about every row of a table. Every field: s1batch schema
name: {name}
source: {{kind: table, path: {where}}}
job:
  kind: ask
  prompt: "Describe this record: {{{{ {column} }}}}"
  # schema: {{type: object, properties: {{kind: {{type: string}}}}, required: [kind]}}
engine: {{kind: reference}}      # the embedded model; on a cluster: {{kind: http, urls: [http://node0:23333/v1]}}
output: results/{name}
"""


def write_job_file(folder: Path, output: Path) -> str:
    """Look at the first files of a folder and write a job file for them.

    Returns:
        A line that says what was found and what to do next.

    Raises:
        UsageError: Nothing that s1batch reads is there, or the file exists already.
    """
    from s1batch.errors import SourceError
    from s1batch.readers.seismic.detect import detect_format

    if output.exists():
        raise UsageError(f"{output} exists already; give another name with -o")
    formats: Counter[str] = Counter()
    tables: list[Path] = []
    for path in _files(folder):
        if path.suffix.lower() in TABLES:
            tables.append(path)
            continue
        try:
            formats[detect_format(str(path))] += 1
        except SourceError:
            continue
    where = os.path.relpath(folder, output.resolve().parent)
    name = folder.resolve().name or "job"
    if formats:
        sds = _is_sds(folder)
        found = f"sds: {where}" if sds else f'paths: ["{where}/**/*"]'
        text = _SEISMIC.format(name=name, where=found)
        what = ", ".join(f"{count} {kind}" for kind, count in formats.most_common())
    elif tables:
        relative = os.path.relpath(tables[0], output.resolve().parent)
        text = _TABLE.format(name=name, where=relative, column=_first_column(tables[0]))
        what = f"{len(tables)} tables"
    else:
        raise UsageError(f"{folder}: no waveforms and no tables (Parquet, CSV, JSONL) among the first {LOOK_AT} files")
    output.write_text(text, encoding="utf-8")
    return f"{output}: written for {what} in {folder}; next: s1batch plan {output}"


def _files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for base, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(base, name) for name in sorted(names)]
        if len(found) >= LOOK_AT:
            break
    return found[:LOOK_AT]


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
        case ".csv":
            frame = pl.scan_csv(path)
        case _:
            frame = pl.scan_ndjson(path)
    return frame.collect_schema().names()[0]
