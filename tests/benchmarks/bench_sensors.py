"""How fast windows of sensor arrays are read, and how much memory that takes as an archive grows; asserts nothing.

    python tests/benchmarks/bench_sensors.py [--mb 1024] [--rounds 2]

Windows of 1,000,000 x 8 float32 from Zarr 3 shards of that size, inner chunks of a tenth, zstd level 3. The limit is
zstandard's decoder and one copy into a window that is there already. CPU time of this process, all threads; medians
over windows, the ways interleaved window by window. Readers have no other work: nothing is asked.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import yaml
import zarr
from zarr.codecs import ZstdCodec

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from s1batch.readers.sensors.reader import SensorsReader  # noqa: E402
from s1batch.readers.sensors.spec import SensorsSource  # noqa: E402
from s1batch.records import PlanEntry  # noqa: E402
from s1batch.windows import WindowSpec  # noqa: E402
from tests.benchmarks.harness import load, measure, table  # noqa: E402

STEPS, CHANNELS, INNER = 1_000_000, 8, 100_000
WINDOW_MB = STEPS * CHANNELS * 4 / 2**20
RATE_HZ = 1000.0
PROGRAM = (sys.executable, "-m", "s1batch")
GROWTH = (1, 5, 20)
SMALL_STEPS = 10_000

Way = Callable[[int], object]


def write_store(path: Path, windows: int, shard: int = STEPS, inner: int = INNER) -> None:
    """Write noisy sensors: random walks, rounded to hundredths, as loggers do; add to a store that is there."""
    group = zarr.open_group(path, mode="a", zarr_format=3)
    have = 0
    if "v" in group:
        have = group["v"].shape[0] // shard  # type: ignore[union-attr]
        group["v"].resize((windows * shard, CHANNELS))  # type: ignore[union-attr]
        group["time"].resize((windows * shard,))  # type: ignore[union-attr]
    else:
        group.create_array(
            "v",
            shape=(windows * shard, CHANNELS),
            shards=(shard, CHANNELS),
            chunks=(inner, CHANNELS),
            dtype="f4",
            compressors=ZstdCodec(level=3),
            dimension_names=("time", "channel"),
        )
        times = group.create_array(
            "time", shape=windows * shard, chunks=(100_000,), dtype="i8", dimension_names=("time",)
        )
        times.attrs["units"] = "milliseconds since 2024-01-01"
    array: Any = group["v"]
    times = group["time"]  # type: ignore[assignment]
    for number in range(have, windows):
        noise = np.random.default_rng(number)
        walk = np.cumsum(noise.standard_normal((shard, CHANNELS), np.float32), axis=0)
        part = slice(number * shard, (number + 1) * shard)
        array[part] = np.round(walk, 2)
        times[part] = np.arange(part.start, part.stop)


def limit(path: Path) -> Way:
    """Return what decodes each inner chunk and copies it into place."""
    import zstandard

    decoder = zstandard.ZstdDecompressor()
    window = np.empty((STEPS, CHANNELS), np.float32)
    flat = window.reshape(-1).view(np.uint8)
    count = STEPS // INNER

    def decode(number: int) -> None:
        raw = (path / "v" / "c" / str(number) / "0").read_bytes()
        index = np.frombuffer(raw[-(16 * count + 4) : -4], "<u8").reshape(-1, 2)
        begin = 0
        for offset, nbytes in index.tolist():
            part = decoder.decompress(raw[offset : offset + nbytes])
            flat[begin : begin + len(part)] = np.frombuffer(part, np.uint8)
            begin += len(part)

    return decode


def others(path: Path) -> dict[str, Way]:
    """Return the libraries that are installed, each reading a window by its number."""
    import xarray as xr

    def window(number: int) -> slice:
        return slice(number * STEPS, (number + 1) * STEPS)

    rust = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"} if find_spec("zarrs") else None
    found: dict[str, Way] = {}
    plain: Any = zarr.open_group(path, mode="r")["v"]
    keywords: dict[str, Any] = {"chunks": None, "consolidated": False, "mask_and_scale": False, "decode_times": False}
    lazy = xr.open_zarr(path, **keywords)["v"]
    if rust is not None:
        with zarr.config.set(rust):
            fast: Any = zarr.open_group(path, mode="r")["v"]
            fast_lazy = xr.open_zarr(path, **keywords)["v"]
        found["zarr-python with zarrs"] = lambda number: fast[window(number)]
        found["xarray with zarrs, chunks=None"] = lambda number: fast_lazy[window(number)].values
    found["zarr-python"] = lambda number: plain[window(number)]
    found["xarray, chunks=None"] = lambda number: lazy[window(number)].values
    if find_spec("tensorstore") is not None:
        import tensorstore

        kvstore = {"driver": "file", "path": str(path / "v")}
        store = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}).result()
        found["tensorstore"] = lambda number: store[window(number)].read().result()
    return found


def sensors(path: Path, **window: Any) -> tuple[SensorsReader, list[PlanEntry]]:
    """Return the reader of a store and its windows."""
    spec = SensorsSource.model_validate({"kind": "sensors", "paths": [path.name], "variables": "v"})
    reader = SensorsReader(spec, WindowSpec.model_validate({"length": STEPS, **window}), path.parent)
    return reader, [line for line in reader.plan() if isinstance(line, PlanEntry)]


def cpu_ms(work: Callable[[], object]) -> float:
    """Return the CPU time of one call in ms."""
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1e3


def speed(path: Path, windows: int, rounds: int) -> Iterator[str]:
    """Yield the table of windows that lie on the chunks, and that of windows that do not."""
    ways = {"zstd decode + memcpy (limit)": limit(path), **others(path)}
    start = time.process_time()
    reader, entries = sensors(path)
    plan_ms = (time.process_time() - start) * 1e3
    taken: dict[str, list[float]] = {name: [] for name in ways}
    own: list[float] = []
    for _ in range(rounds):
        # The reader reads ahead in a thread: its windows are timed as a whole, between two passes of the others.
        own.append(cpu_ms(lambda: sum(1 for _ in reader.read([entry.chunk for entry in entries]))) / windows)
        for number in range(windows):
            for name, way in ways.items():
                taken[name].append(cpu_ms(lambda way=way, number=number: way(number)))  # type: ignore[misc]
        own.append(cpu_ms(lambda: sum(1 for _ in reader.read([entry.chunk for entry in entries]))) / windows)
    medians = {name: statistics.median(each) for name, each in taken.items()}
    medians["s1batch reader (records, NaN checked)"] = statistics.median(own)
    best = medians["zstd decode + memcpy (limit)"]
    rows = [
        (name, f"{each:.1f}", f"{WINDOW_MB / each:.2f}", f"{best / each:.0%}")
        for name, each in sorted(medians.items(), key=lambda item: item[1])
    ]
    title = f"{windows} windows of 1,000,000 x 8 float32, aligned; planning took {plan_ms:.0f} ms CPU ({load()})"
    yield table(title, ("way", "CPU ms per window", "MB per CPU ms", "of the limit"), rows)

    half, entries = sensors(path, overlap="50%")
    taken_ms = cpu_ms(lambda: sum(1 for _ in half.read([entry.chunk for entry in entries])))
    plain: Any = zarr.open_group(path, mode="r")["v"]
    spans = [entry.chunk.inputs[0].slices[0] for entry in entries]
    bare_ms = cpu_ms(lambda: sum(len(plain[span.start : span.stop]) for span in spans))
    shared = [
        (
            "s1batch reader: shared chunks decoded once",
            f"{taken_ms / len(entries):.1f}",
            f"{best * windows / taken_ms:.0%}",
        ),
        ("zarr-python, window by window", f"{bare_ms / len(entries):.1f}", f"{best * windows / bare_ms:.0%}"),
    ]
    head = ("way", "CPU ms per window", "of the limit for decoding all chunks once")
    yield table(f"{len(entries)} windows with 50 % overlap", head, shared)


def memory(folder: Path) -> str:
    """Return the table of peak memory as the archive grows to 20 times its size."""
    store = folder / "grown" / "a.zarr"
    job = folder / "job.yaml"
    job.write_text(
        yaml.safe_dump(
            {
                "source": {"kind": "sensors", "paths": [str(store)], "variables": "v"},
                "window": {"length": SMALL_STEPS},
                "job": {"kind": "ask", "prompt": "What do {{ channels }} show?"},
                "engine": {"kind": "replay", "function": "tests.answers:echo"},
            }
        )
    )
    rows = []
    for size in GROWTH:
        write_store(store, 16 * size, shard=100_000, inner=10_000)
        plan = measure([*PROGRAM, "plan", str(job), "-o", str(folder / f"plan{size}")], folder=folder)
        run = measure([*PROGRAM, "run", str(job), "-o", str(folder / f"run{size}")], folder=folder)
        row = [f"{size}x", f"{16 * size * 100_000 * CHANNELS * 4 / 2**20:,.0f}", f"{160 * size:,}"]
        for usage in (plan, run):
            row += [f"{usage.peak_mb:,.0f}", f"{usage.cpu_s:.1f}", str(usage.code)]
        rows.append(tuple(row))
    head = ("archive", "MB", "windows", "plan: peak MB", "CPU s", "exit", "run: peak MB", "CPU s", "exit")
    return table(f"Memory as the archive grows ({load()})", head, rows)


def main() -> None:
    """Write the store, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mb", type=int, default=1024, help="size of the array before compression")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    windows = max(2, round(options.mb / WINDOW_MB))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_store(folder / "a.zarr", windows)
        for text in speed(folder / "a.zarr", windows, options.rounds):
            print(text, flush=True)
        print(memory(folder))


if __name__ == "__main__":
    main()
