"""Shards and the indices of arrays: nothing twice, nothing left out, nothing above the site's limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1batch.errors import UsageError
from s1batch.slurm.shards import array_slices, incomplete_shards, index_text, parse_indices, parts_of_shards


def test_only_shards_with_an_unfinished_part_are_incomplete():
    assert incomplete_shards(10, {0, 4, 8, 1, 5, 9}, 4) == [2, 3]
    assert incomplete_shards(10, set(range(10)), 4) == []
    assert incomplete_shards(3, set(), 8) == [0, 1, 2], "a shard without parts has nothing to do"


def test_another_number_of_shards_looks_at_the_same_parts():
    """With 4 shards, those of parts 0 and 2 were finished; with 3 shards all have something left."""
    finished = {part for part in range(12) if part % 4 in (0, 2)}
    assert incomplete_shards(12, finished, 4) == [1, 3]
    assert incomplete_shards(12, finished, 3) == [0, 1, 2]


def test_parts_are_counted_by_shard():
    assert parts_of_shards(5, {0, 3}, 3) == {0: (2, 2), 1: (0, 2), 2: (0, 1)}


@given(
    shards=st.lists(st.integers(0, 5000), unique=True).map(sorted),
    size=st.integers(1, 1200),
    parallel=st.none() | st.integers(1, 6000),
)
def test_every_shard_is_one_index_below_the_limit(shards, size, parallel):
    arrays = -(-5001 // size)
    if parallel is not None:
        parallel += arrays
    slices = array_slices(shards, size, parallel)
    assert [shard for each in slices for shard in each.shards] == shards
    assert all(0 <= index < size for each in slices for index in each.indices)
    if parallel is not None and slices:
        assert sum(each.parallel or 0 for each in slices) == parallel, "the limit holds for all arrays together"


def test_fewer_tasks_at_a_time_than_arrays_is_refused():
    with pytest.raises(UsageError, match="need 3 arrays, because this site's indices end at 999"):
        array_slices(range(2500), 1000, 2)


@given(st.lists(st.integers(0, 300), unique=True).map(sorted))
def test_index_text_names_the_indices(indices):
    named = set()
    for run in filter(None, index_text(indices).split(",")):
        first, _, last = run.partition("-")
        named |= set(range(int(first), int(last or first) + 1))
    assert sorted(named) == indices


def test_index_text_is_short():
    assert index_text([0, 1, 2, 5, 7, 8], 4) == "0-2,5,7-8%4"


@given(st.sets(st.integers(0, 200)), st.one_of(st.none(), st.integers(1, 9)))
def test_indices_are_read_as_they_are_written(indices, parallel):
    assert parse_indices(index_text(sorted(indices), parallel)) == sorted(indices)


def test_what_slurm_itself_writes_is_read():
    assert parse_indices("[1,3,5-8%2]") == [1, 3, 5, 6, 7, 8]
    assert parse_indices("0-10:5") == [0, 5, 10]
    assert parse_indices("[1-3,5,...]") == [1, 2, 3, 5]
