"""A trivial detector to compare with: samples that lie far from the median of their window.

    z = |x - median| / (1.4826 MAD), MAD = median of |x - median|

1.4826 makes the MAD of normal noise its standard deviation (Iglewicz and Hoaglin 1993, How to Detect and Handle
Outliers). Where the MAD is 0, every sample that is not the median is far from it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LIMIT = 5.0
"""Samples with a larger z are flagged."""


def flagged_runs(values_TC: NDArray[np.float32], limit: float = LIMIT) -> list[tuple[int, int]]:
    """Return the half-open runs of samples that are flagged in any channel.

    Args:
        values_TC: The window.
        limit: Largest z that is not flagged.
    """
    if not len(values_TC):
        return []
    distance_TC = np.abs(values_TC - np.median(values_TC, axis=0))
    mad_C = np.median(distance_TC, axis=0)
    flagged_T = (distance_TC > limit * 1.4826 * mad_C).any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flagged_T.astype(np.int8), [0]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
