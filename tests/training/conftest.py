"""A folder of labelled recordings, made by the generator, in the form of the labelled sets that are trained on."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from s1batch.training.noise import coloured_noise

RATE_HZ, STEPS, P = 100.0, 9000, 3000


@pytest.fixture(scope="session")
def labelled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six recordings of four stations, two with a vertical component only."""
    import obspy

    folder = tmp_path_factory.mktemp("labelled")
    rows = []
    for number, (station, codes) in enumerate(
        [("AAA", "ENZ"), ("AAA", "ENZ"), ("BBB", "Z"), ("CCC", "ENZ"), ("CCC", "ENZ"), ("DDD", "Z")]
    ):
        random = np.random.default_rng(number)
        s = P + 150 + 40 * number
        stream = obspy.Stream()
        for code in codes:
            wave = coloured_noise(random, 1, STEPS, RATE_HZ)[0] * 10
            wave[P : P + 600] += 300 * random.normal(size=600) * np.exp(-np.arange(600) / 150)
            wave[s : s + 900] += 900 * random.normal(size=900) * np.exp(-np.arange(900) / 200)
            header = {"network": "XX", "station": station, "channel": f"HH{code}", "sampling_rate": RATE_HZ}
            stream.append(obspy.Trace(wave.astype(np.float32), header))
        name = f"XX_{station}_{number}.mseed"
        stream.write(str(folder / name), format="MSEED")
        rows.append({"file": name, "network": "XX", "station": station, "p_index": P, "s_index": s})
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder
