"""Whole commands against a chat endpoint that takes 50 ms, beside a bare aiohttp loop in the same minute.

    python tests/benchmarks/bench_run.py [--repeat 3]

Prints tables of medians; asserts nothing. `tests.benchmarks.peers` measures other programs by the same prompts.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.harness import Usage, load, measure, table  # noqa: E402
from tests.benchmarks.mock_server import ServerProcess, serving  # noqa: E402
from tests.benchmarks.prompts import write_large_prompts, write_prompts  # noqa: E402

PROGRAM = (sys.executable, "-m", "s1batch")
BARE = (sys.executable, str(ROOT / "tests/benchmarks/bare_loop.py"))
HEAD = ("", "wall s", "CPU s", "peak MB", "rows/s in the window", "in flight", "requests", "exit")
JOB = """\
name: bench
source: {{kind: table, path: [{prompts}]}}
job: {{kind: ask, prompt: "{{{{ text }}}}"}}
engine: {{kind: http, urls: ["{url}"], max_in_flight: {in_flight}}}
run: {{memory_mb: {memory_mb}}}
"""


@dataclass(frozen=True)
class Bench:
    """A server, a folder, and how often everything is run."""

    server: ServerProcess
    folder: Path
    repeat: int

    def bare(self, prompts: Path, rows: int, in_flight: int) -> tuple[str, ...]:
        """Return the row of the bare loop."""
        command = [*BARE, self.server.url, str(prompts), str(self.folder / "bare.parquet"), str(in_flight)]
        return self._median(f"bare aiohttp loop, {in_flight:,} at once", rows, [command] * self.repeat)

    def ours(self, prompts: Path, rows: int, in_flight: int, memory_mb: int = 64) -> tuple[str, ...]:
        """Return the row of `s1batch run` into a new folder."""
        job = self.folder / "job.yaml"
        job.write_text(JOB.format(prompts=prompts, url=self.server.url, in_flight=in_flight, memory_mb=memory_mb))
        label = f"s1batch run, {in_flight:,} at once" + (f", memory_mb {memory_mb}" if memory_mb != 64 else "")
        command = [*PROGRAM, "run", str(job), "-o", str(self.folder / "out")]
        return self._median(label, rows, [command] * self.repeat, fresh=True)

    def again(self) -> tuple[str, ...]:
        """Return the row of a second run, which has nothing to do."""
        command = [*PROGRAM, "run", str(self.folder / "job.yaml"), "-o", str(self.folder / "out")]
        return self._median("s1batch run again, nothing to do", 0, [command] * self.repeat)

    def _median(self, label: str, rows: int, commands: Sequence[list[str]], fresh: bool = False) -> tuple[str, ...]:
        usages: list[Usage] = []
        rates: list[float] = []
        peak = requests = 0
        for command in commands:
            if fresh:
                shutil.rmtree(self.folder / "out", ignore_errors=True)
            self.server.reset()
            usages.append(measure(command, folder=self.folder))
            seen = self.server.stats()
            peak, requests = max(peak, seen["peak"]), seen["requests"]
            if seen["first"] is not None:
                rates.append(rows / (seen["last"] - seen["first"]))
        return (
            label,
            f"{statistics.median(each.wall_s for each in usages):.2f}",
            f"{statistics.median(each.cpu_s for each in usages):.2f}",
            f"{statistics.median(each.peak_mb for each in usages):,.0f}",
            f"{statistics.median(rates):,.0f}" if rates else "-",
            f"{peak:,}",
            f"{requests:,}",
            ", ".join(sorted({str(each.code) for each in usages})),
        )


def bench_prompts(folder: Path, repeat: int) -> None:
    """2,000 prompts; the same with 20 distinct ones; and a second run."""
    prompts = write_prompts(folder / "prompts.parquet")
    repeated = write_prompts(folder / "repeated.parquet", distinct=20)
    with serving() as server:
        bench = Bench(server, folder, repeat)
        rows = [bench.bare(prompts, 2000, 2000), bench.bare(prompts, 2000, 256)]
        rows += [bench.ours(prompts, 2000, 256), bench.again(), bench.ours(prompts, 2000, 1000)]
        print(table(f"2,000 prompts, 50 ms ({load()})", HEAD, rows))
        print(table("2,000 prompts, 20 of them distinct", HEAD, [bench.ours(repeated, 2000, 256)]))


def bench_large(folder: Path, repeat: int) -> None:
    """300 prompts of 1 MB; once more with answers so slow that as many are asked as memory allows."""
    prompts = write_large_prompts(folder / "large.parquet")
    with serving() as server:
        bench = Bench(server, folder, repeat)
        rows = [bench.ours(prompts, 300, 256), bench.ours(prompts, 300, 256, memory_mb=16)]
    with serving(latency_s=3.0) as server:
        label, *figures = Bench(server, folder, repeat).ours(prompts, 300, 256)
        rows.append((f"{label}, answers after 3 s", *figures))
    print(table(f"300 prompts of 1 MB, 50 ms ({load()})", HEAD, rows))


def bench_tail(folder: Path, repeat: int) -> None:
    """Every 100th request takes 2 s, 64 in flight."""
    prompts = write_prompts(folder / "prompts.parquet")
    with serving(tail_every=100) as server:
        bench = Bench(server, folder, repeat)
        rows = [bench.bare(prompts, 2000, 64), bench.ours(prompts, 2000, 64)]
    head = (*HEAD[:4], "window s", *HEAD[5:])
    shown = [(*row[:4], f"{2000 / float(row[4].replace(',', '')):.2f}", *row[5:]) for row in rows]
    print(table(f"2,000 prompts, every 100th takes 2 s, 64 at once ({load()})", head, shown))


def bench_start(folder: Path, repeat: int) -> None:
    """Commands that only start."""
    rows = []
    for words in (("--help",), ("run", "--help"), ("doctor",)):
        usages = [measure([*PROGRAM, *words], folder=folder) for _ in range(repeat)]
        wall, cpu = (statistics.median(values) for values in zip(*((u.wall_s, u.cpu_s) for u in usages), strict=True))
        rows.append((f"s1batch {' '.join(words)}", f"{wall:.2f}", f"{cpu:.2f}", f"{usages[-1].peak_mb:,.0f}"))
    print(table(f"Starting ({load()})", HEAD[:4], rows))


def main() -> None:
    """Run all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench_start(folder, repeat)
        bench_prompts(folder, repeat)
        bench_tail(folder, repeat)
        bench_large(folder, repeat)


if __name__ == "__main__":
    main()
