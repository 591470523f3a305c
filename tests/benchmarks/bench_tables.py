"""Memory of a job over another run's rows as they grow to 20 times their number, and the time of a plot.

    python -m tests.benchmarks.bench_tables [ROWS]

Prints, asserts nothing. ROWS is the number at 20x (default 60,000; a million takes some minutes).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import yaml

from s1batch.jobs.drawing import Plot
from s1batch.jobs.pictures import draw
from s1batch.plan_store import PlanWriter
from s1batch.records import PlanEntry, Series
from s1batch.results.store import ResultsStore
from tests.benchmarks.harness import load, measure, table
from tests.plans import MINUTE_NS, SCHEMA, row, stretch, window

PER_PART = 1000
SIZES = (1, 20)
STATIONS = 200
PROGRAM = (sys.executable, "-m", "s1batch")


def write_results(path: Path, count: int) -> None:
    """Write the results of a run with so many rows of many stations."""

    def entry(number: int) -> PlanEntry:
        return window(number * MINUTE_NS, (number + 1) * MINUTE_NS, part=number // PER_PART)

    with PlanWriter(path) as writer:
        for number in range(count):
            writer.add(entry(number))
        writer.add(stretch(0, count * 6000))
    with ResultsStore(path, SCHEMA) as store:
        for part in range(-(-count // PER_PART)):
            numbers = range(part * PER_PART, min((part + 1) * PER_PART, count))
            rows = [row(entry(number), lineage={"station": f"S{number % STATIONS:03d}"}) for number in numbers]
            store.layout.rows.mkdir(exist_ok=True)
            fitted = [store.schema.fit(each) for each in rows]
            pl.DataFrame(store.schema.to_table(fitted)).write_parquet(store.layout.part_rows(part))


def bench_memory(folder: Path, most: int) -> None:
    """Plan and run over the rows, one question each and one for each group."""
    lines: list[tuple[str, ...]] = []
    for kind in ("rows", "groups"):
        for size in SIZES:
            count = most * size // SIZES[-1]
            first = folder / f"first{size}"
            if not first.exists():
                write_results(first, count)
            source: dict[str, Any] = {"kind": "results", "path": str(first), "columns": ["text", "p_index", "station"]}
            if kind == "groups":
                source |= {"group_by": ["station"], "order_by": ["start"], "max_rows": 64}
            job = folder / f"{kind}{size}.yaml"
            content = {
                "source": source,
                "job": {"kind": "ask", "prompt": "{{ rows | length if rows is defined else text }} {{ station }}"},
                "engine": {"kind": "replay", "function": "tests.answers:echo"},
            }
            job.write_text(yaml.safe_dump(content))
            usages = [
                measure([*PROGRAM, what, str(job), "-o", str(folder / f"{what}-{kind}{size}")], folder=folder)
                for what in ("plan", "run")
            ]
            line = [kind, f"{size}x", f"{count:,}"]
            for usage in usages:
                if usage.code not in (0, 3):
                    raise RuntimeError(usage.output)
                line += [f"{usage.peak_mb:,.0f}", f"{usage.cpu_s:.1f}"]
            lines.append(tuple(line))
    head = ("questions", "size", "rows", "plan: peak MB", "CPU s", "run: peak MB", "CPU s")
    print(table(f"Another run's rows as a source ({load()})", head, lines), flush=True)


def bench_plots() -> None:
    """CPU time of one plot, after the first."""
    noise = np.random.default_rng(0)
    lines = []
    for steps, channels in ((6000, 1), (6000, 3), (1_000_000, 3)):
        values_TC = noise.normal(size=(steps, channels)).astype(np.float32)
        names = tuple("ZNE"[:channels])
        series = Series(values_TC=values_TC, rate_hz=100.0, channels=names, start_ns=10**18, units="counts")
        line = [f"{steps:,} x {channels}"]
        for plot in get_args(Plot):
            draw(series, plot, (896, 672))
            begin, times = time.process_time(), 3
            for _ in range(times):
                size = len(draw(series, plot, (896, 672)).data)
            line.append(f"{(time.process_time() - begin) / times * 1000:.0f} ({size / 1024:,.0f})")
        lines.append(tuple(line))
    head = ("series", "waveform: ms (KiB)", "spectrogram", "recurrence")
    print(table("One plot of 896 x 672 pixels, CPU time of one core", head, lines))


def main() -> None:
    """Measure both."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 60_000
    bench_plots()
    with tempfile.TemporaryDirectory() as name:
        bench_memory(Path(name), most)


if __name__ == "__main__":
    main()
