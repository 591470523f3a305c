"""The decoder over a batch of prompts that begin alike, with the parameters of the module that serves.

All prompts of a batch share their first tokens (the question); those are computed once, and every window attends to
them. Behind them stand the window's series, the note and the answer, as many tokens in each.

Suffixes: B windows, A shared tokens, R tokens of a window's own, N key/value heads, D head size.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from s1batch.engine.reference.decoder import Attention, Decoder, DecoderLayer, MixtureOfExperts
from s1batch.engine.reference.fope import rotate
from s1batch.engine.reference.router import route
from s1batch.engine.reference.training.router_gradients import route_straight_through


def decode(decoder: Decoder, shared_AH: Tensor, own_BRH: Tensor, *, straight_through: bool = True) -> Tensor:
    """Return the last hidden states (B, R, H) of the windows' own tokens.

    Args:
        decoder: Its parameters take gradients.
        shared_AH: Embeddings of the tokens that all prompts begin with.
        own_BRH: Embeddings of what follows, all of one length.
        straight_through: Whether the routers get gradients for all experts.
    """
    shared, own = shared_AH.shape[0], own_BRH.shape[1]
    cos_NTD, sin_NTD = decoder.rotary_emb(torch.arange(shared + own, device=own_BRH.device))
    shared_1AH = shared_AH[None]
    for each in decoder.layers:
        layer = cast(DecoderLayer, each)
        shared_1AH, own_BRH = _layer(layer, shared_1AH, own_BRH, (cos_NTD, sin_NTD), straight_through)
    return cast(Tensor, decoder.norm(own_BRH))


def _layer(
    layer: DecoderLayer, shared_1AH: Tensor, own_BRH: Tensor, tables: tuple[Tensor, Tensor], straight_through: bool
) -> tuple[Tensor, Tensor]:
    attention, norm = layer.self_attn, layer.input_layernorm
    begin = shared_1AH.shape[1]
    first = [table[:, :begin] for table in tables]
    second = [table[:, begin:] for table in tables]
    queries, keys, values = _heads(attention, norm(shared_1AH), first)
    order = torch.arange(begin + own_BRH.shape[1], device=own_BRH.device)
    mixed = _attend(queries, keys, values, order[:begin] <= order[:begin, None])
    shared_1AH = shared_1AH + _joined(attention, mixed)
    own_queries, own_keys, own_values = _heads(attention, norm(own_BRH), second)
    batch = len(own_BRH)
    all_keys = torch.cat((keys.expand(batch, -1, -1, -1), own_keys), dim=2)
    all_values = torch.cat((values.expand(batch, -1, -1, -1), own_values), dim=2)
    mixed = _attend(own_queries, all_keys, all_values, order <= order[begin:, None])
    own_BRH = own_BRH + _joined(attention, mixed)
    norm = layer.post_attention_layernorm
    shared_1AH = shared_1AH + _mix_experts(layer.mlp, norm(shared_1AH), straight_through)
    return shared_1AH, own_BRH + _mix_experts(layer.mlp, norm(own_BRH), straight_through)


def _heads(attention: Attention, hidden_BTH: Tensor, tables: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    batch, tokens, _ = hidden_BTH.shape
    cos_NTD, sin_NTD = tables
    kv_heads, shared, width = attention.kv_heads, attention.shared, attention.head_dim
    queries = attention.q_norm(attention.q_proj(hidden_BTH).view(batch, tokens, kv_heads, shared, width))
    queries = rotate(queries.permute(0, 2, 3, 1, 4), cos_NTD[:, None], sin_NTD[:, None])
    keys = attention.k_norm(attention.k_proj(hidden_BTH).view(batch, tokens, kv_heads, width))
    keys = rotate(keys.transpose(1, 2), cos_NTD, sin_NTD)
    values = attention.v_proj(hidden_BTH).view(batch, tokens, kv_heads, width).transpose(1, 2)
    queries = queries.reshape(batch, kv_heads, shared * tokens, width).to(values.dtype)
    return queries, keys.to(values.dtype), values


def _attend(queries_BNQD: Tensor, keys_BNSD: Tensor, values_BNSD: Tensor, seen_TS: Tensor) -> Tensor:
    """Return attention (B, N, R T, D), written out: on a CPU its backward pass is faster than the fused one.

    The queries of the R heads that share keys stand one head after the other along Q = R T.
    """
    shared = queries_BNQD.shape[2] // seen_TS.shape[0]
    scores_BNQS = queries_BNQD @ keys_BNSD.transpose(2, 3) * queries_BNQD.shape[-1] ** -0.5
    hidden_QS = torch.where(seen_TS, 0.0, -torch.inf).to(scores_BNQS.dtype).repeat(shared, 1)
    return torch.softmax(scores_BNQS + hidden_QS, dim=-1).to(values_BNSD.dtype) @ values_BNSD


def _joined(attention: Attention, mixed_BNQD: Tensor) -> Tensor:
    batch, kv_heads, queries, width = mixed_BNQD.shape
    tokens = queries // attention.shared
    heads_BNRTD = mixed_BNQD.view(batch, kv_heads, attention.shared, tokens, width)
    return cast(Tensor, attention.o_proj(heads_BNRTD.permute(0, 3, 1, 2, 4).reshape(batch, tokens, -1)))


def _mix_experts(mixture: MixtureOfExperts, hidden_BTH: Tensor, straight_through: bool) -> Tensor:
    flat_TH = hidden_BTH.reshape(-1, hidden_BTH.shape[-1])
    gate = mixture.gate
    with torch.autocast(flat_TH.device.type, enabled=False):  # the router is float32 wherever the model is served
        logits_TE = flat_TH.float() @ gate.weight.T
        choose = route_straight_through if straight_through else route
        weights_Tk, ids_Tk = choose(logits_TE, gate.groups, gate.top_k, renormalise=gate.renormalise)
    return cast(Tensor, mixture.experts(flat_TH, weights_Tk, ids_Tk)).view(hidden_BTH.shape)
