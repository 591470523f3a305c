"""What takes which share of a prompt: one line per piece of text, series and image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Literal

from s1batch.engine.tokens import image_tokens, series_tokens, stride
from s1batch.records import ImagePart, Message, Part, Role, SeriesPart
from s1batch.wording import printable

MARKERS = 2
"""Tokens around every series (`<|ts|>` and `<|/ts|>`) and every image."""

EXCERPT_CHARS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenShare:
    """One piece of a prompt.

    Attributes:
        role: Whose message it stands in; `template` for what the chat template adds around all of them.
        kind: What it is.
        tokens: How many tokens it takes, with the markers around a series or an image.
        share: Of all tokens of the prompt, 0 to 1.
        content: An excerpt of the text, or the shape of the series or image; printable characters alone.
        seconds_per_token: How much time one token of a series stands for; None for other kinds.
    """

    role: Role | Literal["template"]
    kind: Literal["text", "series", "image", "template"]
    tokens: int
    share: float = 0.0
    content: str
    seconds_per_token: float | None = None


def token_map(
    messages: Iterable[Message], count_text: Callable[[str], int], prompt_tokens: int | None = None
) -> tuple[TokenShare, ...]:
    """Return the pieces of a prompt in order, and what they take.

    Args:
        messages: The conversation.
        count_text: Tokens of a text: a tokenizer's count, or an estimate.
        prompt_tokens: Tokens of the whole prompt, where an engine has counted them; what the pieces do not explain
            becomes a last line for the chat template.
    """
    shares = [_share(message.role, part, count_text) for message in messages for part in message.parts]
    explained = sum(share.tokens for share in shares)
    if prompt_tokens is not None and prompt_tokens > explained:
        rest = prompt_tokens - explained
        shares.append(TokenShare(role="template", kind="template", tokens=rest, content="around the messages"))
    total = max(prompt_tokens or 0, explained, 1)
    return tuple(replace(share, share=share.tokens / total) for share in shares)


def render(shares: Sequence[TokenShare], width: int = 100) -> list[str]:
    """Return the map as lines of text, a heading first and the sum last, none longer than `width` characters."""
    lines = [f"{'role':<10}{'kind':<10}{'tokens':>8}{'share':>8}  content"]
    for share in shares:
        content = share.content
        if share.seconds_per_token is not None:
            content += f", {share.seconds_per_token:.3g} s per token"
        lines.append(f"{share.role:<10}{share.kind:<10}{share.tokens:>8,}{share.share:>8.1%}  {content}")
    lines.append(f"{'total':<20}{sum(share.tokens for share in shares):>8,}")
    return [line if len(line) <= width else line[: width - 1] + "…" for line in lines]


def _share(role: Role, part: Part, count_text: Callable[[str], int]) -> TokenShare:
    if isinstance(part, SeriesPart):
        shape = part.shape
        told = f", told as {shape.rate_hz:g} Hz" if shape.rate_hz != part.rate_hz else ""
        return TokenShare(
            role=role,
            kind="series",
            tokens=MARKERS + series_tokens(shape.steps, shape.rate_hz),
            content=f"({shape.steps:,}, {shape.channels}) at {part.rate_hz:g} Hz{told}, "
            f"{shape.steps / part.rate_hz:,.6g} s",
            seconds_per_token=4 * stride(shape.rate_hz) / part.rate_hz,
        )
    if isinstance(part, ImagePart):
        size = _image_size(part)
        kib = f"{part.mime}, {len(part.data) / 1024:,.0f} KiB"
        if size is None:
            return TokenShare(role=role, kind="image", tokens=MARKERS, content=f"{kib}, of unknown size")
        width, height = size
        tokens = MARKERS + image_tokens(width, height)
        return TokenShare(role=role, kind="image", tokens=tokens, content=f"{width} x {height} pixels, {kib}")
    return TokenShare(role=role, kind="text", tokens=count_text(part.text), content=_excerpt(part.text))


def _image_size(part: ImagePart) -> tuple[int, int] | None:
    """Read width and height from the header; no pixel is decoded."""
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(BytesIO(part.data)) as image:
                return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _excerpt(text: str) -> str:
    """Return the text on one line, without control characters; the middle of a long one is left out."""
    head, tail = text[: 2 * EXCERPT_CHARS], text[-2 * EXCERPT_CHARS :]
    if len(text) > 4 * EXCERPT_CHARS:
        text = head + " … " + tail
    line = printable(text)
    if len(line) <= EXCERPT_CHARS:
        return line
    kept = (EXCERPT_CHARS - 3) // 2
    return f"{line[:kept]} … {line[-kept:]}"
