"""The keys and values of one sequence, and the pieces of a forward pass that belong to it.

Every sequence has a cache of its own and no padding, so that what it computes cannot depend on its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from s1batch.engine.reference.config import TextConfig

FIRST_CAPACITY = 256


class KVCache:
    """Keys and values of one sequence, (n_kv, capacity, D) per layer; the capacity doubles as it fills.

    Attributes:
        length: Tokens that every layer holds.
    """

    def __init__(self, config: TextConfig) -> None:
        self.length = 0
        self._longest = config.max_position_embeddings
        self._layers: list[tuple[Tensor, Tensor] | None] = [None] * config.num_hidden_layers

    def extend(self, layer: int, keys_NTD: Tensor, values_NTD: Tensor) -> tuple[Tensor, Tensor]:
        """Write new keys and values of one layer behind `length`, and return all of that layer's up to them."""
        stop = self.length + keys_NTD.shape[1]
        held = self._layers[layer]
        if held is None or held[0].shape[1] < stop:
            held = self._layers[layer] = self._grown(held, stop, keys_NTD)
        keys, values = held
        keys[:, self.length : stop] = keys_NTD
        values[:, self.length : stop] = values_NTD
        return keys[:, :stop], values[:, :stop]

    def commit(self, count: int) -> None:
        """Count tokens that all layers have written."""
        self.length += count

    def _grown(self, held: tuple[Tensor, Tensor] | None, stop: int, like_NTD: Tensor) -> tuple[Tensor, Tensor]:
        capacity = FIRST_CAPACITY
        while capacity < stop:
            capacity *= 2
        capacity = max(min(capacity, self._longest), stop)
        heads, _, width = like_NTD.shape
        keys, values = (like_NTD.new_empty(heads, capacity, width) for _ in range(2))
        if held is not None:
            keys[:, : self.length] = held[0][:, : self.length]
            values[:, : self.length] = held[1][:, : self.length]
        return keys, values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """The tokens of one sequence within a forward pass: rows `start` to `stop`, which follow what its cache holds."""

    cache: KVCache
    start: int
    stop: int
