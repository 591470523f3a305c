"""How fast rows reach the disk, a plan is written, and a large run is resumed: prints, asserts nothing.

    python -m tests.benchmarks.bench_results [--parts 10000] [--folder FOLDER]

Parts have 100 rows. Ten thousand of them, a million rows, take five minutes.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from s1batch.accounting import take_account
from s1batch.plan_store import PlanStore, PlanWriter
from s1batch.records import PlanEntry
from s1batch.results.rows_file import write_rows
from s1batch.results.status import status
from s1batch.results.store import ResultsStore
from s1batch.results.verify import verify
from tests.plans import MINUTE_NS, SCHEMA, minutes, row, stretch, window

PER_PART = 100


@contextmanager
def timed(what: str, count: int = 0, unit: str = "rows") -> Iterator[None]:
    """Print how long a block takes."""
    begin = time.perf_counter()
    yield
    seconds = time.perf_counter() - begin
    speed = f"{count / seconds:14,.0f} {unit}/s" if count else ""
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:<44}{seconds:9.3f} s {speed:<24} peak {peak_mb:,.0f} MB", flush=True)


def bench_appending(folder: Path) -> None:
    """Rows through journals into files, one thread and four."""
    entries = minutes(20_000, per_part=1000)
    rows = [row(entry, text='{"contain": true, "p_index": 2310}' * 4) for entry in entries]
    for threads in (1, 4):
        with ResultsStore(folder / f"append{threads}", SCHEMA) as store:

            def work(first: int, store: ResultsStore = store, threads: int = threads) -> None:
                for part in range(first, 20, threads):
                    with store.open_part(part) as writer:
                        mine = rows[part * 1000 : (part + 1) * 1000]
                        for each in mine:
                            writer.append(each)
                        writer.finish([each.chunk_key for each in mine])

            workers = [threading.Thread(target=work, args=(first,)) for first in range(threads)]
            with timed(f"append and finish, {threads} thread(s)", len(rows)):
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join()


def bench_large_run(folder: Path, parts: int) -> None:
    """Many files of a hundred rows: plan, resume, status, account, proof."""
    count = parts * PER_PART
    path = folder / "large"

    def entry(number: int) -> PlanEntry:
        return window(number * MINUTE_NS, (number + 1) * MINUTE_NS, part=number // PER_PART)

    with timed("plan written (keys included)", count, "entries"), PlanWriter(path) as writer:
        for number in range(count):
            writer.add(entry(number))
        for day in range(count // 1440 + 1):
            writer.add(stretch(day * 1440 * MINUTE_NS, min(1440, count - day * 1440) * 6000))
    plan = PlanStore(path)
    template = SCHEMA.fit(row(entry(0)))
    with ResultsStore(path, SCHEMA) as store:
        with timed("rows written without journals", count):
            for part in range(parts):
                rows = [replace(template, chunk_key=key, part=part) for key in plan.keys(part)]
                write_rows(store.layout.part_rows(part), SCHEMA, rows)
        with timed("finished(): resume scan", parts, "files"):
            finished = store.finished()
        if len(finished) != parts:
            raise RuntimeError("files are missing")
        with timed("tidy()", parts, "files"):
            store.tidy()
    with timed("PlanStore and one part of it"):
        PlanStore(path).entries(parts // 2)
    with timed("keys of all parts", count, "keys"):
        for part in range(parts):
            plan.keys(part)
    some = min(parts, 1000)
    with timed(f"entries of {some:,} parts", some * PER_PART, "entries"):
        for part in range(some):
            plan.entries(part)
    with timed("status", count):
        status(path)
    with timed("account from the plan", count, "chunks"):
        take_account(plan)
    with timed("verify", count):
        print(verify(path).complete)


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=int, default=1000)
    parser.add_argument("--folder", help="where the files are written (default: a temporary folder)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        bench_appending(Path(folder))
        bench_large_run(Path(folder), given.parts)


if __name__ == "__main__":
    main()
