"""Claims about `s1batch.token_map`."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from s1batch.records import ImagePart, Message, SeriesPart, TextPart
from s1batch.token_map import render, token_map


def words(text: str) -> int:
    return len(text.split())


def picture(width: int, height: int) -> ImagePart:
    out = io.BytesIO()
    Image.new("L", (width, height)).save(out, format="PNG")
    return ImagePart(out.getvalue())


MESSAGES = (
    Message(role="system", parts=(TextPart(text="You pick arrivals."),)),
    Message(
        role="user",
        parts=(SeriesPart(np.zeros((6000, 3), np.float32), 100.0), TextPart(text="Where does\nthe P wave arrive?")),
    ),
)


def test_the_map_lists_every_piece_in_order_with_its_tokens() -> None:
    shares = token_map(MESSAGES, words, prompt_tokens=100)
    assert [(share.role, share.kind, share.tokens) for share in shares] == [
        ("system", "text", 3),
        ("user", "series", 64),
        ("user", "text", 6),
        ("template", "template", 27),
    ]
    assert shares[1].share == pytest.approx(0.64)
    assert shares[1].seconds_per_token == pytest.approx(0.96)
    assert shares[2].content == "Where does the P wave arrive?"


def test_the_map_is_readable_as_text() -> None:
    assert render(token_map(MESSAGES, words, prompt_tokens=100)) == [
        "role      kind        tokens   share  content",
        "system    text             3    3.0%  You pick arrivals.",
        "user      series          64   64.0%  (6,000, 3) at 100 Hz, 60 s, 0.96 s per token",
        "user      text             6    6.0%  Where does the P wave arrive?",
        "template  template        27   27.0%  around the messages",
        "total                    100",
    ]


def test_a_nudged_rate_is_told_and_time_is_counted_at_the_true_one() -> None:
    part = SeriesPart(np.zeros((20_000, 1), np.float32), 1700.0, 1660.0)
    (share,) = token_map([Message(role="user", parts=(part,))], words)
    assert "at 1700 Hz, told as 1660 Hz" in share.content
    assert share.seconds_per_token == pytest.approx(4 * 159 / 1700)


def test_an_image_is_measured_by_its_header() -> None:
    (share,) = token_map([Message(role="user", parts=(picture(320, 256),))], words)
    assert (share.tokens, share.kind) == (82, "image")
    assert share.content.startswith("320 x 256 pixels, image/png")


@pytest.mark.parametrize("data", [b"", b"no image", picture(64, 64).data[:20]])
def test_an_image_that_cannot_be_read_is_listed_all_the_same(data: bytes) -> None:
    (share,) = token_map([Message(role="user", parts=(ImagePart(data),))], words)
    assert "unknown size" in share.content


def test_an_image_that_claims_a_monstrous_size_is_not_decoded() -> None:
    data = bytearray(picture(8, 8).data)
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    (share,) = token_map([Message(role="user", parts=(ImagePart(bytes(data)),))], words)
    assert share.kind == "image"


@given(
    texts=st.lists(st.text(max_size=2000), max_size=6),
    prompt_tokens=st.none() | st.integers(0, 5000),
    width=st.integers(40, 200),
)
def test_shares_add_up_and_lines_are_printable(texts: list[str], prompt_tokens: int | None, width: int) -> None:
    shares = token_map([Message(role="user", parts=tuple(TextPart(text=text) for text in texts))], words, prompt_tokens)
    total = sum(share.tokens for share in shares)
    assert total == max(prompt_tokens or 0, sum(words(text) for text in texts))
    assert sum(share.share for share in shares) == pytest.approx(1.0 if total else 0.0)
    for line in render(shares, width):
        assert len(line) <= width
        assert line.isprintable()
