"""Metrics of texts on cases computed by hand, and their bounds on any case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1batch.jobs.scoring.text_metrics import anls, best, exact_match, normalised, normalised_match, rouge_l, token_f1

WORDS = st.text(alphabet="abc ,.", max_size=20)


@pytest.mark.parametrize(
    ("metric", "text", "reference", "value"),
    [
        (exact_match, " the dam ", "the dam", 1.0),
        (exact_match, "The dam", "the dam", 0.0),
        (normalised_match, "The  dam!", "a dam", 1.0),
        (normalised_match, "dams", "dam", 0.0),
        # {blue, blue, dam} and {blue, dam, wall}: 2 in common of 3 and 3.
        (token_f1, "blue blue dam", "the blue dam wall", 2 / 3),
        (token_f1, "", "", 1.0),
        (token_f1, "the", "dam", 0.0),
        # The longest common subsequence of "police killed the gunman" and "police kill the gunman" has 3 of 4 words.
        (rouge_l, "police killed the gunman", "police kill the gunman", 0.75),
        (rouge_l, "the gunman kill police", "police kill the gunman", 0.5),
        (rouge_l, "a b c d", "c d", 2 * 2 / 6),
        (rouge_l, "", "a", 0.0),
        # One edit in five letters; three in five fall below the threshold.
        (anls, "House", "mouse", 0.8),
        (anls, "horse", "mouse", 0.6),
        (anls, "hotel", "mouse", 0.0),
        (anls, "", "", 1.0),
        (anls, "", "a", 0.0),
    ],
)
def test_by_hand(metric, text, reference, value):
    assert metric(text, reference) == pytest.approx(value)


def test_the_best_reference_counts():
    assert best(exact_match, "b", ["a", "b"]) == 1.0
    assert best(exact_match, "b", []) == 0.0


@given(WORDS, WORDS)
def test_all_lie_between_0_and_1_and_do_not_care_which_comes_first(one, other):
    for metric in (exact_match, normalised_match, token_f1, rouge_l, anls):
        assert 0 <= metric(one, other) <= 1
        assert metric(one, other) == pytest.approx(metric(other, one))
        assert metric(one, one) == 1


@given(WORDS)
def test_normalising_again_changes_nothing(text):
    assert normalised(normalised(text)) == normalised(text)
