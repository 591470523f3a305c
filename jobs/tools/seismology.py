"""Seismology for the model: travel times through a reference Earth."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field

MOST_ARRIVALS = 50

EarthModel = Literal["iasp91", "ak135", "prem"]
Phase = Annotated[str, Field(pattern=r"^[A-Za-z0-9^+\-]{1,20}$")]


def travel_times(
    distance_deg: Annotated[float, Field(ge=0, le=180)],
    depth_km: Annotated[float, Field(ge=0, le=800)] = 0.0,
    phases: Annotated[list[Phase], Field(min_length=1, max_length=20)] = ["P", "S"],  # noqa: B006 - never changed
    model: EarthModel = "iasp91",
) -> list[dict[str, Any]]:
    """Travel times of seismic phases through a reference Earth model (ObsPy's TauP), earliest first.

    A phase that does not arrive at this distance is missing from the result. "p" and "s" leave the source upwards,
    "P" and "S" downwards: ask for both near a deep source.

    Args:
        distance_deg: Epicentral distance in degrees; 1 degree is 111.19 km.
        depth_km: Depth of the source in km.
        phases: Names of the phases, such as P, S, pP, PcP, PKP; ttbasic is a common set.
        model: The Earth model.
    """
    arrivals = _taup(model).get_travel_times(
        source_depth_in_km=depth_km, distance_in_degree=distance_deg, phase_list=phases
    )
    return [
        {
            "phase": arrival.name,
            "time_s": round(float(arrival.time), 3),
            "ray_parameter_s_per_deg": round(float(arrival.ray_param_sec_degree), 4),
            "incident_angle_deg": round(float(arrival.incident_angle), 2),
        }
        for arrival in arrivals[:MOST_ARRIVALS]
    ]


@lru_cache(maxsize=3)
def _taup(model: str) -> Any:
    from obspy.taup import TauPyModel

    return TauPyModel(model=model)
