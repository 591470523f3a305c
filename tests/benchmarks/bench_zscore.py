"""How wrong a z-score in float32 is, beside float64 over the same samples: what `engine/conditioning.py` decides by.

python tests/benchmarks/bench_zscore.py
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def z_score(values_TC: NDArray[np.floating]) -> NDArray[np.floating]:
    """Z-score as LMDeploy computes it, in the precision of its input."""
    return np.asarray((values_TC - values_TC.mean(axis=0)) / (values_TC.std(axis=0) + values_TC.dtype.type(1e-8)))


def worst(steps: int, ratio: float, scale: float) -> float:
    """Return the largest error in sigma over six channels of noise."""
    noise = np.random.default_rng(0).normal(size=(steps, 6))
    values = ((noise + ratio) * scale).astype(np.float32)
    wide = values.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.abs(z_score(values) - (wide - wide.mean(axis=0)) / wide.std(axis=0)).max())


def main() -> None:
    """Print both tables."""
    lengths = (6000, 60_000, 240_000)
    print("mean/std  " + "".join(f"{steps:>12,}" for steps in lengths))
    for ratio in (0, 1, 3, 10, 30, 100, 300, 1000):
        print(f"{ratio:>8}  " + "".join(f"{worst(steps, ratio, 100.0):>12.1e}" for steps in lengths))
    print("     std  " + "".join(f"{steps:>12,}" for steps in lengths))
    for scale in (1e-12, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1.0, 1e9, 1e15, 1e16, 1e18):
        print(f"{scale:>8.0e}  " + "".join(f"{worst(steps, 0.0, scale):>12.1e}" for steps in lengths))


if __name__ == "__main__":
    main()
