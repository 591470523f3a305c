"""Papers in five formats, one of them torn -> claims with checked quotes -> proof -> score.

Writes a small corpus into papers/corpus, and runs the commands that a user would type, each shown with its output.
Needs no network and no GPU; run again, it resumes.
"""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

from examples.commands import folder_asked, show

HERE = Path(__file__).resolve().parent

PARAGRAPHS = (
    "The network recorded the swarm for nine days. Most events lie between 4 and 7 km depth, below the lava field. ",
    "We picked P and S by hand on all stations. The mean residual of P is 0.06 s, that of S is 0.11 s. ",
    "Granite from the quarry was saturated with water and loaded to 120 MPa. Its velocity fell by 5 % before failure. ",
    "The sensors were calibrated twice. Their sensitivity changed by less than 1 % over the whole experiment. ",
    "A model with two layers explains the arrivals. The upper layer has 2.9 km/s, and the lower one has 5.4 km/s. ",
)

JATS = """<article><front><article-meta><article-id pub-id-type="doi">10.0000/example.1</article-id>
<title-group><article-title>Velocity of wet granite</article-title></title-group><pub-date><year>2019</year></pub-date>
<abstract><p>{abstract}</p></abstract></article-meta></front>
<body><sec><title>Methods</title><p>{methods}</p></sec><sec><title>Results</title><p>{results}</p></sec></body></article>
"""

LATEX = r"""\documentclass{{article}}
\title{{A swarm below a lava field}}
\begin{{document}}
\section{{Introduction}}
{introduction}
\section{{Discussion}}
{discussion} The amplitude decays as $A \propto r^{{-1.6}}$.
\end{{document}}
"""


def text(number: int, times: int) -> str:
    """Return paragraphs that begin with a different one for each number."""
    return "\n\n".join(PARAGRAPHS[(number + step) % len(PARAGRAPHS)] * 3 for step in range(times))


def write_pdf(path: Path) -> None:
    """Write two pages with text and a figure."""
    import textwrap

    import numpy as np
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    with PdfPages(path, metadata={"Title": "A calibration of sensors", "CreationDate": None}) as pages:
        for number in range(2):
            figure = Figure(figsize=(8.3, 11.7))
            heading = ("1 Introduction", "2 Results")[number]
            lines = [heading, *textwrap.wrap(text(number + 3, 3), 90)]
            figure.text(0.1, 0.95, "\n".join(lines), va="top", fontsize=9)
            axes = figure.add_axes((0.1, 0.1, 0.8, 0.3))
            axes.imshow(np.random.default_rng(number).random((120, 300)), interpolation="none", aspect="auto")
            figure.text(0.1, 0.05, f"Figure {number + 1}. Noise of the sensor before calibration {number + 1}.")
            pages.savefig(figure)


def gather(corpus: Path) -> None:
    """Write the corpus; files that are there already stay, so that a second run resumes the first."""
    if corpus.exists():
        return
    new = corpus.with_name("corpus.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    rows = [
        {
            "id": f"example-{number}",
            "title": f"Report {number}",
            "year": 2010 + number,
            "text": text(number, 2 + 2 * number),
        }
        for number in range(4)
    ]
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    (new / "reports.jsonl").write_bytes(lines + b'{"id": "example-4", "text": NaN}\n')
    (new / "torn.jsonl.gz").write_bytes(gzip.compress(lines)[:-20])
    (new / "granite.xml").write_text(JATS.format(abstract=text(2, 1), methods=text(3, 2), results=text(4, 2)))
    (new / "swarm.tex").write_text(LATEX.format(introduction=text(0, 2), discussion=text(4, 3)))
    (new / "notes.md").write_text(f"# Field notes\n\n## Monday\n\n{text(1, 1)}\n\n## Tuesday\n\n{text(2, 1)}\n")
    write_pdf(new / "calibration.pdf")
    (new / "broken.pdf").write_bytes(b"%PDF-1.7\nThis is no paper.\n")
    new.rename(corpus)


def main() -> None:
    """Run the example in the folder given on the command line, or in ./papers."""
    folder = folder_asked("papers")
    gather(folder / "corpus")
    job = folder / "job.yaml"
    shutil.copyfile(HERE / "job.yaml", job)
    results = str(folder / "results")
    show("plan", str(job))
    # The line with NaN, the torn file and the broken PDF get their rows too; --accept says that these are expected, and
    # so is an answer of the embedded model that finds no end.
    show("run", str(job), "--accept", "unreadable,length")
    show("show", results, "--columns", "source,section,page,outcome,reason,n_claims,n_verified,n_numbers_ok")
    show("show", results, "--merged", "-n", "5")
    show("verify", results, "--sources")
    show("score", results)
    print(
        "\nThe embedded model cannot read: it invents its quotes, and the score tells. A quote that is in its passage"
    )
    print(f"has status exact or normalised. The table: {results}/rows/*.parquet, merged: {results}/merged.")


if __name__ == "__main__":
    main()
