"""The vision tower: the patches of an image become embeddings of the decoder's width, one for each 2 x 2 patches.

    linear on each patch -> + learned positions, interpolated -> pre-norm blocks (rotation over rows and columns,
    attention over the whole image) -> norm, 2 x 2 patches side by side -> linear, GELU, linear

The same network as the vision model of Qwen3-VL without its deep-stack outputs. It is written out here because loading
that one from transformers takes five seconds and 150 MB, which every run would pay.

Suffixes: P patches, V values of a patch, d width, n heads, D head width, N tokens, H the decoder's hidden size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from s1batch.engine.reference.config import VisionConfig
from s1batch.engine.reference.images import FRAMES, ImagePatches, normalised
from s1batch.engine.tokens import IMAGE_PATCH

MERGE = 2
"""Patches along each side of what becomes one token."""

NORM_EPS = 1e-6
ROTATION_BASE = 10_000.0

PATCHES_AT_ONCE = 1024
"""Patches that are embedded, and queries that attend, at a time: bounds the memory of large images, and how long it
takes to notice that an answer is not wanted any more. Part of the numerics."""


class PatchEmbedding(nn.Module):
    """A linear map of each patch, kept as the convolution of the public checkpoint."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        size = (FRAMES, IMAGE_PATCH, IMAGE_PATCH)
        self.proj = nn.Conv3d(3, config.hidden_size, kernel_size=size, stride=size)

    def forward(self, patches_PV: Tensor) -> Tensor:
        """Return (P, d)."""
        return functional.linear(patches_PV.to(self.proj.weight.dtype), self.proj.weight.flatten(1), self.proj.bias)


class VisionAttention(nn.Module):
    """Attention of every patch over all patches of its image, with fused and biased projections."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, states_Pd: Tensor, turns: tuple[Tensor, Tensor], check: Callable[[], None]) -> Tensor:
        """Return (P, d)."""
        count = states_Pd.shape[0]
        queries_nPD, keys_nPD, values_nPD = self.qkv(states_Pd).view(count, 3, self.heads, -1).permute(1, 2, 0, 3)
        queries_nPD, keys_nPD = _rotate(queries_nPD, turns), _rotate(keys_nPD, turns)
        mixed = []
        for first in range(0, count, PATCHES_AT_ONCE):
            check()
            queries = queries_nPD[None, :, first : first + PATCHES_AT_ONCE]
            mixed.append(functional.scaled_dot_product_attention(queries, keys_nPD[None], values_nPD[None])[0])
        return self.proj(torch.cat(mixed, dim=1).transpose(0, 1).reshape(count, -1))  # type: ignore[no-any-return]


class VisionFeedForward(nn.Module):
    """Two linear maps with a GELU in its tanh form between them."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.linear_fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, states_Pd: Tensor) -> Tensor:
        """Return (P, d)."""
        return self.linear_fc2(functional.gelu(self.linear_fc1(states_Pd), approximate="tanh"))  # type: ignore[no-any-return]


class VisionBlock(nn.Module):
    """x += Attention(LN(x)); x += FeedForward(LN(x))."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=NORM_EPS)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=NORM_EPS)
        self.attn = VisionAttention(config)
        self.mlp = VisionFeedForward(config)

    def forward(self, states_Pd: Tensor, turns: tuple[Tensor, Tensor], check: Callable[[], None]) -> Tensor:
        """Return (P, d)."""
        states_Pd = states_Pd + self.attn(self.norm1(states_Pd), turns, check)
        return states_Pd + self.mlp(self.norm2(states_Pd))  # type: ignore[no-any-return]


class PatchMerger(nn.Module):
    """Four neighbouring patches, normalised and put side by side, to one embedding of the decoder's width."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.width = MERGE**2 * config.hidden_size
        self.norm = nn.LayerNorm(config.hidden_size, eps=NORM_EPS)
        self.linear_fc1 = nn.Linear(self.width, self.width)
        self.linear_fc2 = nn.Linear(self.width, config.out_hidden_size)

    def forward(self, states_Pd: Tensor) -> Tensor:
        """Return (N, H)."""
        merged = self.norm(states_Pd).view(-1, self.width)
        return self.linear_fc2(functional.gelu(self.linear_fc1(merged)))  # type: ignore[no-any-return]


class VisionTower(nn.Module):
    """`model.visual` of the checkpoint."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(config)
        self.pos_embed = nn.Embedding(config.num_position_embeddings, config.hidden_size)
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.depth))
        self.merger = PatchMerger(config)
        self._side = config.positions_per_side
        self._head_width = config.hidden_size // config.num_heads

    def forward(self, image: ImagePatches, check: Callable[[], None] = lambda: None) -> Tensor:
        """Encode one image.

        Args:
            image: Its patches.
            check: Called often; what it raises ends the work.

        Returns:
            Embeddings of shape (N, H) with N = rows * columns / 4 = `image_tokens(width, height)`.
        """
        rows_P, columns_P = _places(image.rows, image.columns)
        states_Pd = self._embedded(image, check) + self._positions(image, rows_P, columns_P)
        turns = self._turns(rows_P, columns_P)
        for block in self.blocks:
            states_Pd = block(states_Pd, turns, check)
        return self.merger(states_Pd)  # type: ignore[no-any-return]

    def _embedded(self, image: ImagePatches, check: Callable[[], None]) -> Tensor:
        parts = []
        for first in range(0, len(image.pixels_PV), PATCHES_AT_ONCE):
            check()
            parts.append(
                self.patch_embed(torch.from_numpy(normalised(image.pixels_PV[first : first + PATCHES_AT_ONCE])))
            )
        return torch.cat(parts)

    def _positions(self, image: ImagePatches, rows_P: Tensor, columns_P: Tensor) -> Tensor:
        """Interpolate the square table of learned positions at every patch, corners on corners; (P, d)."""
        table = self.pos_embed.weight.float().view(self._side, self._side, -1)
        above, row_share = self._between(image.rows, rows_P)
        left, column_share = self._between(image.columns, columns_P)
        below, right = (above + 1).clamp(max=self._side - 1), (left + 1).clamp(max=self._side - 1)
        upper = table[above, left] * (1 - column_share) + table[above, right] * column_share
        lower = table[below, left] * (1 - column_share) + table[below, right] * column_share
        return (upper * (1 - row_share) + lower * row_share).to(self.pos_embed.weight.dtype)

    def _between(self, count: int, places_P: Tensor) -> tuple[Tensor, Tensor]:
        """Return the table's line before each patch, and how far (0 to 1, as a column) it lies towards the next."""
        exact = torch.from_numpy(np.linspace(0, self._side - 1, count))[places_P]
        line = exact.floor()
        return line.long(), (exact - line).float()[:, None]

    def _turns(self, rows_P: Tensor, columns_P: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines (P, D): a quarter of the pairs by the row, a quarter by the column, twice."""
        half = self._head_width // 2
        speeds = 1.0 / ROTATION_BASE ** (torch.arange(0, half, 2, dtype=torch.float32) / half)
        angles = torch.cat((rows_P[:, None] * speeds, columns_P[:, None] * speeds), dim=1)
        angles_PD = torch.cat((angles, angles), dim=1)
        dtype = self.pos_embed.weight.dtype
        return angles_PD.cos().to(dtype), angles_PD.sin().to(dtype)


def _places(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Return the row and the column of each patch, in the order of `ImagePatches`."""
    grid = torch.arange(rows * columns).view(rows // MERGE, MERGE, columns // MERGE, MERGE)
    order_P = grid.transpose(1, 2).reshape(-1)
    return order_P // columns, order_P % columns


def _rotate(heads_nPD: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    first, second = heads_nPD.chunk(2, dim=-1)
    return heads_nPD * turns[0] + torch.cat((-second, first), dim=-1) * turns[1]
