"""The configuration of Intern-S1-Pro for `transformers.AutoConfig`, which does not know this model by itself.

Written by s1batch into its checkpoints. Key names are those of the public checkpoint.
"""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class InternS1ProTextConfig(PretrainedConfig):
    """The decoder. Engines look for FoPE's keys under either name, so the scaling stands under both."""

    model_type = "interns1_pro_text"
    base_config_key = "text_config"

    def __init__(
        self,
        rope_theta: float = 5e6,
        rope_scaling: dict[str, Any] | None = None,
        rope_parameters: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        scaling = rope_scaling or rope_parameters or {}
        self.rope_theta = scaling.get("rope_theta", rope_theta)
        self.rope_parameters = {"rope_type": "default", **scaling, "rope_theta": self.rope_theta}
        if not isinstance(getattr(type(self), "rope_scaling", None), property):  # transformers 4; in 5 it is an alias
            self.rope_scaling = self.rope_parameters


class InternS1ProVisionConfig(PretrainedConfig):
    """The vision tower."""

    model_type = "interns1_pro_vision"
    base_config_key = "vision_config"


class InternS1ProTimeSeriesConfig(PretrainedConfig):
    """The time-series encoder."""

    model_type = "interns1_pro_ts"
    base_config_key = "ts_config"


class InternS1ProConfig(PretrainedConfig):
    """The whole model; a checkpoint without images has no `vision_config`."""

    model_type = "interns1_pro"
    sub_configs = {  # noqa: RUF012
        "text_config": InternS1ProTextConfig,
        "vision_config": InternS1ProVisionConfig,
        "ts_config": InternS1ProTimeSeriesConfig,
    }

    def __init__(
        self,
        text_config: dict[str, Any] | InternS1ProTextConfig | None = None,
        vision_config: dict[str, Any] | InternS1ProVisionConfig | None = None,
        ts_config: dict[str, Any] | InternS1ProTimeSeriesConfig | None = None,
        **kwargs: Any,
    ) -> None:
        given = {"text_config": text_config, "vision_config": vision_config, "ts_config": ts_config}
        for name, block in given.items():
            setattr(self, name, self.sub_configs[name](**block) if isinstance(block, dict) else block)
        super().__init__(**kwargs)
