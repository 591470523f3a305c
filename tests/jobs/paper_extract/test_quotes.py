"""Quotes are found letter by letter, or after folding, or not at all; and where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1batch.jobs.paper_extract.quotes import find_quote, fold

TEXT = "We ﬁnd a well-\nknown “decrease” of  3 – 5 %\u00a0in the co-\u00ad\noperative Naïve model."


@pytest.mark.parametrize(
    ("quote", "status", "there"),
    [
        ("We ﬁnd a well-\nknown", "exact", "We ﬁnd a well-\nknown"),
        ("  of  3 – 5 %  ", "exact", "of  3 – 5 %"),
        ("We find a well-known", "normalised", "We ﬁnd a well-\nknown"),
        ("wellknown", "normalised", "well-\nknown"),
        ('"Decrease" of 3 - 5 % in', "normalised", "“decrease” of  3 – 5 %\u00a0in"),
        ("cooperative", "normalised", "co-\u00ad\noperative"),
        ("nai\u0308ve MODEL", "normalised", "Naïve model"),
        ("3 - 6 %", "unverified", None),
        ("We find ... model", "unverified", None),
        ("find well-known", "unverified", None),
        ("35 %", "unverified", None),
        ("", "unverified", None),
        ("\u200b", "unverified", None),
    ],
)
def test_a_quote_is_found_as_far_as_it_stands_there(quote, status, there):
    found = find_quote(quote, TEXT)
    assert found.status == status
    assert (None if found.start is None else TEXT[found.start : found.stop]) == there


def test_letters_with_marks_of_their_own_are_found_whole():
    text = "in Zoe\u0301 there"
    found = find_quote("zoé", text)
    assert text[found.start : found.stop] == "Zoe\u0301"


def test_the_first_of_several_places_counts():
    assert find_quote("ab", "xab ab").start == 1


@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=60), st.data())
def test_every_stretch_of_a_text_is_an_exact_quote_of_it(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    stop = data.draw(st.integers(start + 1, len(text)))
    quote = text[start:stop]
    found = find_quote(quote, text)
    assert found.status == ("exact" if quote.strip() else "unverified")


@given(st.text(max_size=60))
def test_folding_keeps_places_in_order_and_folding_again_changes_nothing(text):
    folded = fold(text)
    assert len(folded.text) == len(folded.starts) == len(folded.stops)
    assert all(0 <= start < stop <= len(text) for start, stop in zip(folded.starts, folded.stops, strict=True))
    assert list(folded.starts) == sorted(folded.starts)
