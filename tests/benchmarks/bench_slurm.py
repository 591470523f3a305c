"""Arrays on a real Slurm of four nodes: from submission to the first row, and the makespan over the ideal one.

    python -m tests.benchmarks.bench_slurm [--seconds 120] [--plan]

Every question takes four seconds and each task has eight on their way, so that four tasks need exactly the given time.
With --plan, `submit` makes the plan, and not a task. Needs root and Debian's Slurm, as tests/slurm does. Prints a
table; asserts nothing.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from datetime import datetime
from pathlib import Path

from tests.benchmarks.harness import load, table
from tests.debian import CannotRun
from tests.slurm.cluster import NODES, Cluster
from tests.slurm.submitted import Submitted

IN_FLIGHT = 8
ANSWER_S = 4


def run(cluster: Cluster, folder: Path, seconds: int, *more: str) -> list[tuple[str, str]]:
    """Run an array with one task on each node, and return what it took."""
    count = len(NODES) * seconds * IN_FLIGHT // ANSWER_S
    job = Submitted(cluster, folder, rows=count, slow=lambda number: True)
    before = time.time()
    options = ["--no-closing", "--sbatch", "exclusive", "--set", f"run.parts_in_flight={IN_FLIGHT}"]
    job.submit(len(NODES), *options, *more, ANSWER_S=str(ANSWER_S))
    submitted = time.time()
    rows = job.results / "rows"
    job.until(lambda: any(rows.glob("part-*")), "the first row", 120)
    job.until(lambda: len(list(rows.glob("part-*"))) == count, "all rows", 3 * seconds + 300)
    times = sorted(path.stat().st_mtime for path in rows.glob("part-*"))
    job.check(count)
    array = job.last.read_jobs().arrays[0]
    said = cluster.call("scontrol", "--oneliner", "show", "job", array)
    starts = [word.partition("=")[2] for word in said.split() if word.startswith("StartTime=")]
    began = min(datetime.fromisoformat(start).timestamp() for start in starts)
    return [
        ("`s1batch submit`", f"{submitted - before:.1f} s"),
        ("from its end to the first row", f"{times[0] - submitted:.1f} s"),
        ("ideal makespan", f"{seconds} s"),
        ("makespan, from the first task's start to the last row", f"{times[-1] - began:.1f} s"),
        ("makespan over ideal", f"{(times[-1] - began) / seconds:.3f}"),
        ("first to last row, over ideal", f"{(times[-1] - times[0] + ANSWER_S) / seconds:.3f}"),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--plan", action="store_true")
    asked = parser.parse_args()
    more = ("--plan",) if asked.plan else ()
    folder = Path(tempfile.mkdtemp(prefix="s1bench-", dir="/tmp"))
    try:
        with Cluster(folder / "slurm", accounting=False) as cluster:
            lines = run(cluster, folder / "job", asked.seconds, *more)
    except CannotRun as reason:
        print(f"no Slurm cluster here: {reason}")
        return
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    title = f"4 tasks on 4 virtual nodes, {IN_FLIGHT} questions of {ANSWER_S} s at a time in each; {load()}"
    print(table(title, ("what", "took"), lines))


if __name__ == "__main__":
    main()
