"""The keys and values of all sequences that are answered together, within a bound of memory.

A sequence takes a row of an arena when it begins, with room for its prompt and the longest answer that it may give, so
that it never runs out of memory on its way. Arenas hold rows of one capacity: 128, 256, 512, 1024 tokens and so on,
each twice the one before. Rows in use are the first ones of their arena, without holes, so that a decoding step attends
over a slice of it; arenas grow and shrink in memory as rows come and go.

Attention of a row reads past its end up to a length that its arena's other rows have a part in, and what lies there is
masked. That changes nothing, not even a bit: a capacity up to `KEYS_AT_ONCE` is always read whole, so the length is the
row's own affair; above, it is a multiple of `KEYS_AT_ONCE`, and torch's kernel works through the keys in blocks of that
size, of which those that are masked altogether add zeros. The tests check that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from s1batch.engine.reference.cache import OneSequence
from s1batch.engine.reference.config import TextConfig

SMALLEST = 128
"""Tokens of the smallest rows."""

KEYS_AT_ONCE = 512
"""Keys that torch's attention on a CPU takes at once. Part of the numerics."""


class KVRow(OneSequence):
    """The memory of one sequence: a row of an arena.

    Attributes:
        index: Which row; it changes when an earlier one is given back.
    """

    def __init__(self, arena: _Arena, index: int) -> None:
        super().__init__()
        self.arena = arena
        self.index = index

    def held(self, layer: int, stop: int, like_NTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return a layer's keys and values; see `OneSequence`."""
        keys, values = self.arena.layers[layer]
        return keys[self.index], values[self.index]


class KVPool:
    """Hands out rows, within a bound.

    Args:
        config: The decoder.
        limit_bytes: Most memory of all arenas. While one grows or shrinks, one of its layers is held twice.
        dtype: Number type of keys and values.

    Attributes:
        used_bytes: Memory of all arenas.
    """

    def __init__(self, config: TextConfig, limit_bytes: int, dtype: torch.dtype = torch.float32) -> None:
        self._config = config
        self._limit = limit_bytes
        self._dtype = dtype
        self._longest = math.ceil(config.max_position_embeddings / SMALLEST) * SMALLEST
        self._arenas: dict[int, _Arena] = {}

    @property
    def used_bytes(self) -> int:
        """Memory of all arenas."""
        return sum(arena.nbytes for arena in self._arenas.values())

    def row_bytes(self, tokens: int) -> int:
        """Return the memory that a sequence of so many tokens takes."""
        config = self._config
        values = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        return values * self._capacity(tokens) * self._dtype.itemsize

    def take(self, tokens: int) -> KVRow | None:
        """Return a row with room for so many tokens, or None when there is no memory for it now."""
        capacity = self._capacity(tokens)
        arena = self._arenas.get(capacity)
        if arena is None:
            arena = self._arenas[capacity] = _Arena(self._config, capacity, self._dtype)
        if len(arena.rows) == arena.slots and not self._grow(arena, self.row_bytes(tokens)):
            return None
        return arena.take()

    def give_back(self, row: KVRow) -> None:
        """Take a row back; nothing may use it any more."""
        row.arena.give_back(row)

    def _grow(self, arena: _Arena, row_bytes: int) -> bool:
        """Double an arena, or grow it as far as the bound allows; False when that is not by a single row."""
        for shrink in (False, True):
            if shrink:
                for other in self._arenas.values():
                    other.resize(len(other.rows))
            more = min(max(arena.slots, 1), (self._limit - self.used_bytes) // row_bytes)
            if more > 0:
                arena.resize(arena.slots + more)
                return True
        return False

    def _capacity(self, tokens: int) -> int:
        capacity = SMALLEST
        while capacity < tokens:
            capacity *= 2
        return capacity if capacity <= KEYS_AT_ONCE else min(capacity, self._longest)


class Step:
    """The memory of a decoding step: one new token for each of several sequences.

    Args:
        rows: The sequences, at most `size`.
        size: Tokens of the pass; those past the sequences are idle, and attend to nothing.
    """

    several = True

    def __init__(self, rows: Iterable[KVRow], size: int) -> None:
        self._rows = list(rows)
        self._positions = torch.zeros(size, dtype=torch.long)
        self._positions[: len(self._rows)] = torch.tensor([row.length for row in self._rows])
        members: dict[_Arena, list[int]] = {}
        for place, row in enumerate(self._rows):
            members.setdefault(row.arena, []).append(place)
        self._groups = [_Group(arena, [(at, self._rows[at]) for at in places]) for arena, places in members.items()]

    def positions(self, tokens: int) -> Tensor:
        """Return the position of each token."""
        return self._positions

    def attend(self, layer: int, queries_NRTD: Tensor, keys_NTD: Tensor, values_NTD: Tensor) -> Tensor:
        """Remember, and attend in every sequence over its own; see `Memory`."""
        queries_TNRD = queries_NRTD.permute(2, 0, 1, 3)
        found_TNRD = torch.zeros_like(queries_TNRD)
        keys_TND, values_TND = keys_NTD.transpose(0, 1), values_NTD.transpose(0, 1)
        for group in self._groups:
            found_TNRD[group.places] = group.attend(layer, queries_TNRD, keys_TND, values_TND)
        return found_TNRD

    def commit(self, tokens: int) -> None:
        """Count one token in every sequence."""
        for row in self._rows:
            row.commit(1)


class _Group:
    """The sequences of a step that have their rows in one arena."""

    def __init__(self, arena: _Arena, members: list[tuple[int, KVRow]]) -> None:
        indices = [row.index for _, row in members]
        first, stop = min(indices), max(indices) + 1
        ends = [row.length for _, row in members]
        seen = arena.capacity
        if seen > KEYS_AT_ONCE:
            seen = min(math.ceil((max(ends) + 1) / KEYS_AT_ONCE) * KEYS_AT_ONCE, seen)
        self.places = torch.tensor([place for place, _ in members])
        self._arena = arena
        self._indices = torch.tensor(indices)
        self._ends = torch.tensor(ends)
        self._slice = slice(first, stop)
        self._seen = seen
        self._within = self._indices - first
        # Rows between these that are not decoded now are computed with somebody's query and left out of the result.
        self._asks = torch.full((stop - first,), members[0][0])
        self._asks[self._within] = self.places
        last = torch.zeros(stop - first, dtype=torch.long)
        last[self._within] = self._ends
        masked = torch.arange(seen) > last[:, None]
        self._mask = torch.zeros(stop - first, 1, 1, seen, dtype=arena.dtype)
        self._mask.masked_fill_(masked[:, None, None, :], -torch.inf)

    def attend(self, layer: int, queries_TNRD: Tensor, keys_TND: Tensor, values_TND: Tensor) -> Tensor:
        keys, values = self._arena.layers[layer]
        keys[self._indices, :, self._ends] = keys_TND[self.places]
        values[self._indices, :, self._ends] = values_TND[self.places]
        found = functional.scaled_dot_product_attention(
            queries_TNRD[self._asks],
            keys[self._slice, :, : self._seen],
            values[self._slice, :, : self._seen],
            attn_mask=self._mask,
        )
        return found[self._within]


class _Arena:
    """Rows of one capacity: per layer keys and values of shape (slots, N, capacity, D)."""

    def __init__(self, config: TextConfig, capacity: int, dtype: torch.dtype) -> None:
        self.capacity = capacity
        self.dtype = dtype
        self.rows: list[KVRow] = []
        self.slots = 0
        self._shape = (config.num_key_value_heads, capacity, config.head_dim)
        nothing = torch.empty(0, *self._shape, dtype=dtype)
        self.layers: list[tuple[Tensor, Tensor]] = [(nothing, nothing)] * config.num_hidden_layers

    @property
    def nbytes(self) -> int:
        return 2 * len(self.layers) * self.slots * math.prod(self._shape) * self.dtype.itemsize

    def take(self) -> KVRow:
        row = KVRow(self, len(self.rows))
        for keys, values in self.layers:
            # Masked places are multiplied by zero, which what another row left there must survive.
            keys[row.index].zero_()
            values[row.index].zero_()
        self.rows.append(row)
        return row

    def give_back(self, row: KVRow) -> None:
        last = self.rows.pop()
        if last is not row:
            for keys, values in self.layers:
                keys[row.index] = keys[last.index]
                values[row.index] = values[last.index]
            self.rows[row.index] = last
            last.index = row.index
        if not self.rows:
            self.resize(0)

    def resize(self, slots: int) -> None:
        """Change the number of rows there is memory for, layer by layer; those in use stay."""
        if slots == self.slots:
            return
        used = len(self.rows)
        for number, kept in enumerate(self.layers):
            keys, values = (torch.empty(slots, *self._shape, dtype=self.dtype) for _ in range(2))
            keys[:used] = kept[0][:used]
            values[:used] = kept[1][:used]
            self.layers[number] = keys, values
        self.slots = slots
