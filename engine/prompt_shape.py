"""What a request looks like without its contents."""

from __future__ import annotations

from dataclasses import dataclass

from s1batch.records import Request, SeriesShape


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptShape:
    """A request without its contents: all that a rule may depend on, except the values of a series.

    Attributes:
        text_tokens: Tokens of the text of all messages.
        series: Shape of each series, with the rate that the engine would be told.
        images: How many images.
        image_sizes: Width and height of each in pixels; empty where they are not known.
        max_tokens: Most tokens that may be generated.
        thinking: Whether the model shall reason first.
        thinking_budget: Whether the reasoning shall be ended after a number of tokens.
        schema: Whether the answer must fit a JSON Schema.
        tools: Whether the model may call tools.
    """

    text_tokens: int = 0
    series: tuple[SeriesShape, ...] = ()
    images: int = 0
    image_sizes: tuple[tuple[int, int], ...] = ()
    max_tokens: int = 512
    thinking: bool = False
    thinking_budget: bool = False
    schema: bool = False
    tools: bool = False

    @classmethod
    def of(cls, request: Request, text_tokens: int) -> PromptShape:
        """Return the shape of a request whose series are all two-dimensional."""
        return cls(
            text_tokens=text_tokens,
            series=tuple(part.shape for part in request.series),
            images=len(request.images),
            max_tokens=request.sampling.max_tokens,
            thinking=request.sampling.thinking,
            thinking_budget=request.sampling.thinking_budget is not None,
            schema=request.schema is not None,
            tools=bool(request.tools),
        )
