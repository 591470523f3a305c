"""Travel times in a crust of one layer over a half-space, with random thickness and velocities.

First arrivals: the direct wave, sqrt(x^2 + z^2) / v, or the wave along the Moho,
x / v_n + (2 h - z) sqrt(1 / v^2 - 1 / v_n^2), whichever is earlier where the second exists (Lay and Wallace 1995, 3.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Crust:
    """A layer over a half-space.

    Attributes:
        thickness_km: Depth of the Moho.
        p_km_s: P velocity of the layer.
        mantle_km_s: P velocity below.
        ratio: v_P / v_S of both.
    """

    thickness_km: float = 35.0
    p_km_s: float = 6.0
    mantle_km_s: float = 8.0
    ratio: float = math.sqrt(3)

    @classmethod
    def drawn(cls, random: np.random.Generator) -> Crust:
        """Return a crust as they are found on continents."""
        return cls(
            thickness_km=random.uniform(22, 48),
            p_km_s=random.uniform(4.8, 6.6),
            mantle_km_s=random.uniform(7.7, 8.3),
            ratio=random.uniform(1.62, 1.95),
        )

    def p_s(self, distance_km: float, depth_km: float) -> float:
        """Return the travel time of the first P, in seconds; the source lies above the Moho."""
        direct = math.hypot(distance_km, depth_km) / self.p_km_s
        steep = math.sqrt(self.p_km_s**-2 - self.mantle_km_s**-2)
        sine = self.p_km_s / self.mantle_km_s
        critical_km = (2 * self.thickness_km - depth_km) * sine / math.sqrt(1 - sine**2)
        if distance_km < critical_km:
            return direct
        return min(direct, distance_km / self.mantle_km_s + (2 * self.thickness_km - depth_km) * steep)

    def s_s(self, distance_km: float, depth_km: float) -> float:
        """Return the travel time of the first S, in seconds: the same ray, slower by the ratio."""
        return self.ratio * self.p_s(distance_km, depth_km)
