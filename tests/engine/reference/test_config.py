"""The configuration is read as the public checkpoint writes it, and refused where the code computes something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from s1batch.engine.reference.config import FopeConfig, ModelConfig
from s1batch.errors import UsageError
from tests.engine.reference.conftest import small_config


def test_a_configuration_survives_its_document() -> None:
    for fope in (FopeConfig(), FopeConfig(init_factor=0.1, sep_head=False, num_inv_freq=5)):
        config = small_config(fope=fope)
        assert ModelConfig.from_document(json.loads(json.dumps(config.to_document()))) == config


def test_the_three_fope_keys_are_always_written() -> None:
    scaling = small_config().to_document()["text_config"]["rope_scaling"]
    assert scaling == {
        "rope_type": "default",
        "fope_init_factor": 0.5,
        "fope_sep_head": True,
        "num_inv_freq": None,
    }


def test_the_real_model_keeps_45_of_64_frequencies() -> None:
    config = small_config(head_dim=128, rope_theta=5e6, max_position_embeddings=262144)
    assert config.text.fope_frequencies == 45


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_experts": 13}, "13 experts"),
        ({"num_experts_per_tok": 7}, "7 experts per token"),
        ({"num_experts_per_tok": 15}, "only 12 experts"),
        ({"num_key_value_heads": 4}, "4 key/value heads"),
        ({"head_dim": 15}, "head_dim"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"fope": FopeConfig(num_inv_freq=9)}, "num_inv_freq"),
        ({"max_position_embeddings": 4}, "no frequency"),
        ({"hidden_size": 32}, "out_hidden_size"),
    ],
)
def test_an_impossible_shape_is_refused_by_name(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        small_config(**change)


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("model_type",), "qwen3", "model_type"),
        (("tie_word_embeddings",), True, "tied"),
        (("quantization_config",), {"quant_method": "fp8"}, "quantised"),
        (("text_config", "hidden_act"), "gelu", "hidden_act"),
        (("text_config", "mlp_only_layers"), [0], "mlp_only_layers"),
        (("text_config", "rope_scaling"), {"rope_type": "yarn"}, "rope_type"),
        (("text_config", "rope_scaling"), {"rope_type": "default"}, "fope_init_factor"),
    ],
)
def test_a_model_that_would_be_computed_wrongly_is_refused(path: tuple[str, ...], value: Any, complaint: str) -> None:
    document = small_config().to_document()
    place = document
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(UsageError, match=complaint):
        ModelConfig.from_document(document)


def test_a_missing_key_is_named() -> None:
    document = small_config().to_document()
    del document["ts_token_id"]
    with pytest.raises(UsageError, match="ts_token_id"):
        ModelConfig.from_document(document)
    document = small_config().to_document()
    del document["text_config"]["head_dim"]
    with pytest.raises(UsageError, match="head_dim"):
        ModelConfig.from_document(document)


def test_a_folder_without_a_configuration_is_an_error_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no config\.json"):
        ModelConfig.read(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        ModelConfig.read(tmp_path)
