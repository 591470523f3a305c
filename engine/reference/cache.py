"""What a forward pass remembers: the keys and values of one sequence, and attention over them.

`Memory` is all that the decoder knows of it. One sequence by itself (a prompt, a whole text) is a `KVCache` here, or a
row of `kv_pool`; the sequences of a decoding step are a `kv_pool.Step`.

Suffixes: T new tokens, S all tokens of a sequence, N key/value heads, R query heads per key/value head, D head size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from s1batch.engine.reference.config import TextConfig

FIRST_CAPACITY = 256


class Memory(Protocol):
    """What the tokens of one forward pass attend to."""

    @property
    def several(self) -> bool:
        """Whether the tokens belong to several sequences, none of which may notice the others."""

    def positions(self, tokens: int) -> Tensor:
        """Return the position of each token in its sequence, (T,)."""

    def attend(self, layer: int, queries_NRTD: Tensor, keys_NTD: Tensor, values_NTD: Tensor) -> Tensor:
        """Remember the tokens' keys and values in a layer, and return what their queries find, (T, N, R, D)."""

    def commit(self, tokens: int) -> None:
        """Count the tokens, now that every layer has them."""


class OneSequence(ABC):
    """The memory of one sequence, which grows at its end.

    Attributes:
        length: Tokens that every layer holds.
    """

    several = False

    def __init__(self) -> None:
        self.length = 0
        self._mask: Tensor | None = None

    @abstractmethod
    def held(self, layer: int, stop: int, like_NTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return a layer's keys and values, (N, capacity, D) each, with room for `stop` tokens."""

    def positions(self, tokens: int) -> Tensor:
        """Return the positions behind what is held."""
        return torch.arange(self.length, self.length + tokens)

    def attend(self, layer: int, queries_NRTD: Tensor, keys_NTD: Tensor, values_NTD: Tensor) -> Tensor:
        """Remember, and attend causally over all that is held; see `Memory`."""
        stop = self.length + keys_NTD.shape[1]
        keys, values = self.held(layer, stop, keys_NTD)
        keys[:, self.length : stop] = keys_NTD
        values[:, self.length : stop] = values_NTD
        if self._mask is None and 1 < stop - self.length < stop:
            self._mask = _causal_mask(self.length, stop, queries_NRTD)
        return causal_attention(queries_NRTD, keys[:, :stop], values[:, :stop], self._mask)

    def commit(self, tokens: int) -> None:
        """Count tokens that all layers hold."""
        self.length += tokens
        self._mask = None


class KVCache(OneSequence):
    """Keys and values with a memory of their own, whose capacity doubles as it fills."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self._longest = config.max_position_embeddings
        self._layers: list[tuple[Tensor, Tensor] | None] = [None] * config.num_hidden_layers

    def held(self, layer: int, stop: int, like_NTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return a layer's keys and values; see `OneSequence`."""
        kept = self._layers[layer]
        if kept is None or kept[0].shape[1] < stop:
            kept = self._layers[layer] = self._grown(kept, stop, like_NTD)
        return kept

    def _grown(self, kept: tuple[Tensor, Tensor] | None, stop: int, like_NTD: Tensor) -> tuple[Tensor, Tensor]:
        capacity = FIRST_CAPACITY
        while capacity < stop:
            capacity *= 2
        capacity = max(min(capacity, self._longest), stop)
        heads, _, width = like_NTD.shape
        keys, values = (like_NTD.new_empty(heads, capacity, width) for _ in range(2))
        if kept is not None:
            keys[:, : self.length] = kept[0][:, : self.length]
            values[:, : self.length] = kept[1][:, : self.length]
        return keys, values


def causal_attention(
    queries_NRTD: Tensor, keys_NSD: Tensor, values_NSD: Tensor, mask_TS: Tensor | None = None
) -> Tensor:
    """Return causal attention as (T, N, R, D); the T queries are the last of the S keys.

    Args:
        queries_NRTD: Queries.
        keys_NSD: Keys.
        values_NSD: Values.
        mask_TS: Zero where a query may look and minus infinity elsewhere; needed when 1 < T < S.
    """
    shared, tokens = queries_NRTD.shape[1:3]
    mixed_NRTD = functional.scaled_dot_product_attention(
        queries_NRTD,
        keys_NSD[:, None].expand(-1, shared, -1, -1),
        values_NSD[:, None].expand(-1, shared, -1, -1),
        attn_mask=mask_TS,
        is_causal=1 < tokens == keys_NSD.shape[1],
    )
    return mixed_NRTD.permute(2, 0, 1, 3)


def _causal_mask(begin: int, stop: int, like: Tensor) -> Tensor:
    order = torch.arange(stop, device=like.device)
    hidden = order > order[begin:, None]
    return torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, -torch.inf)
