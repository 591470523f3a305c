"""Windows longer than the engine takes: nothing is lost, nothing comes twice, and all that is sent fits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1batch.errors import UsageError
from s1batch.long_series import LongSeries, SentWindow, SeriesGrid
from s1batch.windows import WindowSpec
from tests.test_grid import covered, samples_of

Intervals = list[tuple[int, int]]


def grid_of(policy: str, window: dict[str, Any], rate_hz: float = 100.0, **coarse: Any) -> SeriesGrid:
    long = LongSeries(policy=policy, coarse_to_fine=LongSeries().coarse_to_fine.model_copy(update=coarse))  # type: ignore[arg-type]
    return SeriesGrid(WindowSpec.model_validate(window), long, rate_hz)


@st.composite
def grids(draw: st.DrawFn, policy: str) -> tuple[SeriesGrid, int]:
    longest = draw(st.integers(4, 40))
    window = {
        "length": draw(st.integers(1, 150)),
        "overlap": draw(st.sampled_from(["0%", "25%", "50%"])),
        "blinding": draw(st.sampled_from(["0%", "10%"])) if draw(st.booleans()) else "0%",
        "tail": draw(st.sampled_from(["shift", "pad", "short"])),
        "longest_samples": longest,
    }
    if window["overlap"] == "0%":
        window["blinding"] = "0%"
    rate_hz = draw(st.sampled_from([1.0, 7.5, 100.0]))
    return grid_of(policy, window, rate_hz, scan_rate_hz=draw(st.sampled_from([0.5, 2.0, 30.0]))), longest


@pytest.mark.parametrize("policy", ["split", "decimate", "coarse_to_fine"])
@given(data=st.data(), intervals=covered())
def test_every_sample_is_sent_once_at_least_and_all_that_is_sent_fits(
    policy: str, data: st.DataObject, intervals: Intervals
) -> None:
    grid, longest = data.draw(grids(policy))
    sent = list(grid.windows(intervals))
    samples = samples_of(intervals)
    answering = [each.window for each in sent if not each.is_scan]
    assert samples <= {index for window in answering for index in range(window.start, window.stop)}
    assert samples <= {index for window in answering for index in range(window.core_start, window.core_stop)}
    for each in sent:
        steps = each.window.stop - each.window.start
        assert each.factor == grid.factor(steps)
        assert 1 <= -(-steps // each.factor) <= longest
        assert samples & set(range(each.window.start, each.window.stop))
    ranges = [(each.window.start, each.window.stop) for each in sent]
    assert len(ranges) == len(set(ranges)), "two chunks would have one key"


@given(data=st.data(), intervals=covered())
def test_the_windows_behind_a_scan_cover_its_samples_and_reach_no_other_window_of_a_neighbour(
    data: st.DataObject, intervals: Intervals
) -> None:
    grid, _ = data.draw(grids("coarse_to_fine"))
    samples = samples_of(intervals)
    groups: list[tuple[SentWindow, list[SentWindow]]] = []
    for each in grid.windows(intervals):
        assert not (each.is_scan and each.is_conditional)
        if each.is_scan:
            assert each.window.core_start == each.window.core_stop == each.window.stop
            groups.append((each, []))
        elif each.is_conditional:
            assert each.factor == 1
            groups[-1][1].append(each)
    for scan, windows in groups:
        seen = {index for each in windows for index in range(each.window.start, each.window.stop)}
        assert samples & set(range(scan.window.start, scan.window.stop)) <= seen
        assert all(scan.window.start < each.window.stop <= scan.window.stop for each in windows)
        assert all(each.window.pad == 0 for each in windows)


def test_decimation_takes_the_smallest_factor_that_fits() -> None:
    grid = grid_of("decimate", {"length": 1_000_000, "longest_samples": 240_000})
    assert [grid.factor(steps) for steps in (1, 240_000, 240_001, 480_000, 480_001, 1_000_000)] == [1, 1, 2, 2, 3, 5]


def test_a_scan_takes_the_highest_rate_that_is_not_above_the_wanted_one_and_fits() -> None:
    window = {"length": 300_000, "longest_samples": 2_000}
    assert grid_of("coarse_to_fine", window, 100.0, scan_rate_hz=1.0).factor(300_000) == 150
    assert grid_of("coarse_to_fine", window, 100.0, scan_rate_hz=0.4).factor(300_000) == 250
    assert grid_of("coarse_to_fine", window, 99.7, scan_rate_hz=0.5).factor(300_000) == 200
    assert grid_of("coarse_to_fine", window, 0.25, scan_rate_hz=1.0).factor(2_001) == 2


def test_new_data_behind_the_end_leave_all_but_the_last_scan_as_they_were() -> None:
    grid = grid_of("coarse_to_fine", {"length": 100, "overlap": "10%", "longest_samples": 20})
    before = list(grid.windows([(0, 330)]))
    after = list(grid.windows([(0, 700)]))
    whole = [each for each in before if each.window.stop <= 300]
    assert after[: len(whole)] == whole


@pytest.mark.parametrize(
    ("policy", "window", "words"),
    [
        ("coarse_to_fine", {"length": 300}, "give a length"),
        ("decimate", {"length": 300_000, "longest_samples": 3}, "at most 1/10,000"),
    ],
)
def test_what_cannot_be_is_said(policy: str, window: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        list(grid_of(policy, window).windows([(0, 300_000)]))
