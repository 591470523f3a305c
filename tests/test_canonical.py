"""Canonical JSON: one text for one value, whatever the order, and none for what JSON cannot hold."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1batch.canonical import canonical_bytes, digest

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=5), plain, max_size=6))
def test_the_order_of_keys_does_not_matter(value):
    turned = dict(reversed(list(value.items())))
    assert canonical_bytes(value) == canonical_bytes(turned)


@given(st.dictionaries(st.text(max_size=5), plain, max_size=6), st.sampled_from([None, "", [], {}]))
def test_an_empty_field_that_is_added_later_keeps_old_hashes(value, empty):
    if "added later" not in value:
        assert digest(value) == digest({**value, "added later": empty})


def test_false_and_zero_are_values_not_empty_fields():
    assert canonical_bytes({"a": 0, "b": False, "c": 0.0}) == b'{"a":0,"b":false,"c":0.0}'


def test_lists_keep_their_empty_items():
    assert canonical_bytes([None, "", 1]) == b'[null,"",1]'


def test_dataclasses_are_their_fields():
    @dataclass
    class Point:
        x: int
        name: str = ""

    assert canonical_bytes(Point(1)) == b'{"x":1}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")], {"a": b"bytes"}, object()])
def test_what_json_cannot_hold_is_an_error(value):
    with pytest.raises(TypeError):
        canonical_bytes(value)
