"""How fast windows are read, beside bare decoding of the same files.

    python tests/benchmarks/bench_read.py [--hours 24]

Generates a day of three components at 100 Hz as Steim-2 (one file, records of 512 and of 4096 bytes) in a temporary
folder and prints CPU seconds, medians of interleaved runs. `bare` is pymseed decoding the file with no windows made.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from s1batch.readers.seismic.reader import SeismicReader
from s1batch.readers.seismic.spec import SeismicSource
from s1batch.records import Chunk
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


def windows(reader: SeismicReader, chunks: list[Chunk]) -> int:
    """Read windows and forget them."""
    return sum(record.payload is not None for record in reader.read(chunks))


def cut(name: str, hours: float, length_s: float, step_s: float) -> list[Chunk]:
    """Windows of all three components of one file."""
    starts_s = np.arange(0, hours * 3600 - length_s + 1e-6, step_s)
    inputs = [(channel, name) for channel in CHANNELS]
    return [chunk(T0 + round(s * SECOND), T0 + round((s + length_s) * SECOND), inputs) for s in starts_s]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--hours", type=float, default=24.0)
    hours = parser.parse_args().hours
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reader = SeismicReader(
            SeismicSource.model_validate({"kind": "seismic", "paths": ["*"]}), WindowSpec.model_validate({}), folder
        )
        print(f"{'records':>8} {'what':<34} {'windows':>8} {'CPU s':>8} {'bare / this':>12} {'dense / this':>13}")
        for reclen in (512, 4096):
            path = folder / f"day{reclen}"
            write_day(path, reclen, hours)
            cases: dict[str, tuple[int, Callable[[], int]]] = {
                "bare pymseed": (0, lambda path=path: bare(path)),  # type: ignore[misc]
                "obspy.read": (0, lambda path=path: whole_by_obspy(path)),  # type: ignore[misc]
            }
            for label, length_s, step_s in (
                ("dense, 60 s", 60.0, 60.0),
                ("dense, 60 s, half overlapping", 60.0, 30.0),
                ("dense, 600 s", 600.0, 600.0),
                ("sparse, 1 % in windows of 60 s", 60.0, 6000.0),
            ):
                chunks = cut(path.name, hours, length_s, step_s)
                cases[label] = (len(chunks), lambda chunks=chunks: windows(reader, chunks))  # type: ignore[misc]
            seconds: dict[str, list[float]] = {label: [] for label in cases}
            for _ in range(REPEATS):
                for label, (_, run) in cases.items():
                    began = time.process_time()
                    run()
                    seconds[label].append(time.process_time() - began)
            medians = {label: statistics.median(values) for label, values in seconds.items()}
            for label, (count, _) in cases.items():
                to_bare, to_dense = medians["bare pymseed"] / medians[label], medians["dense, 60 s"] / medians[label]
                print(f"{reclen:>8} {label:<34} {count:>8} {medians[label]:>8.4f} {to_bare:>11.2f}x {to_dense:>12.2f}x")


if __name__ == "__main__":
    main()
