"""The demo's claims: the times that it names are `ar_pick`'s, and the embedded model's picks lie beside them."""

from __future__ import annotations

import shutil
from datetime import datetime

import pytest

import s1batch
from examples.demo import compare, run


def test_the_times_in_the_demo_are_those_of_ar_pick():
    import obspy
    from obspy import UTCDateTime
    from obspy.signal.trigger import ar_pick

    stream = obspy.read()
    for record in run.RECORDS:
        if "BGLD" not in record and "gaps" not in record:
            stream += obspy.read(str(run.SHIPPED / record))
    for station, time, _ in compare.ONSETS:
        onset = UTCDateTime(time)
        before = 5 if station in ("RJOB", "STN") else 10
        cut = stream.select(station=station).slice(onset - before, onset + 20).copy().detrend("linear")
        vertical = next((trace for trace in cut if trace.stats.channel[-1] in "Z0"), cut[0])
        others = [trace for trace in cut if trace is not vertical][:2] or [vertical]
        rate_hz = vertical.stats.sampling_rate
        waves = [trace.data for trace in (vertical, others[0], others[-1])]
        p_s, _ = ar_pick(*waves, rate_hz, 1.0, min(20, 0.4 * rate_hz), 1, 0.1, 4, 1, 2, 8, 0.1, 0.2)
        assert abs(vertical.stats.starttime + p_s - onset) < 0.3, station


@pytest.mark.slow
def test_the_model_picks_p_within_half_a_second_and_is_silent_on_noise(tmp_path):
    run.gather(tmp_path / "archive")
    shutil.copyfile(run.HERE / "job.yaml", tmp_path / "job.yaml")
    s1batch.run(tmp_path / "job.yaml")
    lines = compare.comparison_lines(tmp_path / "results")
    near = {}
    for (station, time, _), line in zip(compare.ONSETS, lines[1:], strict=False):
        said = line.split()[2]
        if said != "none":
            distance = datetime.fromisoformat(said) - datetime.fromisoformat(time)
            near[station, time] = abs(distance.total_seconds())
    assert near[compare.ONSETS[0][:2]] <= 0.5
    assert sum(distance <= 0.5 for distance in near.values()) >= 9
    noise, with_gaps = (line for line in lines if "without an earthquake" in line)
    assert "3 of 3 windows" in noise
    assert "16 of 16 windows" in with_gaps
    assert "2 not asked" in with_gaps
