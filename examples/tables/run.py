"""Two small tables, one with a broken line -> a question about every row -> Parquet -> proof.

python -m examples.tables.run [FOLDER]
"""

from __future__ import annotations

import shutil
from pathlib import Path

from examples.commands import folder_asked, show

HERE = Path(__file__).resolve().parent

CSV = "name,density\nquartz,2.65\noak,0.75\nhalite,2.16\n"
LINES = '{"name": "calcite", "density": 2.71}\n{"name": "brass", \n{"name": "olivine", "density": 3.32}\n'


def make(things: Path) -> None:
    """Write the tables; those that are there already stay, so that a second run resumes the first."""
    things.mkdir(parents=True, exist_ok=True)
    for name, text in (("a.csv", CSV), ("b.jsonl", LINES)):
        if not (things / name).exists():
            (things / name).write_text(text, encoding="utf-8")


def main() -> None:
    """Run the example in the folder given on the command line, or in ./tables-example."""
    folder = folder_asked("tables-example")
    make(folder / "things")
    job, results = folder / "job.yaml", str(folder / "results")
    shutil.copyfile(HERE / "job.yaml", job)
    show("plan", str(job))
    show("run", str(job))
    show("show", results)
    show("verify", results, "--sources")


if __name__ == "__main__":
    main()
