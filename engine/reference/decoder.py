"""The decoder: pre-norm layers of grouped-query attention with FoPE, and a mixture of experts without a shared one.

A forward pass takes a flat list of tokens, (T, H), that `Segment`s divide among sequences; everything but attention
works on tokens one by one, and attention goes through each sequence's own cache. Parameter names are the public
checkpoint's, except that the experts of a layer are stacked (`checkpoint` splits and joins them).

Suffixes: T tokens, H hidden, N key/value heads, R query heads per key/value head, D head size, E experts, M width of
an expert.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from s1batch.engine.reference.cache import Segment
from s1batch.engine.reference.config import TextConfig
from s1batch.engine.reference.fope import Fope, rotate
from s1batch.engine.reference.router import GroupedRouter


class RMSNorm(nn.Module):
    """x / rms(x) in float32, cast back before the weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, values: Tensor) -> Tensor:
        """Normalise over the last axis."""
        wide = values.float()
        wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return wide.to(values.dtype) * self.weight


class Attention(nn.Module):
    """Grouped-query attention; queries and keys are normalised per head before they are rotated."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.kv_heads, self.head_dim = config.num_key_value_heads, config.head_dim
        self.shared = config.num_attention_heads // config.num_key_value_heads
        queries, keys = config.num_attention_heads * self.head_dim, self.kv_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)

    def forward(
        self, hidden_TH: Tensor, tables: tuple[Tensor, Tensor], segments: Sequence[Segment], layer: int
    ) -> Tensor:
        """Attend within each segment; rows outside all segments come back as zeros."""
        tokens = hidden_TH.shape[0]
        cos_NTD, sin_NTD = tables
        heads_TNRD = self.q_norm(self.q_proj(hidden_TH).view(tokens, self.kv_heads, self.shared, self.head_dim))
        # Query head q uses table floor(q / R), so the tables broadcast over R.
        queries_NRTD = rotate(heads_TNRD.permute(1, 2, 0, 3), cos_NTD[:, None], sin_NTD[:, None])
        keys = self.k_norm(self.k_proj(hidden_TH).view(tokens, self.kv_heads, self.head_dim))
        keys_NTD = rotate(keys.transpose(0, 1), cos_NTD, sin_NTD)
        values_NTD = self.v_proj(hidden_TH).view(tokens, self.kv_heads, self.head_dim).transpose(0, 1)
        attended_TNRD = hidden_TH.new_zeros(tokens, self.kv_heads, self.shared, self.head_dim)
        for segment in segments:
            rows = slice(segment.start, segment.stop)
            seen_keys, seen_values = segment.cache.extend(layer, keys_NTD[:, rows], values_NTD[:, rows])
            attended_TNRD[rows] = _attend(queries_NRTD[:, :, rows], seen_keys, seen_values)
        return self.o_proj(attended_TNRD.view(tokens, -1))  # type: ignore[no-any-return]


def _attend(queries_NRTD: Tensor, keys_NSD: Tensor, values_NSD: Tensor) -> Tensor:
    """Return causal attention as (T, N, R, D); the T queries are the last of the S keys."""
    kv_heads, shared, tokens, width = queries_NRTD.shape
    queries_NQD = queries_NRTD.reshape(kv_heads, shared * tokens, width)
    mask = None
    if tokens > 1:
        seen = keys_NSD.shape[1]
        order = torch.arange(seen, device=keys_NSD.device)
        mask = (order <= order[seen - tokens :, None]).repeat(shared, 1)
    mixed = functional.scaled_dot_product_attention(queries_NQD[None], keys_NSD[None], values_NSD[None], attn_mask=mask)
    return mixed.view(kv_heads, shared, tokens, width).permute(2, 0, 1, 3)


class Experts(nn.Module):
    """The experts of one layer, `down(silu(gate x) * up x)`, stacked: each matrix is (E, M, H), `down` transposed."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        shape = (config.num_experts, config.moe_intermediate_size, config.hidden_size)
        self.gate_proj = nn.Parameter(torch.zeros(shape))
        self.up_proj = nn.Parameter(torch.zeros(shape))
        self.down_proj = nn.Parameter(torch.zeros(shape))

    def forward(self, hidden_TH: Tensor, weights_Tk: Tensor, ids_Tk: Tensor) -> Tensor:
        """Return the weighted sum of the chosen experts.

        All experts are computed and those not chosen weigh zero: at nano size (8 of 16 chosen) three large products
        beat 16 small gathered ones, and their shape does not depend on what was chosen.
        """
        experts, width, hidden = self.gate_proj.shape
        tokens = hidden_TH.shape[0]
        dense_TE = weights_Tk.new_zeros(tokens, experts).scatter(1, ids_Tk, weights_Tk)
        gates = functional.linear(hidden_TH, self.gate_proj.view(-1, hidden))
        ups = functional.linear(hidden_TH, self.up_proj.view(-1, hidden))
        inner_TEM = (functional.silu(gates) * ups).view(tokens, experts, width)
        inner_TEM = inner_TEM * dense_TE.to(inner_TEM.dtype)[:, :, None]
        return inner_TEM.view(tokens, -1) @ self.down_proj.view(-1, hidden)


class MixtureOfExperts(nn.Module):
    """Router and experts."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate = GroupedRouter(config)
        self.experts = Experts(config)

    def forward(self, hidden_TH: Tensor) -> Tensor:
        """Return the experts' answer for every token."""
        weights_Tk, ids_Tk = self.gate(hidden_TH)
        return self.experts(hidden_TH, weights_Tk, ids_Tk)  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """x += Attention(RMS(x)); x += MoE(RMS(x))."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MixtureOfExperts(config)

    def forward(
        self, hidden_TH: Tensor, tables: tuple[Tensor, Tensor], segments: Sequence[Segment], layer: int
    ) -> Tensor:
        """Return the layer's output."""
        hidden_TH = hidden_TH + self.self_attn(self.input_layernorm(hidden_TH), tables, segments, layer)
        return hidden_TH + self.mlp(self.post_attention_layernorm(hidden_TH))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Embedding, layers and last norm: `model.language_model` of the checkpoint."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.rotary_emb = Fope(config)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden_TH: Tensor, positions_T: Tensor, segments: Sequence[Segment]) -> Tensor:
        """Run all layers over embedded tokens and advance the caches; returns normalised hidden states (T, H)."""
        cos, sin = self.rotary_emb(positions_T)
        tables = cos.to(hidden_TH.dtype), sin.to(hidden_TH.dtype)
        for number, layer in enumerate(self.layers):
            hidden_TH = layer(hidden_TH, tables, segments, number)
        for segment in segments:
            segment.cache.commit(segment.stop - segment.start)
        return self.norm(hidden_TH)  # type: ignore[no-any-return]
