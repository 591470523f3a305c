"""Peak memory of plan and run as a seismic archive grows to 20 times its size; prints, asserts nothing.

    python tests/benchmarks/bench_memory.py

The archive has one file for each hour and channel; a function of this process answers, so that the run and not an
engine is seen.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.harness import load, measure, table  # noqa: E402

PROGRAM = (sys.executable, "-m", "s1batch")
STATION_HOURS = 8
SIZES = (1, 5, 20)
WRITER = """\
import sys
from pathlib import Path
import numpy as np
from tests.archives import START, write_trace
folder, hours, first = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
noise = np.random.default_rng(first)
for hour in range(first, hours):
    for channel in ("HHZ", "HHN", "HHE"):
        samples = noise.normal(0, 1000, 360_000)
        write_trace(folder / f"{hour:04d}.{channel}.mseed", samples, channel=channel, start=START + 3600 * hour)
"""


def main() -> None:
    """Grow the archive and measure at every size."""
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = folder / "job.yaml"
        job.write_text(
            yaml.safe_dump(
                {
                    "source": {"kind": "seismic", "paths": [f"{folder}/archive/*.mseed"]},
                    "window": {"length": "60s", "overlap": "50%"},
                    "job": {"kind": "seismic-pick"},
                    "engine": {"kind": "replay", "function": "tests.answers:loudest"},
                }
            )
        )
        written = 0
        for size in SIZES:
            hours = STATION_HOURS * size
            write = [sys.executable, "-c", WRITER, str(folder / "archive"), str(hours), str(written)]
            if measure(write, folder=folder).code != 0:
                raise RuntimeError((folder / "output.txt").read_text())
            written = hours
            nbytes = sum(path.stat().st_size for path in (folder / "archive").iterdir())
            plan = measure([*PROGRAM, "plan", str(job), "-o", str(folder / f"plan{size}")], folder=folder)
            run = measure([*PROGRAM, "run", str(job), "-o", str(folder / f"run{size}")], folder=folder)
            row = [f"{size}x", f"{nbytes / 2**20:,.0f}", f"{hours * 120:,}"]
            for usage in (plan, run):
                row += [f"{usage.peak_mb:,.0f}", f"{usage.wall_s:.1f}", str(usage.code)]
            rows.append(tuple(row))
    head = ("archive", "MB", "about chunks", "plan: peak MB", "wall s", "exit", "run: peak MB", "wall s", "exit")
    print(table(f"Memory as the archive grows ({load()})", head, rows))


if __name__ == "__main__":
    main()
