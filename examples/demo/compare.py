"""What the embedded model said about the demo's records, beside ObsPy's `ar_pick`.

`ar_pick` ran with the parameters of ObsPy's tutorial (1 Hz to 20 Hz or 0.4 of the rate, LTA 1 and 4 s, STA 0.1 and 1 s,
AR orders 2 and 8, variances 0.1 and 0.2 s) on the recorded samples from 5 to 10 s before each onset to 20 s behind it;
where a station has no horizontal components, on its only one.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl

ONSETS = (
    ("RJOB", "2009-08-24T00:20:07.700", "local earthquake in the Bavarian Alps, ObsPy's example"),
    ("AKT013", "1996-08-10T18:12:33.540", "K-NET, strong motion, one horizontal component"),
    ("STN", "2002-07-22T04:46:55.632", "Kinemetrics recorder, three components, 250 Hz"),
    ("UH1", "2010-05-27T16:24:33.340", "Unterhaching, first earthquake, vertical component"),
    ("UH2", "2010-05-27T16:24:33.160", "Unterhaching, first earthquake, vertical component"),
    ("UH3", "2010-05-27T16:24:33.110", "Unterhaching, first earthquake, three components"),
    ("UH4", "2010-05-27T16:24:34.130", "Unterhaching, first earthquake, vertical component"),
    ("UH3", "2010-05-27T16:25:26.550", "Unterhaching, second earthquake"),
    ("UH1", "2010-05-27T16:27:30.620", "Unterhaching, third earthquake"),
    ("UH3", "2010-05-27T16:27:30.410", "Unterhaching, third earthquake"),
    ("UH4", "2010-05-27T16:27:31.360", "Unterhaching, third earthquake"),
)
"""Station, P by `ar_pick` (UTC), and what it is."""

QUIET = (
    ("RJOB", "2005-08-31", "a minute of noise"),
    ("BGLD", "2008-01-01", "four minutes with gaps, without a known earthquake"),
)
"""Station and day of records without a known earthquake."""

NEAR_S = 5.0
"""A pick farther away than this belongs to something else."""


def comparison_lines(results: Path) -> list[str]:
    """Return a table of the model's P beside `ar_pick`'s, and what it said about the records of noise.

    Args:
        results: Folder of the demo's results.
    """
    rows = pl.read_parquet(results / "rows" / "*.parquet")
    lines = [
        f"{'station':8} {'P, ar_pick':26} {'P, model':26} {'difference':>10}  what",
    ]
    within = 0
    for station, time, what in ONSETS:
        wanted = datetime.fromisoformat(time + "+00:00")
        found = rows.filter((pl.col("station") == station) & pl.col("p_time").is_not_null())["p_time"].to_list()
        near = [(abs((each - wanted).total_seconds()), each) for each in found]
        distance_s, nearest = min(near, default=(NEAR_S, None))
        if nearest is None or distance_s >= NEAR_S:
            lines.append(f"{station:8} {time:26} {'none':26} {'':>10}  {what}")
            continue
        within += distance_s <= 0.5
        said = nearest.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        lines.append(f"{station:8} {time:26} {said:26} {(nearest - wanted).total_seconds():>+8.2f} s  {what}")
    lines.append(f"{within} of {len(ONSETS)} within 0.5 s")
    for station, day, what in QUIET:
        # Rows that were not asked have no columns of the station, but a source and a time.
        there = rows.filter(
            pl.col("source").str.contains(f".{station}.", literal=True) & pl.col("end").dt.strftime("%Y-%m-%d").eq(day)
        )
        quiet = there.filter(pl.col("outcome") == "ok")
        heard = int(quiet["contain"].sum() or 0)
        refused = there.filter(pl.col("reason") == "gap_too_large").height
        lines.append(
            f"{station} on {day}, {what}: {quiet.height - heard} of {quiet.height} windows without an earthquake"
            + (f", {refused} not asked for their gaps" if refused else "")
        )
    return lines
