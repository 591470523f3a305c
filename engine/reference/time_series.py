"""The time-series encoder: a series (T, C) becomes N embeddings of the decoder's width.

    z-score per channel -> half-overlapping patches -> patch stage (128 wide, mean over values and rows)
    -> pairs (256) -> linear, two convolutions (the second halves the length) -> causal Whisper layers -> projector

Patches of several channels are laid out as the public code lays them out, for the trained weights saw nothing else: a
patch of P steps and C channels is read step by step, all channels of a step side by side, and cut into C rows of P
values. (A comment there says that each channel goes by itself, but its axes are not exchanged.)

N is `s1batch.engine.tokens.series_tokens`. The rate decides the stride, so the same samples at another rate become
another number of embeddings. Stride and patches are computed once, in float64, so no rate is poisonous here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from s1batch.engine.reference.config import PATCH_WIDTH, SeriesConfig
from s1batch.engine.tokens import patches, stride
from s1batch.errors import EngineError

PATCH_HEADS = 8
PATCH_FFN = 2048
PATCH_POSITIONS = 20_000
"""Rows of the fixed table of sinusoids, as in the public modelling code."""

CHUNK_POSITIONS = 1536
"""Samples (over patches and channels) that the patch stage takes at once: 32 patches of 48 measured fastest, because
the 2048-wide activations stay in cache; it also bounds the memory of any length of series. Part of the numerics."""

Spread = Callable[[Callable[[int], None], Iterable[int]], Iterable[None]]
"""How independent pieces of work are done: `map`, or a thread pool's."""


def effective_rate(steps: int, rate_hz: float | None) -> float:
    """Return the rate that decides the stride: the given one, or max(steps / 4, 1) when there is none above zero."""
    return rate_hz if rate_hz is not None and rate_hz > 0 else max(steps / 4, 1.0)


def standardise(values_TC: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the channels as (C, T), each minus its mean and divided by its population deviation + 1e-8.

    The moments are taken in float64, so that large counts lose nothing.
    """
    scored = np.empty(values_TC.shape[::-1], dtype=np.float32)
    for channel, values in enumerate(values_TC.T):
        wide = values.astype(np.float64)
        scored[channel] = (wide - wide.mean()) / (wide.std() + 1e-8)
    return scored


class SinusoidTable(nn.Module):
    """Fixed sinusoidal positions, a buffer of shape (rows, 1, width) that the checkpoint holds too."""

    pe: Tensor

    def __init__(self, width: int, rows: int) -> None:
        super().__init__()
        angles = np.arange(rows)[:, None] * np.exp(np.arange(0, width, 2) * (-math.log(10000.0) / width))
        table = np.stack((np.sin(angles), np.cos(angles)), axis=-1).reshape(rows, 1, width)
        self.register_buffer("pe", torch.from_numpy(table.astype(np.float32)))


class PatchStage(nn.Module):
    """Each row of each patch alone: convolution, positions, one post-norm transformer layer, means."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, PATCH_WIDTH, kernel_size=5, padding=2)
        self.pos_encoder = SinusoidTable(PATCH_WIDTH, PATCH_POSITIONS)
        layer = nn.TransformerEncoderLayer(PATCH_WIDTH, PATCH_HEADS, PATCH_FFN, dropout=0.0, batch_first=True)
        self.transformer_encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, scored_CT: Tensor, hop: int, count: int, check: Callable[[], None], spread: Spread) -> Tensor:
        """Return the features of `count` patches, (count, 128); `check` is called before each chunk and may raise."""
        channels, steps = scored_CT.shape
        padded_CT = functional.pad(scored_CT, (0, (count + 1) * hop - steps))
        patches_CnP = padded_CT.unfold(1, 2 * hop, hop)
        at_once = max(CHUNK_POSITIONS // (2 * hop * channels), 1)

        # Written in place: small results that stayed behind would keep the freed activations from being used again.
        features = scored_CT.new_empty(count, PATCH_WIDTH)

        def chunk(first: int) -> None:
            check()
            steps_first_nPC = patches_CnP[:, first : first + at_once].permute(1, 2, 0)
            encoded = self._encode(steps_first_nPC.reshape(-1, 2 * hop)).view(-1, channels, PATCH_WIDTH)
            features[first : first + at_once] = encoded.mean(dim=1)

        for _ in spread(chunk, range(0, count, at_once)):
            pass
        return features

    def _encode(self, patches_MP: Tensor) -> Tensor:
        count, length = patches_MP.shape
        taps_MP5 = functional.pad(patches_MP, (2, 2)).unfold(1, 5, 1)
        waves_MPW = functional.relu(taps_MP5 @ self.conv.weight.view(PATCH_WIDTH, 5).T + cast(Tensor, self.conv.bias))
        waves_MPW = waves_MPW + self.pos_encoder.pe[:length, 0]
        layer: Any = self.transformer_encoder.layers[0]
        attention = layer.self_attn
        heads = functional.linear(waves_MPW, attention.in_proj_weight, attention.in_proj_bias)
        queries, keys, values = heads.view(count, length, 3, PATCH_HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).reshape(waves_MPW.shape)
        waves_MPW = layer.norm1(waves_MPW + attention.out_proj(mixed))
        waves_MPW = layer.norm2(waves_MPW + layer.linear2(functional.relu(layer.linear1(waves_MPW))))
        return cast(Tensor, waves_MPW.mean(dim=1))


class WhisperAttention(nn.Module):
    """Causal self-attention with biases on queries, values and output, none on keys."""

    def __init__(self, config: SeriesConfig) -> None:
        super().__init__()
        self.heads = config.encoder_attention_heads
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.k_proj = nn.Linear(config.d_model, config.d_model, bias=False)
        self.v_proj = nn.Linear(config.d_model, config.d_model)
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def forward(self, states_Nd: Tensor) -> Tensor:
        """Return (N, d)."""
        length, width = states_Nd.shape
        queries, keys, values = (
            projection(states_Nd).view(1, length, self.heads, -1).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return self.out_proj(mixed.transpose(1, 2).reshape(length, width))  # type: ignore[no-any-return]


class WhisperLayer(nn.Module):
    """A pre-norm Whisper encoder layer with exact GELU."""

    def __init__(self, config: SeriesConfig) -> None:
        super().__init__()
        self.self_attn = WhisperAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = nn.Linear(config.d_model, config.encoder_ffn_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_dim, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, states_Nd: Tensor) -> Tensor:
        """Return (N, d)."""
        states_Nd = states_Nd + self.self_attn(self.self_attn_layer_norm(states_Nd))
        return states_Nd + self.fc2(functional.gelu(self.fc1(self.final_layer_norm(states_Nd))))  # type: ignore[no-any-return]


class SeriesTransformer(nn.Module):
    """Pairs of patches (n // 2, 256) to states (N, adapt_out)."""

    def __init__(self, config: SeriesConfig) -> None:
        super().__init__()
        self.adapt_in = nn.Linear(config.ts_adapt_in_dim, config.num_mel_bins)
        self.conv1 = nn.Conv1d(config.num_mel_bins, config.d_model, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(config.d_model, config.d_model, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(config.max_source_positions, config.d_model)
        self.layers = nn.ModuleList(WhisperLayer(config) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(config.d_model)
        self.adapt_out = nn.Linear(config.d_model, config.ts_adapt_out_dim)

    def forward(self, pairs: Tensor, check: Callable[[], None]) -> Tensor:
        """Return (N, adapt_out); positions past the learned ones add nothing."""
        mel = self.adapt_in(pairs).T[None]
        states_Nd = functional.gelu(self.conv2(functional.gelu(self.conv1(mel))))[0].T
        learned = self.embed_positions.weight[: states_Nd.shape[0]]
        states_Nd = states_Nd + functional.pad(learned, (0, 0, 0, states_Nd.shape[0] - learned.shape[0]))
        for layer in self.layers:
            check()
            states_Nd = layer(states_Nd)
        return self.adapt_out(self.layer_norm(states_Nd))  # type: ignore[no-any-return]


class SeriesProjector(nn.Module):
    """States to the decoder's embeddings."""

    def __init__(self, config: SeriesConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.ts_hidden_dim)
        self.linear_1 = nn.Linear(config.ts_hidden_dim, config.out_hidden_size)
        self.linear_2 = nn.Linear(config.out_hidden_size, config.out_hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        """Return (N, H)."""
        return self.linear_2(functional.gelu(self.linear_1(self.layer_norm(states))))  # type: ignore[no-any-return]


class SeriesEncoder(nn.Module):
    """`model.time_series` of the checkpoint."""

    def __init__(self, config: SeriesConfig) -> None:
        super().__init__()
        self.encoder_embed = PatchStage()
        self.encoder = SeriesTransformer(config)
        self.projector = SeriesProjector(config)

    def forward(
        self,
        values_TC: NDArray[np.floating],
        rate_hz: float | None,
        check: Callable[[], None] = lambda: None,
        spread: Spread = map,
    ) -> Tensor:
        """Encode one series.

        Args:
            values_TC: Finite values, (T, C) or (T,), of any real type.
            rate_hz: Sampling rate; see `effective_rate`.
            check: Called often; what it raises ends the work.
            spread: Does the chunks of the patch stage, which is nearly all of the work.

        Returns:
            Embeddings of shape (N, H) with N = `series_tokens(T, rate)`.

        Raises:
            EngineError: The series is shorter than one sample more than a patch, or not a series.
        """
        if values_TC.ndim == 1:
            values_TC = values_TC[:, None]
        if values_TC.ndim != 2 or values_TC.shape[1] < 1:
            raise EngineError("wrong_shape", f"a series of shape {values_TC.shape}: it must be (time, channel)")
        steps = values_TC.shape[0]
        rate = effective_rate(steps, rate_hz)
        count = patches(steps, rate)
        if count < 2:
            raise EngineError("series_too_short", f"{steps} samples at {rate:g} Hz are too few for two patches")
        scored_CT = torch.from_numpy(standardise(values_TC)).to(self.projector.linear_1.weight.dtype)
        features = self.encoder_embed(scored_CT, stride(rate), count, check, spread)
        pairs = features[: features.shape[0] // 2 * 2].reshape(-1, 2 * PATCH_WIDTH)
        return self.projector(self.encoder(pairs, check))  # type: ignore[no-any-return]
