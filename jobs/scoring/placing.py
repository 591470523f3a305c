"""Finds the instruments of an archive that an onset belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import polars as pl

from s1batch.jobs.scoring.matching import Points
from s1batch.jobs.scoring.phases import PHASES, Phase

Instrument = tuple[str, str, str, str]
"""Network, station, location and band code."""


def place_onsets(onsets: pl.DataFrame, instruments: Sequence[Instrument]) -> tuple[dict[Phase, Points], int]:
    """Give each onset to the instruments at its station.

    An onset is a property of the station, so it counts for every instrument there, with two exceptions: where an
    instrument has the band code that the onset names, only such instruments count; the same for the location code.
    A network code that is missing on either side is not compared.

    Args:
        onsets: Table with the columns of `s1batch.jobs.scoring.truth.ONSETS`.
        instruments: The archive's; a group is an index into them.

    Returns:
        The onsets of each phase, equal ones once; and how many are at stations that the archive does not have.
    """
    by_station: dict[str, list[int]] = defaultdict(list)
    for group, (_, station, _, _) in enumerate(instruments):
        by_station[station].append(group)
    placed: dict[str, set[tuple[int, int]]] = {phase: set() for phase in PHASES}
    elsewhere = 0
    columns = ("network", "station", "location", "band", "phase", "time_ns")
    for network, station, location, band, phase, time_ns in onsets.select(columns).iter_rows():
        groups = [group for group in by_station.get(station, ()) if _agree(network, instruments[group][0])]
        elsewhere += not groups
        for part, code in ((3, band), (2, location)):
            if code:
                groups = [group for group in groups if instruments[group][part] == code] or groups
        placed[phase] |= {(group, time_ns) for group in groups}
    return {phase: _points(sorted(placed[phase])) for phase in PHASES}, elsewhere


def _agree(one: str, other: str) -> bool:
    return one == other or not one or not other


def _points(pairs: Sequence[tuple[int, int]]) -> Points:
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return Points(group=table[:, 0], time_ns=table[:, 1])


def median_s_minus_p_ns(onsets: dict[Phase, Points], longest_ns: int) -> int | None:
    """Return the median time from each P to the first S behind it, before the next P and within `longest_ns`.

    None when there is no such pair.
    """
    delays: list[int] = []
    for group in np.unique(onsets["P"].group):
        p_ns, s_ns = (np.sort(onsets[phase].time_ns[onsets[phase].group == group]) for phase in PHASES)
        after = np.searchsorted(s_ns, p_ns, side="right")
        ends = np.minimum(np.append(p_ns[1:], np.iinfo(np.int64).max), p_ns + longest_ns)
        delays += [
            int(s_ns[place] - start)
            for start, end, place in zip(p_ns, ends, after, strict=True)
            if place < len(s_ns) and s_ns[place] < end
        ]
    return round(float(np.median(delays))) if delays else None
