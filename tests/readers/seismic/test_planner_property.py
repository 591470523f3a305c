"""Whatever stretches an archive holds: counts add up, and every selected sample is in a chunk."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from s1batch.grid import index_of, time_of
from s1batch.records import InventoryItem, PlanEntry
from tests.readers.seismic.waveforms import T0_NS, Segment, plan, samples, write_mseed

CHANNELS = ["XX.A..BHZ", "XX.A..BHN", "XX.A..BH1", "XX.A..BHE", "XX.A..BHX", "XX.B.00.HHZ"]

segments = st.builds(
    lambda channel, rate, offset_ns, count: (channel, T0_NS + offset_ns, rate, count),
    st.sampled_from(CHANNELS),
    st.sampled_from([10.0, 10.0, 10.0, 10.0004, 7.0, 3.0]),
    st.one_of(st.integers(0, 60).map(lambda k: k * 10**9), st.integers(0, 60 * 10**9)),
    st.integers(1, 300),
)
archives = st.lists(st.lists(segments, min_size=1, max_size=4), min_size=1, max_size=4)
windows = st.builds(
    lambda length, overlap, tail: {"length": length, "tail": tail, **overlap},
    st.sampled_from([5, 20, 50]),
    st.sampled_from([{}, {"overlap": "50%"}, {"overlap": "50%", "blinding": "25%"}]),
    st.sampled_from(["shift", "pad", "short"]),
)
sent_rates = st.sampled_from([None, None, 10.0, 2.0, 25.0])


def plan_of(
    archive: list[list[Segment]], window: dict[str, object], sent_hz: float | None
) -> tuple[list[InventoryItem], list[PlanEntry]]:
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(archive):
            write_mseed(Path(folder) / f"{number}.mseed", content)
        return plan(Path(folder), window=window, rate_hz=sent_hz)


@settings(max_examples=100, deadline=None)
@given(archives, windows, sent_rates)
@example(  # the last sample is a window behind the rest, but for two nanoseconds
    archive=[
        [(CHANNELS[0], T0_NS + offset_ns, 10.0, 1) for offset_ns in (10**9, 10**9, 27 * 10**9, 2)],
        [(CHANNELS[0], T0_NS, 10.0, 250)],
    ],
    window={"length": 20, "tail": "shift", "overlap": "50%"},
    sent_hz=None,
)
def test_counts_add_up_and_every_selected_sample_is_in_a_chunk(
    archive: list[list[Segment]], window: dict[str, object], sent_hz: float | None
) -> None:
    items, entries = plan_of(archive, window, sent_hz)
    assert samples(items) == sum(segment[3] for content in archive for segment in content)
    assert not [entry for entry in entries if entry.refusal]

    chunks: dict[tuple[str, str], list[tuple[int, int, float]]] = {}
    for entry in entries:
        assert entry.series is not None
        assert entry.chunk.inputs
        assert 0 <= entry.gap_frac < 1
        for address in entry.chunk.inputs:
            (part,) = address.slices
            assert address.rate_hz is not None
            assert index_of(part.stop, part.start, entry.series.rate_hz) == entry.series.steps
            chunks.setdefault((address.source, address.path), []).append((part.start, part.stop, address.rate_hz))

    for item in items:
        if item.status != "selected":
            continue
        assert item.start is not None
        assert item.rate_hz is not None
        mine = [
            (start, stop)
            for start, stop, rate_hz in chunks[item.source, item.path]
            if abs(rate_hz / item.rate_hz - 1) < 1e-4
        ]
        for k in range(item.count):
            time_ns = time_of(k, item.start, item.rate_hz)
            # A sample belongs to the nearest place, so to the window that begins up to half a period later; times of
            # grid and samples are rounded to a nanosecond, each, and ties have a tolerance of two.
            half_ns = round(5e8 / item.rate_hz)
            by_place = any(start - half_ns - 4 <= time_ns < stop - half_ns + 4 for start, stop in mine)
            by_time = any(start - 2 <= time_ns < stop + 2 for start, stop in mine)
            assert by_place or (sent_hz is not None and by_time)


@settings(max_examples=100, deadline=None)
@given(archives, windows)
def test_no_window_holds_a_sample_twice_and_gaps_are_what_is_not_covered(
    archive: list[list[Segment]], window: dict[str, object]
) -> None:
    items, entries = plan_of(archive, window, None)
    for entry in entries:
        assert entry.series is not None
        start_ns, rate_hz = entry.chunk.start, entry.series.rate_hz
        assert start_ns is not None
        components: dict[str, set[int]] = {}
        listed = {(address.source, address.path) for address in entry.chunk.inputs}
        for source, _ in listed:
            components.setdefault(source.rpartition(".")[2].replace("1", "N"), set())
        for item in items:
            if item.status != "selected" or (item.source, item.path) not in listed:
                continue
            assert item.start is not None
            assert item.rate_hz is not None
            if abs(item.rate_hz / rate_hz - 1) > 1e-4:
                continue
            places = {index_of(time_of(k, item.start, item.rate_hz), start_ns, rate_hz) for k in range(item.count)}
            components[item.source.rpartition(".")[2].replace("1", "N")] |= places
        steps = entry.series.steps
        covered = sum(len(places & set(range(steps))) for places in components.values())
        if window["tail"] == "pad":
            continue
        # Where two stretches meet off the grid, one place may be told either way.
        assert abs(entry.gap_frac - (1 - covered / (steps * len(components)))) * steps <= 2 * len(archive) * 4


@settings(max_examples=50, deadline=None)
@given(archives, windows)
def test_every_chunk_has_its_own_key_and_the_plan_repeats(
    archive: list[list[Segment]], window: dict[str, object]
) -> None:
    items, entries = plan_of(archive, window, None)
    assert len({entry.chunk.key for entry in entries}) == len(entries)
    again_items, again = plan_of(archive, window, None)
    assert [entry.chunk.key for entry in again] == [entry.chunk.key for entry in entries]
    assert [item.count for item in again_items] == [item.count for item in items]
