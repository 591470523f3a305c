"""How fast windows are read, beside bare decoding of the same files.

    python tests/benchmarks/bench_read.py [--hours 24]

Generates a day of three components at 100 Hz as Steim-2 (one file, records of 512 and of 4096 bytes) in a temporary
folder and prints CPU seconds: medians of the runs in a process of its own for each case, because the state of the
heap changes what a large allocation costs. `bare` is pymseed decoding the whole file with no windows made.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from s1batch.readers.seismic.reader import SeismicReader
from s1batch.readers.seismic.spec import SeismicSource
from s1batch.windows import WindowSpec
from tests.readers.seismic.waves import SECOND, T0, chunk, mseed

CHANNELS = ("XX.AAA..HHZ", "XX.AAA..HHN", "XX.AAA..HHE")
REPEATS = 5


def write_day(path: Path, reclen: int, hours: float) -> None:
    """Noise on a slow swing: about one byte and a half per sample in Steim-2."""
    samples = round(hours * 360_000)
    with path.open("wb") as file:
        for seed, channel in enumerate(CHANNELS):
            swing = 2000 * np.sin(np.arange(samples) / 3000)
            noise = np.random.default_rng(seed).normal(size=samples) * 30
            file.write(mseed(channel, T0, (swing + noise).astype(np.int32), reclen=reclen))


def bare(path: Path) -> int:
    """Decode everything, and nothing else."""
    from pymseed import MS3TraceList

    with MS3TraceList.from_file(path, unpack_data=True) as traces:
        return sum(segment.take_np_datasamples().size for trace in traces for segment in trace)


def whole_by_obspy(path: Path) -> int:
    """What `obspy.read` takes for the same file."""
    import obspy

    return sum(trace.stats.npts for trace in obspy.read(str(path), format="MSEED"))


def windows(path: Path, length_s: float, step_s: float, hours: float) -> int:
    """Read windows of all three components and forget them; return how many."""
    source = SeismicSource.model_validate({"kind": "seismic", "paths": ["*"]})
    reader = SeismicReader(source, WindowSpec.model_validate({}), path.parent)
    inputs = [(channel, path.name) for channel in CHANNELS]
    starts_s = np.arange(0, hours * 3600 - length_s + 1e-6, step_s)
    chunks = [chunk(T0 + round(s * SECOND), T0 + round((s + length_s) * SECOND), inputs) for s in starts_s]
    return sum(record.payload is not None for record in reader.read(chunks))


CASES: dict[str, Callable[[Path, float], int]] = {
    "bare pymseed": lambda path, hours: bare(path),
    "obspy.read": lambda path, hours: whole_by_obspy(path),
    "dense, 60 s": lambda path, hours: windows(path, 60, 60, hours),
    "dense, 60 s, half overlapping": lambda path, hours: windows(path, 60, 30, hours),
    "dense, 600 s": lambda path, hours: windows(path, 600, 600, hours),
    "sparse, 1 % in windows of 60 s": lambda path, hours: windows(path, 60, 6000, hours),
}


def measure(case: str, path: Path, hours: float) -> float:
    """Return the median CPU seconds of a case, after one run to warm up."""
    seconds = []
    for _ in range(REPEATS + 1):
        began = time.process_time()
        CASES[case](path, hours)
        seconds.append(time.process_time() - began)
    return statistics.median(seconds[1:])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--hours", type=float, default=24.0)
    hours = parser.parse_args().hours
    context = multiprocessing.get_context("spawn")
    print(f"{'records':>8} {'what':<32} {'CPU s':>8} {'bare / this':>12} {'dense / this':>13}")
    with tempfile.TemporaryDirectory() as name:
        for reclen in (512, 4096):
            path = Path(name) / f"day{reclen}"
            write_day(path, reclen, hours)
            with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
                seconds = {case: pool.submit(measure, case, path, hours).result() for case in CASES}
            for case, used in seconds.items():
                to_bare, to_dense = seconds["bare pymseed"] / used, seconds["dense, 60 s"] / used
                print(f"{reclen:>8} {case:<32} {used:>8.4f} {to_bare:>11.2f}x {to_dense:>12.2f}x")


if __name__ == "__main__":
    main()
