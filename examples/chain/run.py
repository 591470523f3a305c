"""Two stages: picks in every window of an archive, then one question for each station over the rows of the first.

    python -m examples.chain.run [FOLDER]

Uses records that ObsPy ships, and the embedded reference model: no network, no GPU. Run it again: it resumes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import obspy

from examples.commands import folder_asked, show

HERE = Path(__file__).resolve().parent
SHIPPED = Path(obspy.__file__).parent / "signal" / "tests" / "data"
RECORDS = ("BW.UH1._.SHZ.D.2010.147.cut.slist.gz", "BW.UH2._.SHZ.D.2010.147.cut.slist.gz")


def gather(folder: Path) -> None:
    """Fill the archive; files that are there already stay, so that a second run resumes the first."""
    archive = folder / "archive"
    archive.mkdir(parents=True, exist_ok=True)
    for trace in obspy.read():
        path = archive / f"{trace.id}.mseed"
        if not path.exists():
            trace.data = trace.data.astype("float32")
            trace.write(str(path), format="MSEED")
    for record in RECORDS:
        if not (archive / record).exists():
            shutil.copyfile(SHIPPED / record, archive / record)


def main() -> None:
    """Run both stages in the folder given on the command line, or in ./chain."""
    folder = folder_asked("chain")
    gather(folder)
    for name in ("1-pick", "2-stations"):
        shutil.copyfile(HERE / f"{name}.yaml", folder / f"{name}.yaml")
        results = str(folder / "results" / name.partition("-")[2])
        show("run", str(folder / f"{name}.yaml"))
        show("verify", results, "--sources")
    show("show", results)


if __name__ == "__main__":
    main()
