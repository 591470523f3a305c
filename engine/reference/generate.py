"""Generation: prompts are prefilled one by one, answers grow together, token by token.

An answer does not depend on who else is in the batch, to the last bit, because nothing a row computes has a shape that
the others decide. Prefill works on one sequence, in chunks counted from its start. A decoding step works on blocks of
exactly `BLOCK` rows, filled up with idle ones, so every matrix product always has the same shape, and within it every
row is computed alike (the tests check that for this machine's BLAS). Attention goes through each row's own cache,
without padding.

Nor does it depend on the number of threads, as long as torch's own is one: the only work that is spread over threads
is the patch stage's, in chunks of fixed size. One thread is also faster here: products of this size gain little from a
second one, and lose far more by waiting for it when the machine is busy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from s1batch.engine.reference.cache import KVCache, Segment
from s1batch.engine.reference.chat import Prompt
from s1batch.engine.reference.guided import Guide
from s1batch.engine.reference.images import cut
from s1batch.engine.reference.model import InternS1Pro
from s1batch.engine.reference.sampler import Sampler
from s1batch.errors import EngineError
from s1batch.records import FinishReason, ImagePart, SeriesPart

BLOCK = 8
"""Rows of a decoding step. Part of the numerics: another value may round differently."""

PREFILL_TOKENS = 256
"""Tokens of a prompt that are prefilled at once; bounds the memory of long prompts. Part of the numerics, too."""


class Generation:
    """One answer in the making.

    Args:
        prompt: What is answered.
        sampler: Chooses the tokens.
        guide: The grammar of the answer, if it must fit a schema.
        cache: Empty.
        max_tokens: Most tokens of the answer, its end token included.
        end_ids: Tokens that end it.

    Attributes:
        prompt: What is answered.
        output_ids: The tokens so far, without the end token.
        generated: How many tokens were generated, the end token included.
        finish_reason: Why it ended; None while it goes on.
        failure: What went wrong with this answer alone, when `finish_reason` is `error`.
    """

    def __init__(
        self,
        *,
        prompt: Prompt,
        sampler: Sampler,
        guide: Guide | None,
        cache: KVCache,
        max_tokens: int,
        end_ids: tuple[int, ...],
    ) -> None:
        self.prompt = prompt
        self.cache = cache
        self.output_ids: list[int] = []
        self.generated = 0
        self.finish_reason: FinishReason | None = None
        self.failure: EngineError | None = None
        self._sampler = sampler
        self._guide = guide
        self._max_tokens = max_tokens
        self._end_ids = frozenset(end_ids)

    def advance(self, logits_V: Tensor) -> None:
        """Choose the next token from the logits behind the last one; a grammar that fails ends this answer only."""
        try:
            self._advance(logits_V)
        except EngineError as error:
            self.failure = error
            self.finish_reason = "error"

    def _advance(self, logits_V: Tensor) -> None:
        token = self._sampler.choose(logits_V, self._guide.allowed() if self._guide else None)
        self.generated += 1
        if token in self._end_ids:
            self.finish_reason = "stop"
            return
        self.output_ids.append(token)
        if self._guide:
            self._guide.accept(token)
        if self._guide and self._guide.finished:
            self.finish_reason = "stop"
        elif self.generated >= self._max_tokens:
            self.finish_reason = "length"


class Generator:
    """Runs the model for generations; without any state of its own.

    Args:
        model: The network.
        pool: Threads for the patch stage; None does it on the caller's.
    """

    def __init__(self, model: InternS1Pro, pool: ThreadPoolExecutor | None = None) -> None:
        self.model = model
        self._pool = pool

    @torch.inference_mode()
    def prefill(
        self,
        generation: Generation,
        series: Sequence[SeriesPart],
        images: Sequence[ImagePart] = (),
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Encode the prompt's media, fill the cache with the prompt, and choose the first token.

        Args:
            generation: A fresh one.
            series: The prompt's series, in order.
            images: The prompt's images, in order.
            check: Called between pieces of the work; what it raises ends it.

        Raises:
            EngineError: An image is damaged, or placeholders and media do not match.
        """
        encoder = self.model.model.time_series
        encoded = [encoder(part.values_TC, part.shape.rate_hz, check, self._spread) for part in series]
        seen = [self._see(part, check) for part in images]
        embedded_TH = self.model.embed(torch.tensor(generation.prompt.ids), encoded, seen)
        for first in range(0, embedded_TH.shape[0], PREFILL_TOKENS):
            check()
            chunk_TH = embedded_TH[first : first + PREFILL_TOKENS]
            whole = Segment(cache=generation.cache, start=0, stop=chunk_TH.shape[0])
            states_TH = self.model.states(chunk_TH, [whole])
        generation.advance(self.model.lm_head(states_TH[-1:])[0])

    @torch.inference_mode()
    def step(self, generations: Sequence[Generation]) -> None:
        """Give every generation one more token; none of them may have finished."""
        for first in range(0, len(generations), BLOCK):
            block = generations[first : first + BLOCK]
            logits_BV = self._decode(block)
            for row, generation in enumerate(block):
                generation.advance(logits_BV[row])

    def _see(self, part: ImagePart, check: Callable[[], None]) -> Tensor:
        tower = self.model.model.visual
        if tower is None:
            raise EngineError("image_not_supported", "this model has no vision tower")
        return tower(cut(part), check)  # type: ignore[no-any-return]

    def _spread(self, work: Callable[[int], None], items: Iterable[int]) -> Iterable[None]:
        if self._pool is None:
            return map(work, items)
        return self._pool.map(torch.inference_mode()(work), items)  # inference mode holds for one thread only

    def _decode(self, block: Sequence[Generation]) -> Tensor:
        ids_B = torch.zeros(BLOCK, dtype=torch.long)
        ids_B[: len(block)] = torch.tensor([generation.output_ids[-1] for generation in block])
        segments = [Segment(cache=generation.cache, start=row, stop=row + 1) for row, generation in enumerate(block)]
        embedded_BH = self.model.model.language_model.embed_tokens(ids_B)
        return self.model.lm_head(self.model.states(embedded_BH, segments))  # type: ignore[no-any-return]
