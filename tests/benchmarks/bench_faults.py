"""Arrays on a real Slurm under every kind of fault: what is asked twice, what is lost, and how long it stands still.

    python -m tests.benchmarks.bench_faults [--minute 60] [NAME ...]

Two tasks with four questions on their way in each; every question takes a second and is noted when it is asked. Four
faults at a time happen on one cluster of four virtual nodes. Needs root and Debian's Slurm, as tests/slurm does. Prints
a table; asserts that results are proved and complete, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import polars as pl

from tests.benchmarks.harness import load, table
from tests.debian import CannotRun
from tests.slurm.cluster import Cluster
from tests.slurm.small_disk import SmallDisk
from tests.slurm.submitted import Submitted

IN_FLIGHT = 4
ROWS = 240
SHARDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What a fault cost.

    Attributes:
        name: What happened.
        tasks: How many tasks it hit.
        twice: Questions that were asked more than once.
        missing: Planned rows that are not there in the end.
        paused_s: How long the slowest of these shards asked nothing, from the fault (or the end of the trouble) on.
    """

    name: str
    tasks: int
    twice: int
    missing: int
    paused_s: float


class Scene:
    """One array under way, and what is done to it."""

    def __init__(self, cluster: Cluster, folder: Path, minute_s: float) -> None:
        self.cluster, self.minute_s = cluster, minute_s
        self.job = Submitted(cluster, folder, rows=ROWS, slow=lambda number: True)
        self._options: tuple[str, ...] = ()
        self._answer_s = "1"

    def begin(self, *options: str, answer_s: float = 1) -> None:
        """Submit, and wait until both tasks have asked for a while."""
        self._options = ("--set", f"run.parts_in_flight={IN_FLIGHT}", *options)
        self._answer_s = str(answer_s)
        self.job.submit(SHARDS, *self._options, ANSWER_S=self._answer_s)
        enough = 2 * IN_FLIGHT
        self.job.until(lambda: sum(len(each) >= enough for each in self.job.asked().values()) == SHARDS, "questions")

    def name_of(self, index: int) -> str:
        """Return the name of a task."""
        return f"{self.job.last.read_jobs().arrays[0]}_{index}"

    def again(self, index: int) -> None:
        """Submit a shard again as soon as its task has left the queue, while the other one goes on."""
        name = self.name_of(index)
        self.job.until(lambda: name not in self.cluster.call("squeue", "-h", "-r", "-o", "%i").split(), "the end")
        self.job.submit(SHARDS, *self._options, ANSWER_S=self._answer_s)

    def ended(self, name: str, hit: Sequence[int], since: float | None = None) -> Fault:
        """Wait for the end and return what it cost.

        Args:
            name: What happened.
            hit: The shards whose tasks it hit.
            since: From when on they asked nothing; None: the longest such time.
        """
        self.job.closed(400)
        self.job.check(ROWS)
        rows = pl.read_parquet(self.job.results / "rows/*.parquet")["chunk_key"].n_unique()
        paused_s = max(_paused_s(self._asked_by(shard), since) for shard in hit)
        return Fault(name=name, tasks=len(hit), twice=self.job.asked_twice(), missing=ROWS - rows, paused_s=paused_s)

    def _asked_by(self, shard: int) -> list[float]:
        """Return when a shard asked, in all its tasks."""
        return sorted(
            when for task, asked in self.job.asked_at().items() if task.endswith(f"_{shard}") for when in asked
        )


def _paused_s(asked: Sequence[float], since: float | None) -> float:
    if since is None:
        return max(later - earlier for earlier, later in pairwise(asked))
    return min(when for when in asked if when > since) - since


def limit(scene: Scene) -> Fault:
    """The time limit: drain, requeue, go on."""
    scene.begin("--sbatch", "time=1", "--sbatch", "nodelist=n1", "--signal-before", "40", answer_s=1.5)
    fault = scene.ended("time limit, requeued", range(SHARDS))
    if not all(scene.job.restarts(index) for index in range(SHARDS)):
        raise RuntimeError("the limit was not reached: ask for more rows")
    return fault


def power(scene: Scene) -> Fault:
    """A node goes down with what runs on it."""
    scene.begin("--sbatch", "exclude=n1,n2")
    nodes = [scene.job.node(index) for index in range(SHARDS)]
    scene.cluster.cut_power(nodes[0])
    since = time.time()
    fault = scene.ended("power cut", [index for index in range(SHARDS) if nodes[index] == nodes[0]], since)
    scene.cluster.give_power(nodes[0])
    return fault


def preempted(scene: Scene) -> Fault:
    """A more important job takes the node."""
    scene.begin("--sbatch", "partition=spot", "--sbatch", "nodelist=n2")
    scene.cluster.call("sbatch", "-p", "main", "-w", "n2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 2")
    return scene.ended("preemption, requeued", range(SHARDS))


def cancelled(scene: Scene) -> Fault:
    """A task is cancelled and submitted again."""
    scene.begin("--sbatch", "nodelist=n1")
    scene.cluster.call("scancel", scene.name_of(1))
    since = time.time() + 1.5  # answers on their way are waited for
    scene.again(1)
    return scene.ended("scancel, submitted again", [1], since)


def killed(scene: Scene) -> Fault:
    """A task dies at once, of memory or by hand, and is submitted again."""
    scene.begin("--sbatch", "nodelist=n1")
    os.kill(_process_of(scene.name_of(1)), signal.SIGKILL)
    since = time.time()
    scene.again(1)
    return scene.ended("SIGKILL of a task, submitted again", [1], since)


def read_only(scene: Scene) -> Fault:
    """The results folder turns read-only for a while."""
    with _on_disk(scene) as disk:
        disk.forbid_writing()
        time.sleep(scene.minute_s)
        disk.allow_writing()
        return scene.ended(f"read-only for {scene.minute_s:g} s", range(SHARDS), time.time())


def full(scene: Scene) -> Fault:
    """The results folder turns full for a while."""
    with _on_disk(scene) as disk:
        disk.fill()
        time.sleep(scene.minute_s)
        disk.free()
        return scene.ended(f"full for {scene.minute_s:g} s", range(SHARDS), time.time())


FAULTS: dict[str, Callable[[Scene], Fault]] = {
    each.__name__: each for each in (limit, power, preempted, cancelled, killed, read_only, full)
}


@contextmanager
def _on_disk(scene: Scene) -> Iterator[SmallDisk]:
    with SmallDisk(scene.job.results, "32m") as disk:
        scene.begin("--sbatch", "nodelist=n1")
        yield disk


def _process_of(task: str) -> int:
    """Return the process of a task on this machine."""
    array, _, index = task.partition("_")
    wanted = {f"SLURM_ARRAY_JOB_ID={array}".encode(), f"SLURM_ARRAY_TASK_ID={index}".encode()}
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or not wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                continue
            if b"s1batch" in (entry / "cmdline").read_bytes():
                return int(entry.name)
        except OSError:
            continue
    raise RuntimeError(f"{task} has no process here")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which faults: {', '.join(FAULTS)}")
    parser.add_argument("--minute", type=float, default=60.0, help="how long a disk is full or read-only, in seconds")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="s1bench-", dir="/tmp"))
    chosen = [FAULTS[name] for name in options.names or FAULTS]
    try:
        with Cluster(folder / "slurm", accounting=False) as cluster, ThreadPoolExecutor(4) as pool:
            running = [pool.submit(each, Scene(cluster, folder / each.__name__, options.minute)) for each in chosen]
            faults = [each.result() for each in running]
    except CannotRun as reason:
        print(f"no Slurm cluster here: {reason}")
        return
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    lines = []
    for each in faults:
        counts = (ROWS, each.twice, each.tasks * IN_FLIGHT, each.missing)
        lines.append((each.name, *map(str, counts), f"{each.paused_s:.1f} s"))
    columns = ("fault", "rows", "asked twice", "on their way at most", "rows lost", "until it went on")
    print(table(f"Faults on a real Slurm; {load()}", columns, lines))


if __name__ == "__main__":
    main()
