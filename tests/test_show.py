"""Rows on the terminal: every column can be told, and no column tells nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import polars as pl
import pytest

from s1batch.show import LINE_WIDTH, show_lines

if TYPE_CHECKING:
    from s1batch.api import Results


class Schema:
    answer = ()


class Shown:
    """What `show_lines` uses of results."""

    path = "results"
    schema = Schema()

    def __init__(self, frame):
        self.frame = frame

    def scan(self, *, unfinished):
        return self.frame.lazy()

    def merged(self):
        return self.frame.lazy()


def lines_of(frame, **options):
    return list(show_lines(cast("Results", Shown(frame)), **options))


@pytest.fixture
def merged():
    """A line with more than fits, as merged claims have it."""
    texts = {f"text_number_{number}": ["a long text " * 9] for number in range(6)}
    when = datetime(2024, 1, 1, tzinfo=UTC)
    counts = {"start_time": [when], "start_sample": [None], "kinds": [[{"kind": "spike"}]], "count": [12345]}
    return pl.DataFrame({"group_id": ["a1b2"], **texts, **counts})


def test_headings_numbers_and_times_stay_whole_where_texts_are_cut(merged):
    head, _, row, _ = lines_of(merged, merged=True)
    assert max(map(len, (head, row))) <= LINE_WIDTH
    assert head.split()[-1] == "count"
    assert row.split()[-1] == "12345"
    assert "2024-01-01T00:00:00.000Z" in row
    assert all(f"text_number_{number}" in head for number in range(6))


def test_lists_are_shown_as_json(merged):
    assert '[{"kind": "spike"}]' in lines_of(merged.select("kinds", "count"), merged=True)[2]


def test_columns_that_say_nothing_of_the_place_are_left_out_unless_asked_for(merged):
    head = lines_of(merged, merged=True)[0]
    assert "start_sample" not in head
    assert "group_id" not in head
    assert "start_sample" in lines_of(merged, merged=True, columns=["start_sample"])[0]


def test_rows_without_a_time_have_no_column_of_it():
    frame = pl.DataFrame({"source": ["a.png"], "start": [None], "outcome": ["ok"], "reason": [None], "text": ["x"]})
    assert lines_of(frame)[0].split() == ["source", "┃", "outcome", "┃", "reason", "┃", "text"]
