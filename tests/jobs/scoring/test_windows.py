"""What windows cover and hold agrees with looking at every window and every point."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from s1batch.jobs.scoring.matching import Points
from s1batch.jobs.scoring.windows import Windows

LINES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 50), st.integers(1, 20), st.booleans(), st.integers(0, 60)), max_size=12
)
POINTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 70)), max_size=12)


def build(lines):
    table = np.array(sorted(lines), np.int64).reshape(-1, 5)
    group, start, length, answered, own = table.T
    windows = Windows(
        group=group, start_ns=start, stop_ns=start + length, answered=answered > 0, station=np.arange(3, dtype=np.int64)
    )
    return windows, own


def build_points(pairs):
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return Points(group=table[:, 0], time_ns=table[:, 1])


def inside(windows, number, group, time):
    return windows.group[number] == group and windows.start_ns[number] <= time < windows.stop_ns[number]


@given(LINES, POINTS)
def test_covers_and_holds(lines, pairs):
    windows, _ = build(lines)
    points = build_points(pairs)
    everywhere, answered = windows.covers(points), windows.covers(points, windows.answered)
    for number, (group, time) in enumerate(pairs):
        around = [window for window in range(len(windows)) if inside(windows, window, group, time)]
        assert everywhere[number] == bool(around)
        assert answered[number] == any(windows.answered[window] for window in around)
    for window, holds in enumerate(windows.holds(points)):
        assert holds == any(inside(windows, window, *pair) for pair in pairs)


@given(LINES, POINTS)
def test_nearest(lines, pairs):
    windows, own = build(lines)
    found, there = windows.nearest(build_points(pairs), own, np.ones(len(windows), bool))
    for window in range(len(windows)):
        times = [time for group, time in pairs if inside(windows, window, group, time)]
        # Only the neighbours of the window's time matter, since its time lies in the window when it is a pick.
        if windows.start_ns[window] <= own[window] < windows.stop_ns[window]:
            assert there[window] == bool(times)
            if times:
                assert abs(found[window] - own[window]) == min(abs(time - own[window]) for time in times)


@given(LINES, POINTS)
def test_a_point_inside_gets_the_number_of_a_window_of_its_group(lines, pairs):
    windows, _ = build(lines)
    points = build_points(pairs)
    numbers = windows.number_of(points)
    for number, covered in enumerate(windows.covers(points)):
        if covered:
            window = numbers[number]
            assert windows.group[window] == points.group[number]
            assert windows.start_ns[window] <= points.time_ns[number]
