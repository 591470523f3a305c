"""How fast windows are read, beside bare decoding of the same files.

    python tests/benchmarks/bench_read.py [--hours 24]

Generates a day of three components at 100 Hz as Steim-2 (one file, records of 512 and of 4096 bytes), and an archive of
20 files of one channel-day each, in a temporary folder. Prints CPU seconds: the best of seven runs that take turns, in
a process of its own for each case, because the state of the heap changes what a large allocation costs. `bare` is
pymseed decoding the whole file with no windows made. Which windows there are is planned beforehand. To prepare a window
is to standardise those of its channels that the engine would damage, as it is done to what is sent; for that every
channel's mean and deviation are worked out in float64.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from s1batch.engine.conditioning import conditioned
from s1batch.readers.seismic.reader import SeismicReader
from s1batch.readers.seismic.spec import SeismicSource
from s1batch.records import PlanEntry, Series, SeriesPart
from s1batch.windows import WindowSpec
from tests.readers.seismic.waves import SECOND, T0, chunk, mseed

CHANNELS = ("XX.AAA..HHZ", "XX.AAA..HHN", "XX.AAA..HHE")
CHANNEL_DAYS = 20
REPEATS = 7


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


def windows(path: Path, length_s: float, step_s: float, hours: float) -> Callable[[], int]:
    """Return what reads windows of all three components and forgets them; the chunks are made beforehand, by a plan."""
    source = SeismicSource.model_validate({"kind": "seismic", "paths": ["*"]})
    reader = SeismicReader(source, WindowSpec.model_validate({}), path.parent)
    inputs = [(channel, path.name) for channel in CHANNELS]
    starts_s = np.arange(0, hours * 3600 - length_s + 1e-6, step_s)
    chunks = [chunk(T0 + round(s * SECOND), T0 + round((s + length_s) * SECOND), inputs) for s in starts_s]
    return lambda: sum(record.payload is not None for record in reader.read(chunks))


def archive_of_channel_days(folder: Path, hours: float) -> None:
    """Write 20 files of one channel-day each: three components of seven stations, but for the last one."""
    from pymseed import MS3TraceList

    folder.mkdir()
    samples = round(hours * 360_000)
    swing = 300 * np.sin(np.arange(samples) / 3000)
    for number in range(CHANNEL_DAYS):
        noise = np.random.default_rng(number).normal(size=samples) * 30
        code = f"FDSN:XX_S{number // 3}__H_H_{'ZNE'[number % 3]}"
        with MS3TraceList() as traces:
            traces.add_data(code, (swing + noise).astype(np.int32), "i", 100.0, starttime=T0)
            traces.to_file(folder / f"{number:02d}.mseed", max_record_length=512, format_version=2)


def bare_archive(folder: Path) -> int:
    """Decode every file, and nothing else."""
    return sum(bare(path) for path in sorted(folder.iterdir()))


def archive(folder: Path, overlap: str, *, prepared: bool) -> Callable[[], int]:
    """Return what reads all planned windows of 60 s, and standardises them to what is sent where that is asked."""
    source = SeismicSource.model_validate({"kind": "seismic", "paths": ["*"]})
    reader = SeismicReader(source, WindowSpec.model_validate({"length": "60s", "overlap": overlap}), folder)
    chunks = [entry.chunk for entry in reader.plan() if isinstance(entry, PlanEntry)]

    def work() -> int:
        found = 0
        for record in reader.read(chunks):
            series = record.payload
            if not isinstance(series, Series):
                raise ValueError("a window of this archive was not read")
            if prepared:
                found += conditioned(SeriesPart(values_TC=series.values_TC, rate_hz=series.rate_hz)).values_TC.size
        return found

    return work


FULL, DENSE = "bare pymseed", "dense, 60 s"

CASES: dict[str, Callable[[Path, float], Callable[[], int]]] = {
    FULL: lambda path, hours: lambda: bare(path),
    "obspy.read": lambda path, hours: lambda: whole_by_obspy(path),
    DENSE: lambda path, hours: windows(path, 60, 60, hours),
    "dense, 60 s, half overlapping": lambda path, hours: windows(path, 60, 30, hours),
    "dense, 600 s": lambda path, hours: windows(path, 600, 600, hours),
    "sparse, 1 % in windows of 60 s": lambda path, hours: windows(path, 60, 6000, hours),
}
ARCHIVE_CASES: dict[str, Callable[[Path, float], Callable[[], int]]] = {
    FULL: lambda folder, hours: lambda: bare_archive(folder),
    "read and window, 60 s": lambda folder, hours: archive(folder, "0%", prepared=False),
    "read, window and prepare, 60 s": lambda folder, hours: archive(folder, "0%", prepared=True),
    "the same, half overlapping": lambda folder, hours: archive(folder, "50%", prepared=True),
}


_work: list[Callable[[], int]] = []
"""What this process measures."""


def set_up(kind: str, case: str, path: Path, hours: float) -> None:
    """Make ready what is measured in this process, and run it once to warm up."""
    _work.append((CASES if kind == "file" else ARCHIVE_CASES)[case](path, hours))
    _work[0]()


def seconds_used() -> float:
    """Return the CPU seconds of one run."""
    began = time.process_time()
    _work[0]()
    return time.process_time() - began


def measured(kind: str, cases: Iterable[str], path: Path, hours: float) -> dict[str, float]:
    """Return the least CPU seconds of each case; they take turns, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pools = {
            case: stack.enter_context(
                ProcessPoolExecutor(1, mp_context=context, initializer=set_up, initargs=(kind, case, path, hours))
            )
            for case in cases
        }
        for pool in pools.values():
            pool.submit(seconds_used).result()
        rounds = [{case: pool.submit(seconds_used).result() for case, pool in pools.items()} for _ in range(REPEATS)]
    return {case: min(found[case] for found in rounds) for case in pools}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--hours", type=float, default=24.0)
    hours = parser.parse_args().hours
    with tempfile.TemporaryDirectory() as name:
        print(f"A day, three components ({load()})")
        print(f"{'records':>8} {'what':<32} {'CPU s':>8} {'bare / this':>12} {'dense / this':>13}")
        for reclen in (512, 4096):
            path = Path(name) / f"day{reclen}"
            write_day(path, reclen, hours)
            seconds = measured("file", CASES, path, hours)
            for case, used in seconds.items():
                to_bare, to_dense = seconds[FULL] / used, seconds[DENSE] / used
                print(f"{reclen:>8} {case:<32} {used:>8.4f} {to_bare:>11.2f}x {to_dense:>12.2f}x")
        folder = Path(name) / "archive"
        archive_of_channel_days(folder, hours)
        print(f"{CHANNEL_DAYS} channel-days, Steim-2, records of 512 bytes ({load()})")
        print(f"{'what':<32} {'CPU s':>8} {'bare / this':>12}")
        seconds = measured("archive", ARCHIVE_CASES, folder, hours)
        for case, used in seconds.items():
            print(f"{case:<32} {used:>8.4f} {seconds[FULL] / used:>11.2f}x")


def load() -> str:
    """Return how busy the machine is."""
    one, five, _ = os.getloadavg()
    return f"{os.cpu_count()} cores, load {one:.1f} (1 min), {five:.1f} (5 min)"


if __name__ == "__main__":
    main()
