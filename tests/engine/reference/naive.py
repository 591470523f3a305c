"""The architecture once more, written from its description with loops and plain arithmetic in float64.

Shares no code with the package: no batching, no cache, no fused call. Weights come by their public key names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Weights = Mapping[str, Array]


def softmax(values: Array) -> Any:
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def silu(values: Array) -> Any:
    return values / (1 + np.exp(-values))


def gelu(values: Array) -> Any:
    return 0.5 * values * (1 + np.vectorize(math.erf)(values / math.sqrt(2)))


def rms(values: Array, weight: Array, eps: float) -> Any:
    return values / np.sqrt((values**2).mean(axis=-1, keepdims=True) + eps) * weight


def layer_norm(values: Array, weights: Weights, name: str, eps: float = 1e-5) -> Any:
    centred = values - values.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(values: Array, weights: Weights, name: str) -> Any:
    bias = weights.get(f"{name}.bias")
    product = values @ weights[f"{name}.weight"].T
    return product if bias is None else product + bias


def fope_tables(config: Mapping[str, Any], weights: Weights, position: int, head: int) -> tuple[Array, Array]:
    size, scaling = config["head_dim"], config["rope_scaling"]
    thetas = [config["rope_theta"] ** (-2 * i / size) for i in range(size // 2)]
    if scaling["num_inv_freq"] is not None:
        thetas = thetas[: scaling["num_inv_freq"]]
    else:
        thetas = [theta for theta in thetas if theta > 2 * math.pi / config["max_position_embeddings"]]
    tables = []
    for name, wave in (("cos", np.cos), ("sin", np.sin)):
        matrix = weights[f"model.language_model.rotary_emb.{name}_coef"]
        matrix = matrix[head] if scaling["fope_sep_head"] else matrix
        half = np.ones(size // 2)
        half[: len(thetas)] = wave(position * np.array(thetas)) @ matrix
        tables.append(np.concatenate((half, half)))
    return tables[0], tables[1]


def turn(vector: Array, tables: tuple[Array, Array]) -> Any:
    half = len(vector) // 2
    return vector * tables[0] + np.concatenate((-vector[half:], vector[:half])) * tables[1]


def attention(config: Mapping[str, Any], weights: Weights, layer: str, hidden: Array) -> Any:
    heads, kv_heads, size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    eps, name = config["rms_norm_eps"], f"{layer}.self_attn"
    tokens = len(hidden)
    queries = linear(hidden, weights, f"{name}.q_proj").reshape(tokens, heads, size)
    keys = linear(hidden, weights, f"{name}.k_proj").reshape(tokens, kv_heads, size)
    values = linear(hidden, weights, f"{name}.v_proj").reshape(tokens, kv_heads, size)
    mixed = np.zeros((tokens, heads, size))
    for head in range(heads):
        shared = head // (heads // kv_heads)
        turned_keys = [
            turn(rms(keys[t, shared], weights[f"{name}.k_norm.weight"], eps), fope_tables(config, weights, t, shared))
            for t in range(tokens)
        ]
        for t in range(tokens):
            query = rms(queries[t, head], weights[f"{name}.q_norm.weight"], eps)
            query = turn(query, fope_tables(config, weights, t, shared))
            scores = np.array([query @ turned_keys[s] for s in range(t + 1)]) / math.sqrt(size)
            mixed[t, head] = softmax(scores) @ values[: t + 1, shared]
    return linear(mixed.reshape(tokens, -1), weights, f"{name}.o_proj")


def experts(config: Mapping[str, Any], weights: Weights, layer: str, hidden: Array) -> Any:
    groups, top_k, count = config["router_n_groups"], config["num_experts_per_tok"], config["num_experts"]
    answer = np.zeros_like(hidden)
    for token, vector in enumerate(hidden):
        chances = softmax(weights[f"{layer}.mlp.gate.weight"] @ vector)
        chosen: list[int] = []
        for group in range(groups):
            members = list(range(group * count // groups, (group + 1) * count // groups))
            chosen += sorted(members, key=lambda e: chances[e], reverse=True)[: top_k // groups]
        total = sum(chances[e] for e in chosen) + 1e-20
        for e in chosen:
            name = f"{layer}.mlp.experts.{e}"
            inner = silu(linear(vector, weights, f"{name}.gate_proj")) * linear(vector, weights, f"{name}.up_proj")
            answer[token] += chances[e] / total * linear(inner, weights, f"{name}.down_proj")
    return answer


def decoder_logits(
    config: Mapping[str, Any], weights: Weights, ids: list[int], series: Array | None, images: Array | None = None
) -> Any:
    """Logits (T, V); media, if any, stand where the id is `ts_token_id` or `image_token_id`."""
    text = config["text_config"]
    hidden = weights["model.language_model.embed_tokens.weight"][ids].copy()
    if series is not None:
        hidden[np.array(ids) == config["ts_token_id"]] = series
    if images is not None:
        hidden[np.array(ids) == config["image_token_id"]] = images
    for number in range(text["num_hidden_layers"]):
        layer = f"model.language_model.layers.{number}"
        eps = text["rms_norm_eps"]
        hidden = hidden + attention(text, weights, layer, rms(hidden, weights[f"{layer}.input_layernorm.weight"], eps))
        normed = rms(hidden, weights[f"{layer}.post_attention_layernorm.weight"], eps)
        hidden = hidden + experts(text, weights, layer, normed)
    hidden = rms(hidden, weights["model.language_model.norm.weight"], text["rms_norm_eps"])
    return linear(hidden, weights, "lm_head")


def convolve(channels: Array, weight: Array, bias: Array, stride: int, padding: int) -> Any:
    """(inputs, length) to (outputs, length')."""
    padded = np.pad(channels, ((0, 0), (padding, padding)))
    width = weight.shape[2]
    starts = range(0, padded.shape[1] - width + 1, stride)
    return np.stack([np.einsum("oik,ik->o", weight, padded[:, s : s + width]) + bias for s in starts], axis=1)


def many_heads(queries: Array, keys: Array, values: Array, heads: int, causal: bool) -> Any:
    length, width = queries.shape
    size = width // heads
    mixed = np.zeros((length, width))
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = queries[:, part] @ keys[:, part].T / math.sqrt(size)
        if causal:
            scores[np.triu_indices(length, 1)] = -np.inf
        mixed[:, part] = softmax(scores) @ values[:, part]
    return mixed


def patch_feature(weights: Weights, patch: Array) -> Any:
    """One row of a patch, (P,), to (128,)."""
    name = "model.time_series.encoder_embed"
    waves = convolve(patch[None], weights[f"{name}.conv.weight"], weights[f"{name}.conv.bias"], 1, 2)
    hidden = np.maximum(waves, 0).T
    for position in range(len(hidden)):
        for pair in range(64):
            angle = position / 10000 ** (2 * pair / 128)
            hidden[position, 2 * pair] += math.sin(angle)
            hidden[position, 2 * pair + 1] += math.cos(angle)
    layer = f"{name}.transformer_encoder.layers.0"
    joint = hidden @ weights[f"{layer}.self_attn.in_proj_weight"].T + weights[f"{layer}.self_attn.in_proj_bias"]
    mixed = many_heads(joint[:, :128], joint[:, 128:256], joint[:, 256:], 8, causal=False)
    hidden = layer_norm(hidden + linear(mixed, weights, f"{layer}.self_attn.out_proj"), weights, f"{layer}.norm1")
    inner = np.maximum(linear(hidden, weights, f"{layer}.linear1"), 0)
    hidden = layer_norm(hidden + linear(inner, weights, f"{layer}.linear2"), weights, f"{layer}.norm2")
    return hidden.mean(axis=0)


def series_embeddings(config: Mapping[str, Any], weights: Weights, values: Array, rate_hz: float) -> Any:
    """(T, C) to (N, H)."""
    scored = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-8)
    hop = math.floor(160 / (1 + math.exp(-rate_hz / 100)) ** 6)
    size = 2 * hop
    count = math.ceil((len(scored) - size) / hop) + 1
    padded = np.pad(scored, ((0, (count - 1) * hop + size - len(scored)), (0, 0)))
    patches = []
    for number in range(count):
        window = padded[number * hop : number * hop + size]
        rows = [list(row) for row in np.array_split(window.ravel(), window.shape[1])]  # step by step, then cut
        patches.append(np.mean([patch_feature(weights, np.array(row)) for row in rows], axis=0))
    if count % 2:
        patches.pop()
    pairs = np.array([np.concatenate(patches[i : i + 2]) for i in range(0, len(patches), 2)])
    name = "model.time_series.encoder"
    mel = linear(pairs, weights, f"{name}.adapt_in").T
    mel = gelu(convolve(mel, weights[f"{name}.conv1.weight"], weights[f"{name}.conv1.bias"], 1, 1))
    states = gelu(convolve(mel, weights[f"{name}.conv2.weight"], weights[f"{name}.conv2.bias"], 2, 1)).T
    learned = weights[f"{name}.embed_positions.weight"]
    for position in range(min(len(states), len(learned))):
        states[position] += learned[position]
    for number in range(config["encoder_layers"]):
        layer = f"{name}.layers.{number}"
        normed = layer_norm(states, weights, f"{layer}.self_attn_layer_norm")
        q, k, v = (linear(normed, weights, f"{layer}.self_attn.{which}_proj") for which in "qkv")
        mixed = many_heads(q, k, v, config["encoder_attention_heads"], causal=True)
        states = states + linear(mixed, weights, f"{layer}.self_attn.out_proj")
        normed = layer_norm(states, weights, f"{layer}.final_layer_norm")
        states = states + linear(gelu(linear(normed, weights, f"{layer}.fc1")), weights, f"{layer}.fc2")
    states = linear(layer_norm(states, weights, f"{name}.layer_norm"), weights, f"{name}.adapt_out")
    name = "model.time_series.projector"
    states = gelu(linear(layer_norm(states, weights, f"{name}.layer_norm"), weights, f"{name}.linear_1"))
    return linear(states, weights, f"{name}.linear_2")


def position_at(table: Array, y: float, x: float) -> Any:
    """Bilinear interpolation of a (side, side, d) table between its four nearest entries."""
    top, left = math.floor(y), math.floor(x)
    total = np.zeros(table.shape[2])
    for row in (top, top + 1):
        for column in (left, left + 1):
            share = (1 - abs(y - row)) * (1 - abs(x - column))
            if share > 0:
                total += share * table[row, column]
    return total


def turn_by_place(vector: Array, row: int, column: int) -> Any:
    """Rotate the pairs (i, i + D/2): the first half of them by the row, the second by the column."""
    half = len(vector) // 2
    angles = [place / 10000 ** (2 * i / half) for place in (row, column) for i in range(half // 2)]
    turned = vector.copy()
    for i, angle in enumerate(angles):
        a, b = vector[i], vector[i + half]
        turned[i] = a * math.cos(angle) - b * math.sin(angle)
        turned[i + half] = b * math.cos(angle) + a * math.sin(angle)
    return turned


def image_embeddings(config: Mapping[str, Any], weights: Weights, pixels: Array) -> Any:
    """RGB pixels (height, width, 3), 0 to 255, sides multiples of 32, to (N, H)."""
    rows, columns = pixels.shape[0] // 16, pixels.shape[1] // 16
    colours = (pixels / 255 - 0.5) / 0.5
    side = math.isqrt(config["num_position_embeddings"])
    table = weights["model.visual.pos_embed.weight"].reshape(side, side, -1)
    places = [
        (2 * block_row + row, 2 * block_column + column)
        for block_row in range(rows // 2)
        for block_column in range(columns // 2)
        for row in range(2)
        for column in range(2)
    ]
    states = []
    for row, column in places:
        patch = colours[16 * row : 16 * row + 16, 16 * column : 16 * column + 16].transpose(2, 0, 1)
        both = np.stack((patch, patch), axis=1)
        name = "model.visual.patch_embed.proj"
        embedded = np.einsum("octyx,ctyx->o", weights[f"{name}.weight"], both) + weights[f"{name}.bias"]
        y, x = row * (side - 1) / (rows - 1), column * (side - 1) / (columns - 1)
        states.append(embedded + position_at(table, y, x))
    hidden = np.array(states)
    heads = config["num_heads"]
    for number in range(config["depth"]):
        block = f"model.visual.blocks.{number}"
        joint = linear(layer_norm(hidden, weights, f"{block}.norm1", 1e-6), weights, f"{block}.attn.qkv")
        queries, keys, values = np.split(joint, 3, axis=1)
        for each in (queries, keys):
            for number_of_patch, (row, column) in enumerate(places):
                parts = each[number_of_patch].reshape(heads, -1)
                each[number_of_patch] = np.concatenate([turn_by_place(part, row, column) for part in parts])
        hidden = hidden + linear(many_heads(queries, keys, values, heads, False), weights, f"{block}.attn.proj")
        inner = linear(layer_norm(hidden, weights, f"{block}.norm2", 1e-6), weights, f"{block}.mlp.linear_fc1")
        inner = 0.5 * inner * (1 + np.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        hidden = hidden + linear(inner, weights, f"{block}.mlp.linear_fc2")
    normed = layer_norm(hidden, weights, "model.visual.merger.norm", 1e-6)
    merged = np.array([np.concatenate(normed[i : i + 4]) for i in range(0, len(normed), 4)])
    return linear(
        gelu(linear(merged, weights, "model.visual.merger.linear_fc1")), weights, "model.visual.merger.linear_fc2"
    )
