"""A digest stands for a table's content, and for nothing else."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1batch.results.content_digest import content_digest

INNER = pa.struct([("at", pa.timestamp("ns", tz="UTC")), ("words", pa.list_(pa.string()))])
SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("flag", pa.bool_()),
        ("number", pa.float64()),
        ("small", pa.int32()),
        ("raw", pa.binary()),
        ("nested", pa.list_(INNER)),
    ]
)
LINES = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.none() | st.text(max_size=5),
            "flag": st.none() | st.booleans(),
            "number": st.none() | st.floats(allow_nan=False).map(lambda value: value + 0.0),  # -0.0 equals 0.0
            "small": st.none() | st.integers(-(2**31), 2**31 - 1),
            "raw": st.none() | st.binary(max_size=4),
            "nested": st.none()
            | st.lists(
                st.none()
                | st.fixed_dictionaries(
                    {
                        "at": st.none() | st.integers(0, 2**62),
                        "words": st.none() | st.lists(st.none() | st.text(max_size=3), max_size=2),
                    }
                ),
                max_size=3,
            ),
        }
    ),
    max_size=8,
)


def table(lines: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(lines, schema=SCHEMA)


@given(LINES, st.integers(0, 8), st.integers(1, 4))
def test_it_does_not_depend_on_chunks_slices_and_files(lines, cut, group):
    whole = table(lines)
    expected = content_digest(whole)
    cut = min(cut, len(lines))
    assert content_digest(pa.concat_tables([whole.slice(0, cut), whole.slice(cut)])) == expected
    around = table([*lines[:1], *lines, *lines[-1:]])
    assert content_digest(around.slice(min(1, len(lines)), len(lines))) == expected
    file = io.BytesIO()
    pq.write_table(whole, file, row_group_size=group)
    assert content_digest(pq.read_table(file)) == expected


@given(LINES, LINES)
def test_other_content_has_another_digest(one, other):
    assert (content_digest(table(one)) == content_digest(table(other))) == table(one).equals(table(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([["ab", "c"]], [["a", "bc"]]),
        ([[""]], [[None]]),
        ([["a"], []], [[], ["a"]]),
        ([None, ["a"]], [[], ["a"]]),
    ],
)
def test_neighbouring_values_do_not_run_into_each_other(one, other):
    kind = pa.list_(pa.string())
    assert content_digest(pa.table({"x": pa.array(one, kind)})) != content_digest(
        pa.table({"x": pa.array(other, kind)})
    )
