"""The part of a Hugging Face `config.json` that decides what the network computes, validated once.

Key names are those of the public Intern-S1-Pro checkpoint (`text_config`, `ts_config`, token ids at the top).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from s1batch.engine.tokens import IMAGE_PATCH
from s1batch.errors import UsageError

MODEL_TYPE = "interns1_pro"
ARCHITECTURE = "InternS1ProForConditionalGeneration"

PATCH_WIDTH = 128
"""Width of the patch stage of the time-series encoder; fixed in the public modelling code."""

PAIR_WIDTH = 2 * PATCH_WIDTH
"""Two neighbouring patches are concatenated before the encoder proper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FopeConfig:
    """Fourier position encoding: the three keys by which engines detect it.

    Attributes:
        init_factor: Gain of the normal part of the coefficients' initialisation.
        sep_head: Whether each key/value head has coefficients of its own.
        num_inv_freq: How many frequencies are kept; None keeps those that turn once within the context.
    """

    init_factor: float = 0.5
    sep_head: bool = True
    num_inv_freq: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
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
    router_n_groups: int
    norm_topk_prob: bool = True
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 5e6
    fope: FopeConfig = FopeConfig()

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "num_experts",
            "num_experts_per_tok",
            "moe_intermediate_size",
            "router_n_groups",
            "max_position_embeddings",
        ):
            _check(getattr(self, name) >= 1, f"text_config.{name} is {getattr(self, name)}; it must be positive")
        experts, groups, top_k = self.num_experts, self.router_n_groups, self.num_experts_per_tok
        _check(experts % groups == 0, f"{experts} experts do not split into {groups} groups of equal size")
        _check(top_k % groups == 0, f"{top_k} experts per token do not spread evenly over {groups} groups")
        _check(top_k <= experts, f"{top_k} experts per token, but only {experts} experts")
        _check(
            self.num_attention_heads % self.num_key_value_heads == 0,
            f"{self.num_attention_heads} heads do not share {self.num_key_value_heads} key/value heads evenly",
        )
        _check(self.head_dim % 2 == 0, f"text_config.head_dim is {self.head_dim}; rotation needs an even one")
        kept = self.fope.num_inv_freq
        _check(
            kept is None or 1 <= kept <= self.head_dim // 2,
            f"rope_scaling.num_inv_freq is {kept}; it must lie in 1 to head_dim / 2 = {self.head_dim // 2}",
        )
        _check(self.fope_frequencies >= 1, "no frequency turns once within max_position_embeddings")

    @property
    def fope_frequencies(self) -> int:
        """K: how many FoPE keeps, `num_inv_freq` or those with theta_i > 2 pi / max_position_embeddings."""
        if self.fope.num_inv_freq is not None:
            return self.fope.num_inv_freq
        half = self.head_dim // 2
        floor = 2 * math.pi / self.max_position_embeddings
        return sum(self.rope_theta ** (-2 * i / self.head_dim) > floor for i in range(half))


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesConfig:
    """The time-series encoder; names as in `ts_config`."""

    d_model: int
    encoder_layers: int
    encoder_attention_heads: int
    encoder_ffn_dim: int
    num_mel_bins: int = 80
    max_source_positions: int = 1500
    ts_adapt_in_dim: int = PAIR_WIDTH
    ts_adapt_out_dim: int = 1024
    ts_hidden_dim: int = 1024
    out_hidden_size: int

    def __post_init__(self) -> None:
        _check(
            self.d_model % self.encoder_attention_heads == 0,
            f"ts_config.d_model {self.d_model} does not split over {self.encoder_attention_heads} heads",
        )
        _check(
            self.ts_adapt_in_dim == PAIR_WIDTH,
            f"ts_config.ts_adapt_in_dim is {self.ts_adapt_in_dim}; two patches of {PATCH_WIDTH} make {PAIR_WIDTH}",
        )
        _check(
            self.ts_adapt_out_dim == self.ts_hidden_dim,
            f"ts_config.ts_adapt_out_dim {self.ts_adapt_out_dim} and ts_hidden_dim {self.ts_hidden_dim} differ",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionConfig:
    """The vision tower; names as in `vision_config`."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_position_embeddings: int = 2304
    out_hidden_size: int

    def __post_init__(self) -> None:
        for name in ("depth", "hidden_size", "intermediate_size", "num_heads"):
            _check(getattr(self, name) >= 1, f"vision_config.{name} is {getattr(self, name)}; it must be positive")
        _check(
            self.hidden_size % (4 * self.num_heads) == 0,
            f"vision_config.hidden_size {self.hidden_size} does not give {self.num_heads} heads of a width that "
            "rotation over rows and columns splits (a multiple of four)",
        )
        _check(
            self.positions_per_side >= 2 and self.positions_per_side**2 == self.num_position_embeddings,
            f"vision_config.num_position_embeddings is {self.num_position_embeddings}; it must be a square",
        )

    @property
    def positions_per_side(self) -> int:
        """Rows, and columns, of the table of learned positions."""
        return math.isqrt(max(self.num_position_embeddings, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The whole model: decoder, media towers and the ids by which media stand in a prompt.

    Attributes:
        text: The decoder.
        series: The time-series encoder.
        vision: The vision tower; None for a model that takes no images.
        ts_token_id: Stands for each embedding of a series.
        image_token_id: Stands for each embedding of an image.
        video_token_id: Of the public model; videos are not computed here.
        vision_start_token_id: Stands before an image.
        vision_end_token_id: Stands behind it.
        dtype: Number type of the stored weights.
    """

    text: TextConfig
    series: SeriesConfig
    vision: VisionConfig | None = None
    ts_token_id: int
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check(
            self.series.out_hidden_size == self.text.hidden_size,
            f"ts_config.out_hidden_size {self.series.out_hidden_size} is not the decoder's {self.text.hidden_size}",
        )
        _check(
            self.vision is None or self.vision.out_hidden_size == self.text.hidden_size,
            f"vision_config.out_hidden_size is not the decoder's {self.text.hidden_size}",
        )

    @classmethod
    def read(cls, folder: Path) -> ModelConfig:
        """Read `config.json` of a checkpoint folder.

        Raises:
            UsageError: There is none, or it describes a model that this code does not compute.
        """
        path = folder / "config.json"
        if not path.exists():
            raise UsageError(f"{folder} holds no config.json: name a checkpoint folder, or `nano`")
        return cls.read_file(path)

    @classmethod
    def read_file(cls, path: Path) -> ModelConfig:
        """Read a `config.json` under any name.

        Raises:
            UsageError: It cannot be read, or describes a model that this code does not compute.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from error
        try:
            return cls.from_document(document)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ModelConfig:
        """Build the configuration from the content of a `config.json`.

        Raises:
            UsageError: A key is missing or has a value that this code does not compute.
        """
        _check(isinstance(document, Mapping), "it holds no JSON object")
        _check(document.get("model_type") == MODEL_TYPE, f"model_type is {document.get('model_type')!r}")
        _check(not document.get("tie_word_embeddings", False), "tied word embeddings are not part of this model")
        _check("quantization_config" not in document, "quantised weights are not supported; convert them to bfloat16")
        try:
            return cls(
                text=_text(document["text_config"]),
                series=_series(document["ts_config"]),
                vision=_vision(document.get("vision_config")),
                dtype=document.get("dtype") or document.get("torch_dtype") or "float32",
                **{name: document[name] for name in _TOKEN_IDS},
            )
        except KeyError as error:
            raise UsageError(f"the key {error} is missing") from error
        except TypeError as error:
            raise UsageError(f"a key is missing or of the wrong type: {error}") from error

    def to_document(self) -> dict[str, Any]:
        """Return the content of a `config.json`; the three FoPE keys are always written, for engines detect FoPE by
        different ones of them."""
        text = {name: getattr(self.text, name) for name in _names(TextConfig) if name != "fope"}
        series = {name: getattr(self.series, name) for name in _names(SeriesConfig)}
        document = {
            "architectures": [ARCHITECTURE],
            "model_type": MODEL_TYPE,
            "dtype": self.dtype,
            "tie_word_embeddings": False,
            **{name: getattr(self, name) for name in _TOKEN_IDS},
            "text_config": {
                "model_type": f"{MODEL_TYPE}_text",
                "dtype": self.dtype,
                **text,
                **_FIXED_TEXT,
                "rope_scaling": {
                    "rope_type": "default",
                    "fope_init_factor": self.text.fope.init_factor,
                    "fope_sep_head": self.text.fope.sep_head,
                    "num_inv_freq": self.text.fope.num_inv_freq,
                },
            },
            "ts_config": {"model_type": f"{MODEL_TYPE}_ts", **series, **_FIXED_SERIES},
        }
        if self.vision is not None:
            vision = {name: getattr(self.vision, name) for name in _names(VisionConfig)}
            document["vision_config"] = {"model_type": f"{MODEL_TYPE}_vision", **vision, **_FIXED_VISION}
        return document


_TOKEN_IDS = ("ts_token_id", "image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")

_FIXED_TEXT = {
    "hidden_act": "silu",
    "attention_bias": False,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "tie_word_embeddings": False,
}

_FIXED_SERIES = {"activation_function": "gelu", "scale_embedding": False}

_FIXED_VISION = {
    "hidden_act": "gelu_pytorch_tanh",
    "in_channels": 3,
    "patch_size": IMAGE_PATCH,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "deepstack_visual_indexes": [],
}


def _check_fixed(document: Mapping[str, Any], block: str, fixed: Mapping[str, Any]) -> None:
    for name, value in fixed.items():
        _check(document.get(name, value) == value, f"{block}.{name} is {document.get(name)!r}, not {value!r}")


def _series(document: Mapping[str, Any]) -> SeriesConfig:
    _check_fixed(document, "ts_config", _FIXED_SERIES)
    return SeriesConfig(**_known(SeriesConfig, document))


def _vision(document: Mapping[str, Any] | None) -> VisionConfig | None:
    if document is None:
        return None
    _check_fixed(document, "vision_config", _FIXED_VISION)
    return VisionConfig(**_known(VisionConfig, document))


def _text(document: Mapping[str, Any]) -> TextConfig:
    _check_fixed(document, "text_config", _FIXED_TEXT)
    scaling = document.get("rope_scaling") or document.get("rope_parameters") or {}
    _check(
        scaling.get("rope_type", "default") == "default",
        f"rope_scaling.rope_type is {scaling.get('rope_type')!r}, not 'default'",
    )
    missing = {"fope_init_factor", "fope_sep_head", "num_inv_freq"} - scaling.keys()
    _check(not missing, f"rope_scaling lacks {', '.join(sorted(missing))}")
    fope = FopeConfig(
        init_factor=scaling["fope_init_factor"],
        sep_head=scaling["fope_sep_head"],
        num_inv_freq=scaling["num_inv_freq"],
    )
    known = _known(TextConfig, document)
    known.setdefault("rope_theta", scaling.get("rope_theta", 5e6))
    return TextConfig(**known, fope=fope)


def _names(record: Any) -> list[str]:
    return [field.name for field in fields(record)]


def _known(record: Any, document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: document[name] for name in _names(record) if name in document}


def _check(condition: bool, complaint: str) -> None:
    if not condition:
        raise UsageError(complaint)
