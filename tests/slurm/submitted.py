"""Jobs on a cluster: submitted, followed, and looked at when they have ended."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import yaml

import s1batch
from s1batch.slurm.folder import SubmissionFolder, submissions
from tests.slurm.cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = {"type": "object", "properties": {"length": {"type": "integer"}}, "required": ["length"]}


class Submitted:
    """A job in a folder of its own, submitted to a cluster; one question at a time in each task."""

    def __init__(self, cluster: Cluster, folder: Path, *, rows: int, slow: Callable[[int], bool] | None = None) -> None:
        self.cluster, self.folder, self.results = cluster, folder, folder / "out"
        self.lost = ""  # the node whose power was cut
        self.job = ""  # the number of a job that is no submission
        (folder / "asked").mkdir(parents=True)
        names = [("slow" if slow is not None and slow(number) else "quick") + str(number) for number in range(rows)]
        (folder / "names.csv").write_text("\n".join(["name", *names]) + "\n")
        self.write_job({"kind": "replay", "function": "tests.slurm.answers:steady"})

    def write_job(self, engine: dict[str, Any]) -> None:
        job = {
            "name": "minerals",
            "source": {"kind": "table", "path": "names.csv"},
            "job": {"kind": "ask", "prompt": "Is {{ name }} a mineral?", "schema": SCHEMA},
            "engine": engine,
            "run": {"part_chunks": 1, "parts_in_flight": 1},
            "output": "out",
        }
        (self.folder / "job.yaml").write_text(yaml.safe_dump(job))

    def start(self, *arguments: object, **variables: str) -> subprocess.Popen[str]:
        """Start the program where the cluster is."""
        environment = {**self.cluster.environment, "PYTHONPATH": str(ROOT), "ASKED": str(self.folder / "asked")}
        return subprocess.Popen(
            [sys.executable, "-m", "s1batch", *map(str, arguments)],
            env={**environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )

    def s1batch(self, *arguments: object, **variables: str) -> tuple[int, str]:
        """Run the program; return its exit code and what it said."""
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=400)
        return process.returncode, out + err

    def submit(self, shards: int, *options: str, **variables: str) -> SubmissionFolder:
        code, said = self.s1batch("submit", "job.yaml", "--array", shards, *options, **variables)
        assert code == 0, said
        return self.last

    @property
    def last(self) -> SubmissionFolder:
        """The last submission."""
        *_, last = submissions(self.results)
        return last

    def until(self, holds: Callable[[], Any], what: str, timeout_s: float = 600) -> None:
        try:
            self.cluster.wait_until(holds, timeout_s, what)
        except TimeoutError as error:
            logs = "\n".join(f"-- {path.name}\n{path.read_text()}" for path in sorted(self.folder.rglob("*.log")))
            raise AssertionError(f"{error}\n{self.cluster.call('squeue', '-r')}\n{logs}") from None

    def closed(self, timeout_s: float = 600) -> dict[str, Any]:
        """Wait for the closing job, and return what it found."""
        folder = self.last
        self.until(folder.closing.exists, f"the closing job of {folder.root}", timeout_s)
        found = orjson.loads(folder.closing.read_bytes())
        assert isinstance(found, dict)
        return found

    def asked(self) -> dict[str, list[tuple[str, int]]]:
        """Return what each task asked: fingerprints, and how often the task had been started again by then."""
        return {name: [(each[0], int(each[1])) for each in words] for name, words in self._questions().items()}

    def asked_at(self) -> dict[str, list[float]]:
        """Return when each task asked, seconds since 1970, in order."""
        return {name: sorted(float(each[2]) for each in words) for name, words in self._questions().items()}

    def _questions(self) -> dict[str, list[list[str]]]:
        found = {}
        for path in sorted((self.folder / "asked").iterdir()):
            lines = path.read_text().splitlines(keepends=True)
            found[path.name] = [line.split() for line in lines if line.endswith("\n")]
        return found

    def asked_twice(self) -> int:
        """How many questions were asked more than once."""
        counts = Counter(fingerprint for asked in self.asked().values() for fingerprint, _ in asked)
        return sum(number > 1 for number in counts.values())

    def check(self, rows: int) -> None:
        """Make sure that the run is complete: proved, each row there exactly once, with the answer to its question."""
        verdict = s1batch.open_results(self.results).verify()
        assert (verdict.ok, verdict.complete, verdict.findings) == (True, True, ())
        table = pl.read_parquet(self.results / "rows/*.parquet")
        assert (table.height, table["chunk_key"].n_unique(), set(table["outcome"])) == (rows, rows, {"ok"})
        if "row_index" in table.columns:
            # Answers are as long as their questions, which differ by the names in them.
            names = (self.folder / "names.csv").read_text().splitlines()[1:]
            rest = [length - len(names[index]) for index, length in table.select("row_index", "length").iter_rows()]
            assert len(set(rest)) == 1, "an answer lies in the row of another question"

    def restarts(self, index: int) -> int:
        """How often Slurm has started a task again."""
        said = self.cluster.call("scontrol", "--oneliner", "show", "job", f"{self.last.read_jobs().arrays[0]}_{index}")
        return int(said.partition("Restarts=")[2].split()[0])

    def node(self, index: int) -> str:
        """Where a task runs."""
        task = f"{self.last.read_jobs().arrays[0]}_{index}"
        return self.cluster.call("squeue", "-h", "-j", task, "-t", "RUNNING", "-o", "%N").strip()
