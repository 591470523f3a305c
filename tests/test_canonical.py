"""Canonical JSON: the identities that everything hangs on."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1batch.canonical import canonical_bytes, digest
from s1batch.records import Address, Chunk, ModelIdentity, Slice

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [None, "", 0, [], {}]}, '{"a":[null,"",0,[],{}],"b":1}'),
        ({"a": None, "b": "", "c": [], "d": {}, "e": (), "f": {"g": None}}, "{}"),
        ({"zero": 0, "no": False, "nought": 0.0}, '{"no":false,"nought":0.0,"zero":0}'),
        ({1: "x", "é": "\u2028"}, '{"1":"x","é":"\u2028"}'),
        (MappingProxyType({"a": (1, 2)}), '{"a":[1,2]}'),
        ({"s": {"b", "a"}, "f": frozenset({2, 1})}, '{"f":[1,2],"s":["a","b"]}'),
        (Slice(dim="time_ns", start=0, stop=5), '{"dim":"time_ns","start":0,"stop":5}'),
        ([ModelIdentity(name="m")], '[{"name":"m"}]'),
    ],
)
def test_canonical_json_is_sorted_and_leaves_out_empty_fields(value: Any, text: str) -> None:
    assert canonical_bytes(value).decode() == text


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": b"x"}, object(), ModelIdentity, {"a": 1j}])
def test_what_json_cannot_hold_is_an_error(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical_bytes(value)


def test_a_chunks_key_never_changes() -> None:
    address = Address(
        source="BW.RJOB..EHZ", root="a", path="b.mseed", slices=(Slice(dim="time_ns", start=1, stop=2),), rate_hz=200.0
    )
    assert Chunk((address,)).key == "afcbcc36b794ac730e73e636ab196441"


CODES = st.text(st.characters(codec="utf-8"), max_size=6)
INT64S = st.integers(-(2**63), 2**63 - 1)
ADDRESSES = st.builds(
    Address,
    source=CODES,
    root=CODES,
    path=CODES,
    slices=st.lists(st.builds(Slice, dim=CODES, start=INT64S, stop=INT64S), max_size=3).map(tuple),
    rate_hz=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


@given(st.lists(ADDRESSES, max_size=4).map(tuple))
def test_a_chunks_key_is_the_digest_of_its_addresses(inputs: tuple[Address, ...]) -> None:
    assert Chunk(inputs).key == digest(inputs)


@given(PLAIN)
def test_the_order_of_keys_and_empty_fields_that_are_added_do_not_change_a_digest(value: Any) -> None:
    before = digest({"x": value, "y": 1})
    assert digest({"y": 1, "new": "", "x": value, "newer": None}) == before
