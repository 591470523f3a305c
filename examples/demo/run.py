"""`make demo`: real seismograms -> seismic-pick on the embedded reference model -> Parquet -> proof.

Gathers records that ObsPy ships (plus one broken file) into demo/archive, and runs the commands that a user would
type, each shown with its output. Needs no network and no GPU.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import obspy

from examples.commands import folder_asked, show
from examples.demo.compare import comparison_lines

HERE = Path(__file__).resolve().parent
SHIPPED = Path(obspy.__file__).parent

RECORDS = (
    # The Unterhaching network, 27 May 2010: four stations, one with three components.
    "signal/tests/data/BW.UH1._.SHZ.D.2010.147.cut.slist.gz",
    "signal/tests/data/BW.UH2._.SHZ.D.2010.147.cut.slist.gz",
    "signal/tests/data/BW.UH3._.SHE.D.2010.147.cut.slist.gz",
    "signal/tests/data/BW.UH3._.SHN.D.2010.147.cut.slist.gz",
    "signal/tests/data/BW.UH3._.SHZ.D.2010.147.cut.slist.gz",
    "signal/tests/data/BW.UH4._.EHZ.D.2010.147.cut.slist.gz",
    "io/nied/tests/data/test.knet",
    "io/kinemetrics/tests/data/STNA.20020722.044649.evt.gz",
    "io/seisan/tests/data/2005-07-23-1452-04S.CER___030",
    "io/gse2/tests/data/loc_RJOB20050831023349.z",
    "io/mseed/tests/data/gaps.mseed",
)

BROKEN = b"This is no seismogram.\n"


def gather(archive: Path) -> None:
    """Fill the archive; files that are there already stay, so that a second demo resumes the first."""
    archive.mkdir(parents=True, exist_ok=True)
    for trace in obspy.read():  # ObsPy's example stream: a local earthquake at RJOB, 24 August 2009
        path = archive / f"{trace.id}.mseed"
        if not path.exists():
            trace.data = trace.data.astype("float32")
            trace.write(str(path), format="MSEED")
    for record in RECORDS:
        path = archive / Path(record).name
        if not path.exists():
            shutil.copyfile(SHIPPED / record, path)
    if not (archive / "broken.mseed").exists():
        (archive / "broken.mseed").write_bytes(BROKEN)


def main() -> None:
    """Run the demo in the folder given on the command line, or in ./demo."""
    folder = folder_asked("demo")
    gather(folder / "archive")
    job = folder / "job.yaml"
    shutil.copyfile(HERE / "job.yaml", job)
    results = str(folder / "results")
    show("plan", str(job))
    # The broken file and windows with long gaps get their rows too; --accept says that these are expected.
    show("run", str(job), "--accept", "unreadable,refused")
    show("show", results)
    show("export", results, str(folder / "picks.csv"), "--format", "quakeflow")
    show("verify", results)
    print("\n" + "\n".join(comparison_lines(folder / "results")))
    print(
        f"\nThe table is in {results}/rows/*.parquet, for polars, pyarrow or DuckDB. Run `make demo` again: it resumes."
    )


if __name__ == "__main__":
    main()
