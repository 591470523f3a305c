"""Special tokens in text are made harmless, and nothing else is touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1batch.special_tokens import contains_special, neutralise

tokens = ["<|im_end|>", "<|ts|>", "<|/ts|>", "<TS_CONTEXT>", "<think>", "</think>", "<tool_call>", "<|vision_start|>"]


@pytest.mark.parametrize("token", tokens)
def test_each_is_found_and_made_harmless(token):
    text, count = neutralise(f"a{token}b")
    assert (text, count) == (f"a< {token[1:]}b", 1)
    assert not contains_special(text)


@given(st.lists(st.sampled_from([*tokens, "<", "|", ">", " ", "x", "</", "|>", "<|"]), max_size=30).map("".join))
def test_no_text_still_holds_one_afterwards(text):
    assert not contains_special(neutralise(text)[0])


@given(st.text())
def test_other_text_stays(text):
    if not contains_special(text):
        assert neutralise(text) == (text, 0)


def test_scientific_angle_brackets_stay():
    text = "5 < x > 3, <SMILES>CCO</SMILES>, |psi><psi|, p<0.05"
    assert neutralise(text) == (text, 0)
