"""Going on with a run of many finished rows: how long until the first new request.

    python tests/benchmarks/bench_resume.py [--rows 1000000]

A hundred thousand rows in a thousand parts take a minute or two, a million ten. All parts but the last are finished, by
rows written straight to their files; the last is asked. Then status and verify of it all, before and after it is
compacted. Prints a table; asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from s1batch.plan_store import PlanStore  # noqa: E402
from s1batch.records import Row  # noqa: E402
from s1batch.results.layout import Layout  # noqa: E402
from s1batch.results.rows_file import write_rows  # noqa: E402
from s1batch.results.store import ResultsStore  # noqa: E402
from tests.benchmarks.harness import load, measure, table  # noqa: E402
from tests.benchmarks.mock_server import serving  # noqa: E402

PROGRAM = (sys.executable, "-m", "s1batch")
PER_PART = 100
JOB = """\
name: bench
source: {{kind: table, path: [{prompts}]}}
job: {{kind: ask, prompt: "number {{{{ id }}}}"}}
engine: {{kind: http, urls: ["{url}"]}}
run: {{part_chunks: {per_part}}}
"""


def finish(path: Path, parts: int) -> None:
    """Write the files of rows of all parts but the last."""
    plan = PlanStore(path)
    with ResultsStore(path, None) as store:
        for part in range(parts - 1):
            rows = []
            for entry in plan.entries(part):
                chunk = entry.chunk
                lineage = {"source_file": chunk.inputs[0].path, "row_index": chunk.start}
                rows.append(
                    Row(
                        chunk_key=chunk.key,
                        part=part,
                        source=entry.label,
                        span_start=chunk.start,
                        span_end=chunk.stop,
                        outcome="ok",
                        text="ANS",
                        finish_reason="stop",
                        prompt_tokens=5,
                        output_tokens=8,
                        attempts=1,
                        engine="http:openai",
                        model="mock",
                        fingerprint=chunk.key,
                        lineage=lineage,
                    )
                )
            write_rows(Layout(path).part_rows(part), store.schema, [store.schema.fit(row) for row in rows])


def main() -> None:
    """Make the results, go on with them, and look at them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help=f"rows, in parts of {PER_PART}")
    parts = max(parser.parse_args().rows // PER_PART, 2)
    shown = []
    with tempfile.TemporaryDirectory() as name, serving() as server:
        folder = Path(name)
        with (folder / "prompts.jsonl").open("w") as file:
            file.writelines(f'{{"id": {number}}}\n' for number in range(parts * PER_PART))
        job, out = folder / "job.yaml", folder / "out"
        job.write_text(JOB.format(prompts=folder / "prompts.jsonl", url=server.url, per_part=PER_PART))
        run = [*PROGRAM, "run", str(job), "-o", str(out)]
        planned = measure([*run, "--limit", "1"], folder=folder)
        shown.append(("plan and first row", planned, ""))
        began = time.perf_counter()
        os.fsync = lambda fd: None  # 30,000 flushes for rows that nobody will miss
        finish(out, parts)
        print(f"{(parts - 1) * PER_PART:,} rows written in {time.perf_counter() - began:.0f} s", flush=True)
        server.reset()
        resumed = measure(run, folder=folder)
        seen = server.stats()
        first_s = seen["first"] - resumed.began if seen["first"] else float("nan")
        shown.append((f"resume, {seen['requests']} requests", resumed, f"{first_s:.2f}"))
        shown.append(("run again, nothing to do", measure(run, folder=folder), ""))
        shown.append(("status", measure([*PROGRAM, "status", str(out)], folder=folder), ""))
        shown.append(("verify", measure([*PROGRAM, "verify", str(out)], folder=folder), ""))
        shown.append(("compact", measure([*PROGRAM, "compact", str(out)], folder=folder), ""))
        shown.append(("run again, nothing to do", measure(run, folder=folder), ""))
        shown.append(("status", measure([*PROGRAM, "status", str(out)], folder=folder), ""))
        shown.append(("verify", measure([*PROGRAM, "verify", str(out)], folder=folder), ""))
    rows = [
        (label, f"{usage.wall_s:.2f}", f"{usage.cpu_s:.2f}", f"{usage.peak_mb:,.0f}", first, str(usage.code))
        for label, usage, first in shown
    ]
    head = ("", "wall s", "CPU s", "peak MB", "s to the first new request", "exit")
    print(table(f"{parts * PER_PART:,} rows in {parts:,} parts (--rows {parts * PER_PART}; {load()})", head, rows))


if __name__ == "__main__":
    main()
