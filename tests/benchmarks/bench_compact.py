"""Few large files instead of many small ones: how fast, in how much memory, and what it is good for.

    python -m tests.benchmarks.bench_compact [--parts 25] [--times 20] [FOLDER]

Each size is compacted in a process of its own, once to warm it up on a few parts, then for its memory. Prints a table;
asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import orjson
import polars as pl

from s1batch.plan_store import PlanStore, PlanWriter
from s1batch.process_settings import settle_process
from s1batch.results.compaction import compact
from s1batch.results.rows_file import write_rows
from s1batch.results.store import ResultsStore
from tests.benchmarks.harness import load, table
from tests.plans import MINUTE_NS, SCHEMA, row, stretch, window

PER_PART = 100


def make(path: Path, parts: int) -> None:
    """Plan and finish parts, without journals and flushes."""
    with PlanWriter(path) as writer:
        for number in range(parts * PER_PART):
            writer.add(window(number * MINUTE_NS, (number + 1) * MINUTE_NS, part=number // PER_PART))
        writer.add(stretch(0, parts * PER_PART * 6000))
    plan = PlanStore(path)
    template = SCHEMA.fit(row(window(0, MINUTE_NS), text='{"contain": true, "p_index": 2310}' * 4))
    with ResultsStore(path, SCHEMA) as store:
        for part in range(parts):
            rows = [replace(template, chunk_key=key, part=part, seconds=i / 7) for i, key in enumerate(plan.keys(part))]
            write_rows(store.layout.part_rows(part), SCHEMA, rows)


def timed_listing(path: Path) -> tuple[float, float]:
    """Return the milliseconds to find the finished parts, and those in which plain polars counts outcomes."""
    with ResultsStore(path, None) as store:
        began = time.perf_counter()
        store.finished()
        listed = time.perf_counter()
    pl.scan_parquet(path / "rows" / "*.parquet").group_by("outcome").len().collect()
    return 1e3 * (listed - began), 1e3 * (time.perf_counter() - listed)


def child(warm: Path, path: Path) -> None:
    """Compact in this process, and print what it took."""
    settle_process()
    compact(warm)
    before = timed_listing(path)
    warm_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began, cpu = time.perf_counter(), time.process_time()
    done = compact(path)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    after = timed_listing(path)
    found = {"files": [done.before, done.after], "rows": done.rows, "s": took, "cpu_s": cpu, "mb": [warm_mb, peak_mb]}
    print(orjson.dumps({**found, "before": before, "after": after}).decode())


def main() -> None:
    """Compact a results folder and one of many times its size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=int, default=25, help=f"parts of {PER_PART} rows of the smaller one")
    parser.add_argument("--times", type=int, default=20, help="how many times larger the other one is")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("folder", nargs="?")
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    os.fsync = lambda fd: None  # flushes for rows that nobody will miss
    shown = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for times in (1, options.times):
            warm, path = Path(name) / f"warm{times}", Path(name) / f"out{times}"
            make(warm, 3)
            make(path, options.parts * times)
            command = [sys.executable, "-m", "tests.benchmarks.bench_compact", "--child", str(warm), str(path)]
            found = orjson.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            shown.append(
                (
                    f"{found['rows']:,}",
                    f"{found['files'][0]:,} -> {found['files'][1]:,}",
                    f"{found['rows'] / found['s']:,.0f}",
                    f"{found['cpu_s']:.2f}",
                    f"{found['mb'][1]:,.0f}",
                    f"{found['before'][0]:.1f} -> {found['after'][0]:.1f}",
                    f"{found['before'][1]:.0f} -> {found['after'][1]:.0f}",
                )
            )
    head = ("rows", "files", "rows/s", "CPU s", "peak MB", "finished parts found, ms", "counted by polars, ms")
    print(table(f"compact, parts of {PER_PART} rows ({load()})", head, shown))
    growth = float(shown[1][4].replace(",", "")) - float(shown[0][4].replace(",", ""))
    print(f"memory grows by {growth:.0f} MB for {options.times} times the rows")


if __name__ == "__main__":
    main()
