"""Placing, bridging and filling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1batch.readers.seismic.assemble import Placed, bridge, count_covered, fill, place, stretches
from s1batch.readers.seismic.runs import Block
from tests.readers.seismic.waves import SECOND, T0


def block(start_ns: int, values: np.ndarray, rate_hz: float = 100.0, damage: tuple[int, int] | None = None) -> Block:
    found = Block(run_start_ns=start_ns, rate_hz=rate_hz, run_count=len(values), first=0, stop=len(values))
    found.values = values
    if damage is not None:
        found.damage.append((*damage, "broken"))
    return found


@given(
    pieces=st.lists(st.tuples(st.integers(-30, 60), st.integers(1, 40)), max_size=5),
    offsets_ns=st.lists(st.integers(-4_000_000, 4_000_000), min_size=5, max_size=5),
)
def test_first_wins_and_every_sample_goes_to_its_nearest_place(
    pieces: list[tuple[int, int]], offsets_ns: list[int]
) -> None:
    model = np.full(50, np.nan)
    blocks = []
    for number, (first, count) in enumerate(pieces):
        values = np.arange(count, dtype=np.int32) + 1000 * (number + 1)
        blocks.append(block(T0 + first * 10_000_000 + offsets_ns[number], values))
        for k in range(count):
            if 0 <= first + k < 50 and np.isnan(model[first + k]):
                model[first + k] = values[k]
    placed = place(blocks, T0, 100.0, 0, 50)
    covered = np.ones(50, bool) if placed.covered is None else placed.covered
    np.testing.assert_array_equal(covered, ~np.isnan(model))
    np.testing.assert_array_equal(placed.values[covered], model[covered])


@pytest.mark.parametrize("rate_hz", [100.0, 31.25, 30.0, 1 / 3, 99.98])
@pytest.mark.parametrize("offset", [0.0, 0.25, 0.5, -0.5, 0.49999])
def test_adjacent_windows_share_and_lose_nothing_at_any_sub_sample_offset(rate_hz: float, offset: float) -> None:
    values = np.arange(1000, dtype=np.int32)
    source = block(T0 + round(offset * SECOND / rate_hz), values, rate_hz)
    got = []
    for first in range(-10, 1010, 37):
        placed = place([source], T0 + round(first * SECOND / rate_hz), rate_hz, 0, 37)
        got.append(placed.values if placed.covered is None else placed.values[placed.covered])
    np.testing.assert_array_equal(np.concatenate(got), values)


@pytest.mark.parametrize("error", [1e-7, -1e-7, 4e-6, -4e-6])
def test_a_rate_that_jitters_loses_no_sample_between_windows(error: float) -> None:
    """Within half a sample over the run, all samples keep their order and none is lost."""
    values = np.arange(100_000, dtype=np.int32)
    source = block(T0, values, 100.0 * (1 + error))
    got = [place([source], T0 + first * 10_000_000, 100.0, 0, 6000) for first in range(0, 102_000, 6000)]
    kept = np.concatenate([one.values if one.covered is None else one.values[one.covered] for one in got])
    np.testing.assert_array_equal(kept, values)


def test_a_slow_clock_leaves_single_holes_that_are_bridged_and_a_fast_one_is_counted() -> None:
    values = np.arange(5000, dtype=np.int32)
    slow = place([block(T0, values, 100.0 / 1.001)], T0, 100.0, 0, 5000)
    assert slow.covered is not None
    assert count_covered(slow, slice(0, 5000)) == 4995
    bridged = bridge(slow)
    assert bridged.covered is None
    assert bridged.bridged == 5
    assert abs(np.diff(bridged.values) - 1).max() <= 0.5
    fast = place([block(T0, values, 100.0 * 1.001)], T0, 100.0, 0, 4995)
    assert fast.covered is None
    assert fast.dropped == 5


def test_the_largest_shift_is_reported_with_its_sign() -> None:
    values = np.zeros(100, np.int32)
    placed = place([block(T0 - 3_000_000, values), block(T0 + SECOND + 4_000_000, values)], T0, 100.0, 0, 200)
    assert placed.shift_s == pytest.approx(0.004)


def test_damage_is_not_covered_and_another_file_may_hold_it() -> None:
    values = np.arange(10, dtype=np.int32)
    broken = block(T0, values, damage=(3, 5))
    placed = place([broken], T0, 100.0, 0, 10)
    assert placed.covered is not None
    assert stretches(placed.covered, 10) == [(0, 3), (5, 10)]
    assert place([broken, block(T0, values)], T0, 100.0, 0, 10).covered is None


def test_integers_and_floats_of_one_channel_meet_without_loss() -> None:
    placed = place(
        [block(T0, np.array([2**30 + 1], np.int32)), block(T0 + 10_000_000, np.array([0.5], np.float32))],
        T0,
        100.0,
        0,
        2,
    )
    assert placed.values.tolist() == [2**30 + 1, 0.5]
    assert not placed.is_integer


def test_gaps_are_filled_by_mean_zero_or_a_line() -> None:
    covered = np.array([False, True, False, False, True, False])
    for how, expected in (
        ("mean", [4, 2, 4, 4, 6, 4]),
        ("zero", [0, 2, 0, 0, 6, 0]),
        ("interpolate", [2, 2, 10 / 3, 14 / 3, 6, 6]),
    ):
        values = np.array([9.0, 2, 9, 9, 6, 9])
        fill(values, covered, how)  # type: ignore[arg-type]
        np.testing.assert_allclose(values, expected)


def test_a_longer_gap_is_not_bridged() -> None:
    covered = np.array([True, False, False, True])
    placed = Placed(values=np.zeros(4), covered=covered)
    assert bridge(placed) is placed
