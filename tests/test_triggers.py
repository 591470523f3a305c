"""A scan's answer decides about the windows near the places that it names, in times or in samples."""

from __future__ import annotations

import pytest

from s1batch.records import Address, Chunk, PlanEntry, Row, Slice
from s1batch.triggers import Triggers
from tests.jobs.science import SECOND, make_job


def entry(first, stop, *, times=True, samples=True):
    """Ten samples to the second."""
    slices = [Slice(dim="time", start=first * 10, stop=stop * 10)] if samples else []
    slices += [Slice(dim="time_ns", start=first * SECOND, stop=stop * SECOND)] if times else []
    return PlanEntry(chunk=Chunk(inputs=(Address(root="archive", path="a.zarr", slices=tuple(slices)),)))


def scan(start, stop, *, times=True):
    interval = {
        "start_time": start * SECOND if times else None,
        "end_time": stop * SECOND if times else None,
        "start_sample": start * 10,
        "end_sample": stop * 10,
    }
    return Row(
        chunk_key="scan",
        part=0,
        source="a",
        start_ns=0 if times else None,
        outcome="ok",
        lineage={"rate_sent_hz": 1.0, "rate_hz": 10.0},
        answer={"anomalous": True, "intervals": [interval]},
    )


@pytest.mark.parametrize(("times", "samples"), [(True, False), (True, True), (False, True)])
def test_windows_within_an_interval_and_its_margin_are_asked(times, samples):
    triggers = Triggers(make_job("sensor-anomaly"), margin_s=2.0)
    asked = [
        first
        for first in range(0, 100, 10)
        if triggers.refusal(entry(first, first + 10, times=times, samples=samples), scan(33, 67, times=times)) is None
    ]
    # From 33 - 2 - 1 s to 67 + 2 + 1 s.
    assert asked == [30, 40, 50, 60, 70]
