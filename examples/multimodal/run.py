"""A waveform, its spectrogram and the events of its time in one prompt.

    python -m examples.multimodal.run [FOLDER]

Uses a record that ObsPy ships, and the embedded reference model: no network, no GPU. Run it again: it resumes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import obspy

from examples.commands import folder_asked, show

HERE = Path(__file__).resolve().parent
CATALOGUE = "origin,magnitude\n2009-08-24T00:20:06Z,1.4\n2009-08-24T02:00:00Z,0.9\n"


def gather(folder: Path) -> None:
    """Write the archive and the catalogue; files that are there already stay, so that a second run resumes."""
    archive = folder / "archive"
    archive.mkdir(parents=True, exist_ok=True)
    for trace in obspy.read():  # ObsPy's example: a local earthquake at RJOB, 24 August 2009
        path = archive / f"{trace.id}.mseed"
        if not path.exists():
            trace.data = trace.data.astype("float32")
            trace.write(str(path), format="MSEED")
    if not (folder / "catalogue.csv").exists():
        (folder / "catalogue.csv").write_text(CATALOGUE)


def main() -> None:
    """Run the job in the folder given on the command line, or in ./multimodal."""
    folder = folder_asked("multimodal")
    gather(folder)
    job, results = folder / "job.yaml", str(folder / "results")
    shutil.copyfile(HERE / "job.yaml", job)
    show("preview", str(job), "-n", "1")
    show("run", str(job))
    show("verify", results, "--sources")
    show("show", results)


if __name__ == "__main__":
    main()
