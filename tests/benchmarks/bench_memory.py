"""Peak memory of plan and run as a seismic archive grows to 20 times its size; prints, asserts nothing.

    python tests/benchmarks/bench_memory.py [--repeat 3]

The archive has one file for each hour and channel; a function of this process answers, so that the run and not an
engine is seen. Each command runs several times: peaks differ by some MB from run to run, with what else the machine
does. The table shows all of them; growth is given between medians, and from the lowest at 1x to the highest at 20x.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.harness import Usage, load, measure, table  # noqa: E402

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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    rows: list[tuple[str, ...]] = []
    peaks: dict[str, list[list[float]]] = {"plan": [], "run": []}
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
            row = [f"{size}x", f"{nbytes / 2**20:,.0f}", f"{hours * 120:,}"]
            for command, found in peaks.items():
                usages = [_measured(command, job, folder) for _ in range(repeat)]
                found.append([usage.peak_mb for usage in usages])
                row += [
                    ", ".join(f"{usage.peak_mb:,.0f}" for usage in usages),
                    f"{statistics.median(usage.wall_s for usage in usages):.1f}",
                    f"{statistics.median(usage.cpu_s for usage in usages):.1f}",
                    ", ".join(sorted({str(usage.code) for usage in usages})),
                ]
            rows.append(tuple(row))
    head: tuple[str, ...] = ("archive", "MB", "about chunks")
    for command in peaks:
        head += (f"{command}: peak MB", "wall s", "CPU s", "exit")
    print(table(f"Memory as the archive grows ({load()})", head, rows))
    growth = [
        (command, f"{statistics.median(last) - statistics.median(first):+.0f}", f"{max(last) - min(first):+.0f}")
        for command, (first, *_, last) in peaks.items()
    ]
    print(table("Growth from 1x to 20x, MB", ("", "medians", "lowest at 1x to highest at 20x"), growth))


def _measured(command: str, job: Path, folder: Path) -> Usage:
    """Run a command into a new folder."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    return measure([*PROGRAM, command, str(job), "-o", str(folder / "out")], folder=folder)


if __name__ == "__main__":
    main()
