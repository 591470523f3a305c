"""Vibration of three pumps in Zarr stores -> anomalies of overlapping windows -> merged -> proof -> score.

Makes its data: two of the pumps have a fault at a known time, one store has a chunk that is damaged and one that is
missing. Needs no network and no GPU. Run again, it resumes.

    python -m examples.sensors.run [FOLDER]
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import zarr

from examples.commands import folder_asked, show

HERE = Path(__file__).resolve().parent
RATE_HZ, MINUTES = 100, 2
START = datetime(2024, 1, 1, tzinfo=UTC)
FAULTS = {"pump1": (35, "a bearing that knocks"), "pump2": (65, "a shaft that shakes")}
FAULT_S = 10


def vibration(name: str, seed: int) -> np.ndarray:
    """Return minutes of three axes: turning at 24 Hz, noise, and the pump's fault."""
    noise = np.random.default_rng(seed)
    times = np.arange(MINUTES * 60 * RATE_HZ) / RATE_HZ
    phases = np.array([0.0, 0.7, 1.9])
    values: np.ndarray = 0.4 * np.sin(2 * np.pi * 24 * times[:, None] + phases) + noise.normal(0, 0.1, (len(times), 3))
    if name in FAULTS:
        since = times - FAULTS[name][0]
        inside = (since > 0) & (since < FAULT_S)
        if name == "pump1":
            values += (inside & (np.round(since * RATE_HZ) % 37 == 0))[:, None] * [4.0, 2.0, 1.0]
        else:
            values += (inside * np.sin(2 * np.pi * 6 * since) * 2.5)[:, None]
    return np.asarray(values, "f4")


def make(plant: Path) -> None:
    """Write the stores; those that are there already stay, so that a second run resumes the first."""
    for seed, name in enumerate(("pump0", "pump1", "pump2")):
        store = plant / f"{name}.zarr"
        if store.exists():
            continue
        values = vibration(name, seed)
        values[1321, 1] = np.nan
        partial = plant / f".{name}.zarr"
        shutil.rmtree(partial, ignore_errors=True)
        group = zarr.open_group(partial, mode="w", zarr_format=3)
        array = group.create_array(
            "vibration",
            shape=values.shape,
            shards=(3000, 3),
            chunks=(1000, 3),
            dtype="f4",
            dimension_names=("time", "axis"),
            attributes={"units": "m s-2", "long_name": "Acceleration"},
        )
        array[...] = values
        times = group.create_array("time", shape=len(values), dtype="i8", dimension_names=("time",))
        times[...] = int(START.timestamp()) * 1000 + np.arange(len(values)) * 1000 // RATE_HZ
        times.attrs["units"] = "milliseconds since 1970-01-01"
        if name == "pump0":
            shard = partial / "vibration" / "c" / "1" / "0"
            shard.write_bytes(shard.read_bytes()[:5000])
        if name == "pump1":
            (partial / "vibration" / "c" / "3" / "0").unlink()
        partial.rename(store)


def write_truth(path: Path) -> None:
    """Write where the faults are, one line each."""
    lines = ["source,start,end"]
    for name, (second, _) in FAULTS.items():
        begin = START + timedelta(seconds=second)
        lines.append(f"{name}.zarr/vibration,{begin.isoformat()},{(begin + timedelta(seconds=FAULT_S)).isoformat()}")
    path.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run the example in the folder given on the command line, or in ./sensors."""
    folder = folder_asked("sensors")
    make(folder / "plant")
    write_truth(folder / "truth.csv")
    job = folder / "job.yaml"
    shutil.copyfile(HERE / "job.yaml", job)
    results = str(folder / "results")
    show("plan", str(job))
    # Windows of the damaged shard get their rows too; --accept says that they are expected, and so are intervals that
    # end before they begin: the embedded model was not made for this.
    show("run", str(job), "-o", results, "--accept", "unreadable,unparsed")
    show("show", results, "--columns", "source,start,outcome,reason,anomalous,absent_frac,nan_frac", "-n", "40")
    show("show", results, "--merged")
    show("verify", results, "--sources")
    show("score", results, "--truth", str(folder / "truth.csv"))
    print("\nWhat was planted, and is scored against:")
    for name, (second, what) in FAULTS.items():
        print(f"  {name}: {what}, from second {second} to {second + FAULT_S}")
    print("The answers of the embedded model mean nothing here; `robust z` beside it is what simple statistics find.")


if __name__ == "__main__":
    main()
