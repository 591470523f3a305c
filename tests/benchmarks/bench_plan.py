"""How fast headers are scanned and windows are planned: CPU time, medians of nine interleaved runs.

python tests/benchmarks/bench_plan.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from pymseed import MS3Record, MS3TraceList

from s1batch.grid import ChunkGrid, time_of
from s1batch.readers.seismic.planner import plan_seismic
from s1batch.readers.seismic.scan import scan_file
from s1batch.readers.seismic.spec import SeismicSource
from s1batch.records import Address, Chunk, PlanEntry, Slice
from s1batch.windows import WindowSpec

RUNS = 9
SMALL_FILES = 10_000
T0_NS = 1_700_006_400 * 10**9


def three_channel_day(path: Path, version: int, record_bytes: int) -> None:
    """Write 25.9 million noisy samples."""
    rng = np.random.default_rng(0)
    traces = MS3TraceList()
    for component in "ZNE":
        data = np.cumsum(rng.integers(-50, 50, 8_640_000)).astype(np.int32)
        traces.add_data(f"FDSN:XX_A__B_H_{component}", data, "i", 100.0, starttime=1_700_006_400 * 10**9)
    traces.to_file(path, max_record_length=record_bytes, format_version=version)


def small_files(folder: Path, count: int) -> list[Path]:
    """Write files of 80 s of one channel: about 20 records of 512 bytes each."""
    rng = np.random.default_rng(0)
    data = np.cumsum(rng.integers(-50, 50, 8000)).astype(np.int32)
    paths = []
    for number in range(count):
        path = folder / f"{number:05d}.mseed"
        with MS3TraceList() as traces:
            traces.add_data(f"FDSN:XX_S{number % 500:03d}__H_H_Z", data, "i", 100.0, starttime=number * 10**11)
            traces.to_file(path, max_record_length=512, format_version=2)
        paths.append(path)
    return paths


def loop_over_records(path: Path) -> int:
    """Count samples with pymseed's iterator."""
    return sum(record.samplecnt for record in MS3Record.from_file(path))


def trace_list(path: Path) -> int:
    """Count samples with pymseed's trace list."""
    with MS3TraceList() as traces:
        traces.add_file(path)
        return sum(segment.samplecnt for trace in traces for segment in trace)


def scan(path: Path) -> int:
    """Count samples with s1batch."""
    return sum(segment.samples for segment in scan_file(str(path)).segments)


def keyed_chunks(spec: SeismicSource, window: WindowSpec, folder: Path) -> int:
    """Plan, and take the key of every chunk; return how many there are."""
    entries = (item for item in plan_seismic(spec, window, folder) if isinstance(item, PlanEntry))
    return sum(1 for entry in entries if entry.chunk.key)


def chunks_on(grid: ChunkGrid, count: int) -> Iterator[Chunk]:
    """Yield chunks of three channels over one long run, as the planner builds them."""
    for window in grid.windows([(0, grid.step * count + grid.length - grid.step)]):
        start_ns, stop_ns = time_of(window.start, T0_NS, 100.0), time_of(window.stop, T0_NS, 100.0)
        slices = (Slice(dim="time_ns", start=start_ns, stop=stop_ns),)
        yield Chunk(
            tuple(
                Address(source=f"XX.A..BH{letter}", root="archive", path="a.mseed", slices=slices, rate_hz=100.0)
                for letter in "ZNE"
            )
        )


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def report(folder: Path) -> Iterator[str]:
    """Yield the lines of the report."""
    for version, record_bytes in ((2, 512), (2, 4096), (3, 4096)):
        path = folder / f"v{version}_{record_bytes}.mseed"
        three_channel_day(path, version, record_bytes)
        ways = (loop_over_records, trace_list, scan)
        taken = [[seconds(lambda way=way, path=path: way(path)) for way in ways] for _ in range(RUNS)]  # type: ignore[misc]
        medians = [statistics.median(column) * 1e3 for column in zip(*taken, strict=True)]
        shown = ", ".join(f"{way.__name__} {ms:.1f} ms" for way, ms in zip(ways, medians, strict=True))
        yield f"headers of a 3-channel day, version {version}, {record_bytes} bytes: {shown}"
    small = folder / "small"
    small.mkdir()
    paths = small_files(small, SMALL_FILES)
    ways = (loop_over_records, trace_list, scan)
    taken = [[seconds(lambda way=way: [way(path) for path in paths]) for way in ways] for _ in range(5)]  # type: ignore[misc]
    medians = [statistics.median(column) * 1e6 / len(paths) for column in zip(*taken, strict=True)]
    shown = ", ".join(f"{way.__name__} {us:.1f} us" for way, us in zip(ways, medians, strict=True))
    yield f"headers of {len(paths):,} files of 20 records, each: {shown}"
    loop, joined, own = medians
    yield f"scan of small files: {loop / own:.0%} of the loop over bare headers, {joined / own:.0%} of the trace list"
    spec = SeismicSource(kind="seismic", paths=("small/*.mseed",))
    taken_s = seconds(lambda: sum(1 for _ in plan_seismic(spec, WindowSpec.model_validate({}), folder)))
    yield f"plan of them: {taken_s / len(paths) * 1e6:.1f} us per file, one chunk and one inventory item each"
    grid = ChunkGrid(length=6000, step=3000)
    count = 300_000
    taken_s = seconds(lambda: sum(1 for _ in grid.windows([(0, 3000 * count)])))
    yield f"grid: {count / taken_s:,.0f} windows/s"
    keyed = 100_000
    taken_s = seconds(lambda: [chunk.key for chunk in chunks_on(grid, keyed)])
    yield f"grid, chunks of three addresses and their keys: {keyed / taken_s:,.0f} chunks/s"
    chunks = list(chunks_on(grid, keyed))
    taken_s = seconds(lambda: [chunk.key for chunk in chunks])
    yield f"keys alone: {keyed / taken_s:,.0f} chunks/s"
    spec = SeismicSource(kind="seismic", paths=("v2_4096.mseed",))
    window = WindowSpec.model_validate({"length": "1s", "overlap": "50%"})
    planned: list[int] = []
    taken_s = seconds(lambda: planned.append(keyed_chunks(spec, window, folder)))
    yield f"plan: {planned[0] / taken_s:,.0f} chunks of three channels/s, scan and keys included"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        for line in report(Path(name)):
            print(line)
