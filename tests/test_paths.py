"""File names as text: every name on Linux has one encoding, and every encoding leads back."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from s1batch.paths import decode_path, encode_path


@given(st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw))
def test_any_bytes_round_trip_through_utf8_text(raw):
    text = encode_path(os.fsdecode(raw))
    assert os.fsencode(decode_path(text.encode("utf-8").decode("utf-8"))) == raw


def test_ordinary_names_stay_as_they_are():
    assert encode_path("2010/BW/Füssen day 147\n.mseed") == "2010/BW/Füssen day 147\n.mseed"


def test_bytes_that_are_no_utf8_become_visible():
    assert encode_path(os.fsdecode(b"a\xff.mseed")) == "a\\xff.mseed"
