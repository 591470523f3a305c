"""How large a model of the Intern-S1-Pro architecture is: parameters, bytes of weights, bytes of cache per token.

Shapes in the formulas: V vocabulary, H hidden size, L layers, D head width, n_q and n_kv heads, E experts of which k
are active, m their inner width. Source of every formula and figure: the public modelling code and configuration of
Intern-S1-Pro and the technical report, arXiv 2603.25040.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

MODEL_TYPE = "interns1_pro"

PATCH_WIDTH = 128
"""Width of the patch stage of the time-series encoder, fixed in the modelling code."""

PATCH_FFN = 2048
"""Inner width of its feed-forward layer, fixed likewise."""

PATCH_KERNEL = 5
"""Kernel of its convolution, fixed likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSizes:
    """The decoder; names as in `text_config`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int

    @property
    def attention_weights(self) -> int:
        """Linear weights of all attention layers: L (2 H n_q D + 2 H n_kv D)."""
        heads = self.num_attention_heads + self.num_key_value_heads
        return self.num_hidden_layers * 2 * self.hidden_size * heads * self.head_dim

    @property
    def router_weights(self) -> int:
        """Weights of all router gates: L E H."""
        return self.num_hidden_layers * self.num_experts * self.hidden_size

    @property
    def norm_weights(self) -> int:
        """Weights of all norms: L (2 D + 2 H) + H."""
        return self.num_hidden_layers * 2 * (self.head_dim + self.hidden_size) + self.hidden_size

    @property
    def expert_weights(self) -> int:
        """Weights of all experts of all layers: L E 3 H m."""
        return self.num_hidden_layers * self.num_experts * 3 * self.hidden_size * self.moe_intermediate_size

    @property
    def vocabulary_weights(self) -> int:
        """Weights of the embedding, and as many of the head: V H."""
        return self.vocab_size * self.hidden_size

    @property
    def parameters(self) -> int:
        """All: 2VH + H + L [2H n_q D + 2H n_kv D + 2D + 2H + EH + 3EHm]."""
        rest = self.attention_weights + self.router_weights + self.norm_weights
        return 2 * self.vocabulary_weights + rest + self.expert_weights

    @property
    def active_parameters(self) -> int:
        """Those that one token meets: k of the E experts, and the head but not the embedding, which is looked up."""
        rest = self.attention_weights + self.router_weights + self.norm_weights
        return self.vocabulary_weights + rest + self.expert_weights * self.num_experts_per_tok // self.num_experts

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of key and value cache per token in bfloat16: 2 * L n_kv D * 2 bytes."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionSizes:
    """The vision tower; names as in `vision_config`."""

    depth: int
    hidden_size: int
    intermediate_size: int
    patch_size: int = 16
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    in_channels: int = 3
    num_position_embeddings: int = 2304
    out_hidden_size: int

    @property
    def patch_values(self) -> int:
        """Values of one patch: 3 * 2 * 16 * 16 = 1536."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def parameters(self) -> int:
        """Patch embedding, positions, blocks (fused qkv, projection, two feed-forward layers, two norms), merger."""
        d, f = self.hidden_size, self.intermediate_size
        merged = d * self.spatial_merge_size**2
        block = 4 * d * d + 4 * d + 2 * d * f + f + d + 4 * d
        merger = 2 * d + merged * merged + merged + merged * self.out_hidden_size + self.out_hidden_size
        return (self.patch_values + 1 + self.num_position_embeddings) * d + self.depth * block + merger


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesSizes:
    """The time-series encoder; names as in `ts_config`."""

    d_model: int
    encoder_layers: int
    encoder_ffn_dim: int
    num_mel_bins: int = 80
    max_source_positions: int = 1500
    ts_adapt_in_dim: int = 256
    ts_adapt_out_dim: int = 1024
    out_hidden_size: int

    @property
    def patch_stage_parameters(self) -> int:
        """Convolution and transformer layer over each patch: 593,792 in every model."""
        w, f = PATCH_WIDTH, PATCH_FFN
        return PATCH_KERNEL * w + w + 4 * w * w + 4 * w + 2 * w * f + f + w + 4 * w

    @property
    def parameters(self) -> int:
        """Patch stage, adapters, two convolutions, positions, Whisper layers (no bias on the keys), projector."""
        d, f, a, h = self.d_model, self.encoder_ffn_dim, self.ts_adapt_out_dim, self.out_hidden_size
        front = (self.ts_adapt_in_dim + 1) * self.num_mel_bins + (3 * self.num_mel_bins + 1) * d + (3 * d + 1) * d
        layer = 4 * d * d + 3 * d + 2 * d * f + f + d + 4 * d
        back = 2 * d + (d + 1) * a + 2 * a + (a + 1) * h + (h + 1) * h
        positions = self.max_source_positions * d
        return self.patch_stage_parameters + front + positions + self.encoder_layers * layer + back


Sizes = TypeVar("Sizes", TextSizes, VisionSizes, SeriesSizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSizes:
    """A whole model.

    Attributes:
        text: The decoder.
        vision: The vision tower; None when it has none.
        series: The time-series encoder; None when it has none.
        fp8: Whether the linear weights of the decoder are stored as 8-bit floats, in blocks of 128 x 128 with one
            float32 scale each; norms, router gates, embedding, head and media towers never are.
    """

    text: TextSizes
    vision: VisionSizes | None = None
    series: SeriesSizes | None = None
    fp8: bool = False

    @property
    def expert_bytes(self) -> float:
        """Bytes of all experts."""
        return self.text.expert_weights * self._bytes_per_weight

    @property
    def other_bytes(self) -> float:
        """Bytes of everything else."""
        text = self.text
        media = sum(tower.parameters for tower in (self.vision, self.series) if tower is not None)
        plain = 2 * text.vocabulary_weights + text.router_weights + text.norm_weights + media
        return text.attention_weights * self._bytes_per_weight + plain * 2

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights, 2 per weight where they are not quantised."""
        return self.expert_bytes + self.other_bytes

    @property
    def _bytes_per_weight(self) -> float:
        return 1 + 4 / 128**2 if self.fp8 else 2.0


INTERN_S1_PRO = ModelSizes(
    text=TextSizes(
        vocab_size=155_008,
        hidden_size=4096,
        num_hidden_layers=94,
        num_attention_heads=64,
        num_key_value_heads=4,
        head_dim=128,
        num_experts=512,
        num_experts_per_tok=8,
        moe_intermediate_size=1536,
    ),
    vision=VisionSizes(depth=24, hidden_size=1024, intermediate_size=4096, out_hidden_size=4096),
    series=SeriesSizes(d_model=768, encoder_layers=17, encoder_ffn_dim=3072, out_hidden_size=4096),
    fp8=True,
)
"""Intern-S1-Pro: 916.6 B parameters in the decoder, 21.7 B of them active; about 919 GB in FP8.

Source: `config.json` of internlm/Intern-S1-Pro. The widths of its time-series encoder are those of the sibling model
Intern-S2-Preview, whose `ts_config` is public.
"""


def model_sizes(config: Mapping[str, Any]) -> ModelSizes | None:
    """Read the sizes from a `config.json`; None when it describes another architecture, or lacks a size."""
    text = config.get("text_config")
    if config.get("model_type") != MODEL_TYPE or not isinstance(text, Mapping):
        return None
    vision, series = config.get("vision_config"), config.get("ts_config")
    quantisation = config.get("quantization_config")
    try:
        return ModelSizes(
            text=_read(TextSizes, text),
            vision=_read(VisionSizes, vision) if isinstance(vision, Mapping) and "depth" in vision else None,
            series=_read(SeriesSizes, series) if isinstance(series, Mapping) and "d_model" in series else None,
            fp8=isinstance(quantisation, Mapping) and quantisation.get("quant_method") == "fp8",
        )
    except (TypeError, ValueError):
        return None


def sizes_of(name: str) -> ModelSizes | None:
    """Return the sizes of a model by its name (`internlm/Intern-S1-Pro`, a path that ends so); None when unknown."""
    last = name.rstrip("/").rpartition("/")[2].casefold()
    return INTERN_S1_PRO if last in ("intern-s1-pro", "intern-s1-pro-fp8") else None


def _read(kind: type[Sizes], config: Mapping[str, Any]) -> Sizes:
    """Build the record from the keys that it knows.

    Raises:
        TypeError: A size is missing.
        ValueError: A size is no positive whole number.
    """
    known = {field.name: config[field.name] for field in fields(kind) if field.name in config}
    for name, value in known.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} is {value!r}")
    return kind(**known)
