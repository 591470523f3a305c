"""How fast images are read, beside loops that do only what must be done; and memory as a folder grows.

    python tests/benchmarks/bench_images.py [--images 200]

Generates photographs of 1024 x 768 pixels and one TIFF of 8192 x 8192 pixels (16 bits, tiles of 512, deflate) in a
temporary folder. Prints CPU seconds of one thread: the best of several runs that take turns in one process. Which
chunks there are is planned beforehand. What the reader hands over is encoded in base64, as the engine does before it
sends it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import pybase64  # noqa: E402
import tifffile  # noqa: E402
from PIL import Image  # noqa: E402

from s1batch.readers.images.reader import ImageReader  # noqa: E402
from s1batch.readers.images.sending import JPEG_QUALITY  # noqa: E402
from s1batch.readers.images.spec import ImageSource  # noqa: E402
from s1batch.readers.images.tiff import TiffFile  # noqa: E402
from s1batch.readers.images.tiles import Box  # noqa: E402
from s1batch.records import Chunk, Fields, PlanEntry  # noqa: E402
from tests.benchmarks.harness import load, measure, table  # noqa: E402

PROGRAM = (sys.executable, "-m", "s1batch")
WIDTH, HEIGHT = 1024, 768
SIDE = 8192
REPEATS = 5
GROWTH = (1, 5, 20)


def write_photographs(folder: Path, count: int) -> None:
    """Smooth shapes with grain, as cameras make: some 180 kB each."""
    folder.mkdir()
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    draw = np.random.default_rng(1)
    for number in range(count):
        waves = [np.sin(x / draw.uniform(20, 200) + y / draw.uniform(20, 200) + shift) for shift in (0, 1, 2)]
        grain = draw.normal(0, 6, (HEIGHT, WIDTH, 1))
        pixels = np.clip(128 + 100 * np.stack(waves, axis=-1) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.jpg", quality=85)


def write_scene(path: Path) -> None:
    """A scene of 16 bits that compresses to about half."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    values = (8000 + 4000 * np.sin(x / 300.0) * np.cos(y / 200.0)).astype(np.uint16)
    values += np.random.default_rng(1).integers(0, 64, values.shape, dtype=np.uint16)
    tifffile.imwrite(path, values, tile=(512, 512), compression="zlib", compressionargs={"level": 1}, predictor=True)


def planned(path: Path, **source: object) -> tuple[ImageReader, list[Chunk]]:
    """Return a reader and its chunks."""
    reader = ImageReader(ImageSource.model_validate({"kind": "images", "paths": str(path), **source}), path.parent)
    return reader, [line.chunk for line in reader.plan() if isinstance(line, PlanEntry)]


def ours(path: Path, **source: object) -> Callable[[], int]:
    """Return what reads all chunks and encodes what is sent of them."""
    reader, chunks = planned(path, **source)

    def work() -> int:
        found = 0
        for record in reader.read(chunks):
            payload = record.payload
            if not isinstance(payload, Fields):
                raise ValueError(f"an image was not read: {record.refusal}")
            found += len(pybase64.b64encode(payload.images[0].data))
        return found

    return work


def bare_passing(folder: Path) -> int:
    """Read and encode."""
    found = 0
    for path in sorted(folder.iterdir()):
        with open(path, "rb") as file:
            found += len(pybase64.b64encode(file.read()))
    return found


def bare_scaling(folder: Path) -> int:
    """Decode at a fraction, scale, encode."""
    found = 0
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            image.draft("RGB", (512, 384))
            small = image.resize((512, 384), Image.Resampling.BICUBIC)
        file = BytesIO()
        small.save(file, "JPEG", quality=JPEG_QUALITY)
        found += len(pybase64.b64encode(file.getvalue()))
    return found


def bare_tiff(path: Path) -> int:
    """Decode all tiles, one thread."""
    with tifffile.TiffFile(path) as file:
        return int(file.pages[0].asarray(maxworkers=1).nbytes)


def boxes(path: Path) -> int:
    """Read the values of all boxes of 1,024 pixels."""
    file = TiffFile(str(path))
    found = 0
    for y in range(0, SIDE, 1024):
        for x in range(0, SIDE, 1024):
            found += file.values(0, Box(x, y, 1024, 1024)).values.nbytes
    file.close()
    return found


def best(cases: Sequence[tuple[str, Callable[[], int]]], repeats: int = REPEATS) -> dict[str, float]:
    """Return the least CPU seconds of each case; they take turns."""
    found = {name: float("inf") for name, _ in cases}
    for _ in range(repeats):
        for name, work in cases:
            began = time.process_time()
            work()
            found[name] = min(found[name], time.process_time() - began)
    return found


def show(title: str, count: int, unit: str, seconds: dict[str, float]) -> None:
    """Print a table; the first case is what the others are compared with."""
    first = next(iter(seconds.values()))
    rows = [(name, f"{used:.3f}", f"{count / used:,.0f}", f"{first / used:.0%}") for name, used in seconds.items()]
    print(table(f"{title} ({load()})", ("", "CPU s", f"{unit} per CPU second", "bare / this"), rows), flush=True)


def memory(folder: Path, photographs: Path, count: int) -> None:
    """Plan and run folders of growing size; a function answers, so that the run and not an engine is seen."""
    files = sorted(photographs.iterdir())[:count]
    rows = []
    archive = folder / "growing"
    archive.mkdir()
    written = 0
    for size in GROWTH:
        while written < size * count:
            # Further names of the same files: what is read is as much, and what is written little.
            (archive / f"{written:06d}.jpg").hardlink_to(files[written % count])
            written += 1
        job = folder / f"job{size}.yaml"
        job.write_text(
            yaml.safe_dump(
                {
                    "source": {"kind": "images", "paths": str(archive), "max_side": 256},
                    "job": {"kind": "ask", "prompt": "What is in {{ file }}?"},
                    "engine": {"kind": "replay", "function": "tests.answers:echo"},
                }
            )
        )
        plan = measure([*PROGRAM, "plan", str(job), "-o", str(folder / f"plan{size}")], folder=folder)
        run = measure([*PROGRAM, "run", str(job), "-o", str(folder / f"run{size}")], folder=folder)
        row = [f"{size}x", f"{written:,}"]
        for usage in (plan, run):
            row += [f"{usage.peak_mb:,.0f}", f"{usage.cpu_s:.1f}", str(usage.code)]
        rows.append(tuple(row))
    head = ("folder", "images", "plan: peak MB", "CPU s", "exit", "run: peak MB", "CPU s", "exit")
    print(table(f"Memory as a folder grows ({load()})", head, rows))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=200)
    count = parser.parse_args().images
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photographs, scene = folder / "photographs", folder / "scene.tif"
        write_photographs(photographs, count)
        size_mb = sum(path.stat().st_size for path in photographs.iterdir()) / 2**20
        passing = best([("read + base64", lambda: bare_passing(photographs)), ("the reader", ours(photographs))])
        show(f"Passed as they are: {count} JPEG of {WIDTH} x {HEIGHT}, {size_mb:,.0f} MB", count, "images", passing)
        scaled = ours(photographs, max_side=512)
        seconds = best([("Pillow, `draft`", lambda: bare_scaling(photographs)), ("the reader", scaled)], repeats=3)
        show("Scaled to 512 pixels", count, "images", seconds)
        write_scene(scene)
        tiles = ours(scene, tile={"size": 1024, "overlap": 0}, scaling="window", value_window=(0, 16_000))
        overlapping = ours(scene, tile={"size": 1024, "overlap": 64}, scaling="window", value_window=(0, 16_000))
        cases = [
            ("tifffile, the whole", lambda: bare_tiff(scene)),
            ("values of all tiles", lambda: boxes(scene)),
            ("tiles as PNG", tiles),
            ("tiles as PNG, 64 pixels overlap", overlapping),
        ]
        show(f"Tiles of a TIFF of {SIDE} x {SIDE} of 16 bits", SIDE**2 // 10**6, "megapixels", best(cases, repeats=2))
        memory(folder, photographs, min(count, 100))


if __name__ == "__main__":
    main()
