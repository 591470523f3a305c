"""The chunk grid covers every sample, invents nothing, and its times are exact."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import asdict
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1batch.errors import UsageError
from s1batch.grid import ChunkGrid, Window, first_index_from, index_before, index_of, time_of
from s1batch.records import Address, Chunk, Slice
from s1batch.windows import WindowSpec, parse_extent

TAILS = ("shift", "pad", "short")


@st.composite
def grids(draw: st.DrawFn) -> ChunkGrid:
    length = draw(st.integers(1, 40))
    step = draw(st.integers(1, length))
    blinding = draw(st.integers(0, (length - step) // 2))
    return ChunkGrid(length=length, step=step, tail=draw(st.sampled_from(TAILS)), blinding=blinding)


@st.composite
def covered(draw: st.DrawFn) -> list[tuple[int, int]]:
    position = draw(st.integers(-1000, 1000))
    intervals = []
    for gap, samples in draw(st.lists(st.tuples(st.integers(1, 120), st.integers(1, 150)), max_size=8)):
        intervals.append((position + gap, position + gap + samples))
        position += gap + samples
    return intervals


def samples_of(intervals: list[tuple[int, int]]) -> set[int]:
    return {index for start, stop in intervals for index in range(start, stop)}


@given(grids(), covered())
def test_every_sample_is_in_a_window_and_in_a_core(grid: ChunkGrid, intervals: list[tuple[int, int]]) -> None:
    windows = list(grid.windows(intervals))
    samples = samples_of(intervals)
    assert samples <= {index for window in windows for index in range(window.start, window.stop)}
    assert samples <= {index for window in windows for index in range(window.core_start, window.core_stop)}


@given(grids(), covered())
def test_nothing_lies_outside_the_data_but_padding_and_bridged_gaps(
    grid: ChunkGrid, intervals: list[tuple[int, int]]
) -> None:
    bridged = {
        index
        for (_, stop), (start, _) in pairwise(intervals)
        if start - stop < grid.length
        for index in range(stop, start)
    }
    allowed = samples_of(intervals) | bridged
    for window in grid.windows(intervals):
        assert set(range(window.start, window.stop - window.pad)) <= allowed
        assert not set(range(window.stop - window.pad, window.stop)) & samples_of(intervals)
        assert window.pad == 0 or grid.tail == "pad"


@given(grids(), covered())
def test_no_window_lies_wholly_in_a_gap_and_none_comes_twice(grid: ChunkGrid, intervals: list[tuple[int, int]]) -> None:
    windows = list(grid.windows(intervals))
    samples = samples_of(intervals)
    assert all(samples & set(range(window.start, window.stop)) for window in windows)
    assert [window.start for window in windows] == sorted({window.start for window in windows})


@given(grids(), covered())
def test_cores_lie_inside_their_windows_and_reach_the_ends_of_the_run(
    grid: ChunkGrid, intervals: list[tuple[int, int]]
) -> None:
    windows = list(grid.windows(intervals))
    assert all(w.start <= w.core_start < w.core_stop <= w.stop - w.pad for w in windows)
    for start, stop in grid.runs(intervals):
        inside = [window for window in windows if start <= window.start < stop]
        assert inside[0].core_start == start
        assert inside[-1].core_stop == stop


@given(grids(), covered())
def test_only_the_last_window_of_a_run_may_differ_in_length(grid: ChunkGrid, intervals: list[tuple[int, int]]) -> None:
    windows = list(grid.windows(intervals))
    for start, stop in grid.runs(intervals):
        inside = [window for window in windows if start <= window.start < stop]
        lengths = [window.stop - window.start for window in inside]
        assert all(length == grid.length for length in lengths[:-1])
        if grid.tail == "pad" or (grid.tail == "shift" and stop - start >= grid.length):
            assert lengths[-1] == grid.length
        if grid.tail != "pad" and stop - start < grid.length:
            assert [(window.start, window.stop) for window in inside] == [(start, stop)]


@pytest.mark.parametrize(
    ("tail", "last"),
    [
        ("shift", Window(start=15, stop=25, core_start=16, core_stop=25)),
        ("pad", Window(start=16, stop=26, core_start=17, core_stop=25, pad=1)),
        ("short", Window(start=16, stop=25, core_start=17, core_stop=25)),
    ],
)
def test_the_last_window_is_shifted_padded_or_short(tail: str, last: Window) -> None:
    grid = ChunkGrid(length=10, step=8, tail=tail, blinding=1)  # type: ignore[arg-type]
    assert list(grid.windows([(0, 25)])) == [
        Window(start=0, stop=10, core_start=0, core_stop=9),
        Window(start=8, stop=18, core_start=9, core_stop=17),
        last,
    ]


def test_a_gap_of_years_costs_no_work() -> None:
    far = 100 * 86400 * 365 * 1000
    windows = list(ChunkGrid(length=6000, step=3000).windows([(0, 6000), (far, far + 9000)]))
    assert [window.start for window in windows] == [0, far, far + 3000]


def test_a_gap_one_sample_short_of_a_window_is_bridged_and_a_window_long_one_is_not() -> None:
    grid = ChunkGrid(length=10, step=10)
    assert list(grid.runs([(0, 10), (19, 20)])) == [(0, 20)]
    assert list(grid.runs([(0, 10), (20, 21)])) == [(0, 10), (20, 21)]


def test_blinding_beyond_half_the_overlap_is_a_usage_error_that_says_so() -> None:
    spec = WindowSpec(length="60s", overlap="10s", blinding="6s")
    with pytest.raises(UsageError, match=r"blinding \(6s\) may be at most half of window.overlap \(10s\)"):
        ChunkGrid.from_spec(spec, 100.0)
    with pytest.raises(UsageError, match="at most half the overlap"):
        ChunkGrid(length=10, step=8, blinding=2)


def test_an_overlap_in_other_units_that_reaches_the_length_is_a_usage_error() -> None:
    spec = WindowSpec(length=100, overlap="10s")
    assert ChunkGrid.from_spec(spec, 5.0).step == 50
    with pytest.raises(UsageError, match=r"overlap \(10s\) must be shorter"):
        ChunkGrid.from_spec(spec, 20.0)


def test_max_is_not_a_length_that_a_grid_knows() -> None:
    with pytest.raises(UsageError, match="max"):
        ChunkGrid.from_spec(WindowSpec(length="max"), 100.0)


@given(st.floats(1e-6, 1e6), st.integers(0, 99), st.integers(1, 50))
def test_rounding_to_samples_alone_never_breaks_a_valid_spec(rate: float, overlap: int, share: int) -> None:
    spec = WindowSpec(
        length=parse_extent("60s"),
        overlap=parse_extent(f"{overlap}%"),
        blinding=parse_extent(f"{overlap * share / 100:.6f}%"),
    )
    grid = ChunkGrid.from_spec(spec, rate)
    assert grid.length >= 1


rates = st.one_of(st.sampled_from([1.0, 20.0, 40.0, 100.0, 125.0, 200.0, 1000.0]), st.floats(1e-3, 1e6))
starts = st.integers(-(10**18), 4 * 10**18)


@given(st.integers(-(10**13), 10**13), starts, rates)
def test_time_and_index_round_trip_exactly(index: int, start_ns: int, rate: float) -> None:
    time_ns = time_of(index, start_ns, rate)
    assert index_of(time_ns, start_ns, rate) == index
    assert first_index_from(time_ns, start_ns, rate) == index
    assert index_before(time_ns, start_ns, rate) in (index, index - 1)
    assert abs(Fraction(time_ns - start_ns) - Fraction(index) * 10**9 / Fraction(rate)) <= Fraction(1, 2)


@given(st.integers(0, 10**18), rates)
def test_the_first_index_from_a_time_is_the_first(offset_ns: int, rate: float) -> None:
    index = first_index_from(offset_ns, 0, rate)
    assert time_of(index, 0, rate) >= offset_ns
    assert time_of(index - 1, 0, rate) < offset_ns


def test_thirty_years_at_100_hz_end_on_the_nanosecond() -> None:
    samples = 30 * 365 * 86400 * 100
    assert time_of(samples, 7, 100.0) == 7 + 30 * 365 * 86400 * 10**9
    assert time_of(3, 0, 3.0) == 10**9


addresses = st.builds(
    Address,
    source=st.text(max_size=12),
    root=st.just("archive"),
    path=st.text(min_size=1, max_size=30),
    slices=st.tuples(st.builds(Slice, dim=st.just("time_ns"), start=starts, stop=starts)),
    rate_hz=st.one_of(st.none(), rates),
)


@given(addresses)
def test_an_address_survives_pickle_and_json(address: Address) -> None:
    assert pickle.loads(pickle.dumps(address)) == address
    plain = json.loads(json.dumps(asdict(address)))
    plain["slices"] = tuple(Slice(**item) for item in plain["slices"])
    assert Address(**plain) == address
    assert Chunk((Address(**plain),)).key == Chunk((address,)).key


def test_a_chunk_key_is_the_same_in_processes_with_other_hash_seeds() -> None:
    program = (
        "from s1batch.records import Address, Chunk, Slice\n"
        "print(Chunk(tuple(Address(source=f'BW.RJOB..EH{c}', root='archive', path='a b\\n.mseed',"
        " slices=(Slice(dim='time_ns', start=1, stop=2),), rate_hz=100.0) for c in 'ZNE')).key)"
    )
    keys = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(keys) == 1
    assert len(keys.pop().strip()) == 32
