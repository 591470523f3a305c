"""What a part costs Dask: client, scheduler and two local workers, with parts that do nothing, beside plain tasks.

    python -m tests.benchmarks.bench_dask [--parts 1000,10000]

Each line is a process tree of its own. "s1batch" sends parts through the submission of a run, and only what a session
does with a part is left out. "plain" is `client.submit` of functions that do nothing, with as many at a time; "map" is
`client.map` and `gather` of all of them at once: the least that Dask can do, with a graph that grows with the archive.
CPU is that of all processes of the tree, less what it takes to start and stop the cluster. Prints a table; asserts
nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

WORKERS, THREADS = 2, 32

MOST_PLAIN = 10_000
"""Plain tasks, one by one, cost the same each however many there are, and take long."""


def nothing(number: int) -> int:
    """Do nothing."""
    return number


def one(kind: str, parts: int, folder: Path) -> None:
    """Run one kind in this process, and print parts, most submitted at once, and wall time."""
    from distributed import Client, LocalCluster

    from s1batch.workers.crew import local
    from tests.benchmarks import idle_session

    logging.getLogger("distributed").setLevel(logging.ERROR)
    if kind == "s1batch":
        with local(idle_session.setup(folder).loaded, WORKERS, max(parts, 10_000), lambda line: None) as crew:
            began = time.perf_counter()
            print("RESULT", _through_s1batch(crew, parts, folder), time.perf_counter() - began)
        return
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=THREADS, processes=True, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
        client.as_current(),
    ):
        began = time.perf_counter()
        if kind == "map":
            client.gather(client.map(nothing, range(parts), pure=False) if parts else [])
            most = parts
        else:
            most = _plain(client, parts)
        print("RESULT", most, time.perf_counter() - began)


def _plain(client: Any, parts: int) -> int:
    from distributed import wait

    most = 2 * WORKERS * THREADS
    waiting = deque(range(parts))
    running: set[Any] = set()
    while waiting or running:
        while waiting and len(running) < most:
            number = waiting.popleft()
            running.add(client.submit(nothing, number, key=("nothing", number), pure=False))
        with contextlib.suppress(TimeoutError):
            wait(list(running), timeout=0.2, return_when="FIRST_COMPLETED")
        for future in [future for future in running if future.done()]:
            running.discard(future)
            future.result()
            future.release()
    return most


class _Seen:
    def finished(self, summary: Any) -> None:
        """One part has ended."""

    def tick(self, stats: Any) -> None:
        """A moment has passed."""


def _through_s1batch(crew: Any, parts: int, folder: Path) -> int:
    from s1batch.scheduler import PartTask
    from s1batch.workers.submission import Submission
    from tests.benchmarks import idle_session

    setup = idle_session.setup(folder)
    crew.client.register_plugin(idle_session.IdlePlugin(setup, crew.lifetime, owns_process=True), name="bench")
    submission = Submission(crew, setup, "bench", _Seen(), threading.Event())
    submission.run([PartTask(part) for part in range(parts)])
    return submission.most_submitted


def main() -> None:
    """Print the table."""
    from tests.benchmarks.harness import load, measure, table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="1000,10000", help="docs/performance.md has 100,000 too")
    parser.add_argument("--one", nargs=3, metavar=("KIND", "PARTS", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        kind, parts, folder = given.one
        one(kind, int(parts), Path(folder))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:

        def run(kind: str, parts: int) -> tuple[float, float, int, float]:
            command = [sys.executable, "-m", "tests.benchmarks.bench_dask", "--one", kind, str(parts), name]
            usage = measure(command, folder=Path(name))
            said = [line.split() for line in usage.output.splitlines() if line.startswith("RESULT")]
            if usage.code != 0 or not said:
                raise SystemExit(usage.output)
            return usage.cpu_s, usage.peak_mb, int(said[0][1]), float(said[0][2])

        idle = {kind: run(kind, 0)[:2] for kind in ("s1batch", "plain", "map")}
        for parts in map(int, given.parts.split(",")):
            for kind in ("s1batch", "plain", "map") if parts <= MOST_PLAIN else ("s1batch", "map"):
                cpu_s, peak_mb, most, wall_s = run(kind, parts)
                idle_s, idle_mb = idle[kind]
                rows.append(
                    [
                        kind,
                        f"{parts:,}",
                        f"{1000 * (cpu_s - idle_s) / parts:.2f}",
                        f"{1000 * wall_s / parts:.2f}",
                        f"{peak_mb - idle_mb:+.0f}",
                        f"{most:,}",
                    ]
                )
                print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    head = ["what", "parts", "CPU ms a part", "wall ms a part", "MB over an idle cluster", "submitted at once"]
    print(table(f"Parts that do nothing on {WORKERS} local workers ({load()})", head, rows))
    print("without parts: " + ", ".join(f"{kind} {cpu_s:.1f} CPU s, {mb:.0f} MB" for kind, (cpu_s, mb) in idle.items()))


if __name__ == "__main__":
    main()
