"""Onsets from event files: QuakeML, SCML (SeisComP) and NonLinLoc's hypocentre files, read by ObsPy."""

from __future__ import annotations

import warnings
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import polars as pl

from s1batch.errors import UsageError
from s1batch.jobs.scoring.phases import onset_phase
from s1batch.jobs.scoring.truth import ONSETS, Truth

_FORMATS = ("QUAKEML", "SCML", "SC3ML", "NLLOC_HYP")
"""ObsPy's names of formats that hold picks and can be told from one another by their content."""


def event_format(path: Path) -> str | None:
    """Return ObsPy's name of the format of an event file; None when it is none of those that are understood."""
    for name, check in _checks():
        if check(str(path)):
            return name
    return None


def event_onsets(path: Path, kind: str) -> Truth:
    """Return the picks of an event file.

    Of one event, one station and one wave (P or S) the earliest direct onset counts: a catalogue may list Pn and Pg,
    or one onset on several channels. Rejected picks are left out.

    Raises:
        UsageError: ObsPy cannot read it.
    """
    from obspy import read_events

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            catalogue = read_events(str(path), format=kind)
        except Exception as error:
            raise UsageError(f"{path}: cannot be read as {kind}: {' '.join(str(error).split())}") from error
    first: dict[tuple[int, str, str, str], tuple[int, str, str]] = {}
    other = 0
    for number, event in enumerate(catalogue):
        for pick in event.picks:
            phase = onset_phase(_hint(event, pick))
            if phase is None or pick.evaluation_status == "rejected" or pick.time is None or pick.waveform_id is None:
                other += 1
                continue
            codes = pick.waveform_id
            key = (number, codes.network_code or "", codes.station_code or "", phase)
            onset = (int(pick.time.ns), codes.location_code or "", (codes.channel_code or "")[:2])
            if key in first:
                other += 1
                onset = min(onset, first[key])
            first[key] = onset
    lines = [
        (network, station, location, band, phase, time_ns)
        for (_, network, station, phase), (time_ns, location, band) in first.items()
    ]
    return Truth(onsets=pl.DataFrame(lines, schema=ONSETS, orient="row"), other_phases=other)


def _hint(event: Any, pick: Any) -> str:
    """Return a pick's phase: its own hint, else that of the arrival that refers to it."""
    if pick.phase_hint:
        return str(pick.phase_hint)
    for origin in event.origins:
        for arrival in origin.arrivals:
            if arrival.pick_id == pick.resource_id and arrival.phase:
                return str(arrival.phase)
    return ""


@cache
def _checks() -> tuple[tuple[str, Any], ...]:
    found = []
    for name in _FORMATS:
        for point in entry_points(group=f"obspy.plugin.event.{name}", name="isFormat"):
            found.append((name, point.load()))
            break
    return tuple(found)
